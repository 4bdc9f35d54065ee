"""Text of models and programs as text: a character that can't be seen, or that moves others, is made visible."""

from __future__ import annotations

import re

CONTROLS = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def visible(text: str) -> str:
    """The same text with control characters as their pictures, and marks of direction or without a width by number.

    A half of a surrogate pair, which neither a page nor a terminal can hold, is the replacement character.
    """
    return text if CONTROLS.search(text) is None else CONTROLS.sub(_picture, text)


def for_terminal(text: str) -> str:
    """The same for a terminal, on which what came before could be written over: no sequence of its own reaches it."""
    return visible(text).replace("\r\n", "\n").replace("\r", "\u240d")


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    if 0xD800 <= code < 0xE000:
        return "\ufffd"
    return "\u2421" if code == 0x7F else f"\u27e8U+{code:04X}\u27e9"
