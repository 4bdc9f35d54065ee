"""Template text to a list of parts."""

import re
from dataclasses import dataclass

TAG = re.compile(r'\{\{ *(\w+) *\}\}|\{% *include +"([^"]+)" *%\}\n?')


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Value:
    name: str


@dataclass(frozen=True)
class Include:
    template: str


def parse(source):
    parts = []
    position = 0
    for tag in TAG.finditer(source):
        if tag.start() > position:
            parts.append(Text(source[position : tag.start()]))
        parts.append(Value(tag[1]) if tag[1] else Include(tag[2]))
        position = tag.end()
    if position < len(source):
        parts.append(Text(source[position:]))
    return parts
