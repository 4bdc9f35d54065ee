"""The folder of templates."""

from pathlib import Path


class TemplateNotFound(LookupError):
    """There is no template file of that name."""


class Folder:
    def __init__(self, path):
        self.path = Path(path)

    def read(self, name):
        try:
            return (self.path / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise TemplateNotFound(name) from None

    def stamp(self, name):
        """What changes whenever the file is edited."""
        try:
            status = (self.path / name).stat()
        except FileNotFoundError:
            raise TemplateNotFound(name) from None
        return status.st_mtime_ns, status.st_size
