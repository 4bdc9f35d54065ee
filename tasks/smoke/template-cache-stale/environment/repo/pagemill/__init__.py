from pagemill.engine import Engine
from pagemill.files import TemplateNotFound

__all__ = ["Engine", "TemplateNotFound"]
