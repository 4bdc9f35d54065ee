import sys

from pagemill import Engine, TemplateNotFound

folder, name, *pairs = sys.argv[1:]
try:
    sys.stdout.write(Engine(folder).render(name, dict(pair.split("=", 1) for pair in pairs)))
except TemplateNotFound as error:
    sys.exit(f"pagemill: no such template: {error}")
