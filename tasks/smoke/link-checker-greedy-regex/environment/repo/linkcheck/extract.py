"""The links of a Markdown text."""

import re
from dataclasses import dataclass

LINK = re.compile(r"\[(.*)\]\((.*)\)")
FENCE = re.compile(r"\s*(```|~~~)")


@dataclass(frozen=True)
class Link:
    line: int  # counted from 1
    label: str
    target: str


def extract_links(text):
    """All inline links and images outside fenced code, in the order of the text."""
    links = []
    fenced = False
    for number, line in enumerate(text.splitlines(), start=1):
        if FENCE.match(line):
            fenced = not fenced
            continue
        if not fenced:
            links += [Link(number, found[1], found[2]) for found in LINK.finditer(line)]
    return links
