"""Rendering, with compiled templates kept."""

from html import escape

from pagemill.files import Folder
from pagemill.parser import Include, Text, parse


class Engine:
    def __init__(self, path):
        self.folder = Folder(path)
        self.compilations = 0
        self._kept = {}  # name: (stamp, parts)

    def render(self, name, values):
        """The text of a template; a value that is missing raises KeyError."""
        return "".join(
            part.text if isinstance(part, Text) else escape(str(values[part.name])) for part in self._parts(name)
        )

    def _parts(self, name):
        stamp = self.folder.stamp(name)
        if name not in self._kept or self._kept[name][0] != stamp:
            self._kept[name] = (stamp, self._compile(name))
        return self._kept[name][1]

    def _compile(self, name):
        """The parts of a template, with the parts of what it includes in place of the includes."""
        self.compilations += 1
        parts = []
        for part in parse(self.folder.read(name)):
            if isinstance(part, Include):
                parts += self._parts(part.template)
            else:
                parts.append(part)
        return parts
