"""Text of models and programs as text: a character that can't be seen, or that moves others, is made visible."""

from __future__ import annotations

import re

from markupsafe import Markup

LONGEST = 12_000  # characters of one text that a page shows: two thirds of them from the front

CONTROLS = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def visible(text: str) -> str:
    """The same text with control characters as their pictures, and marks of direction or without a width by number.

    A half of a surrogate pair, which no page can hold, is the replacement character.
    """
    return text if CONTROLS.search(text) is None else CONTROLS.sub(_picture, text)


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    if 0xD800 <= code < 0xE000:
        return "\ufffd"
    return "\u2421" if code == 0x7F else f"\u27e8U+{code:04X}\u27e9"


def finalized(value: object) -> object:
    """What a template puts out: text that is seen as it is. Markup is the templates' own."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def shortened(text: str) -> tuple[str, int]:
    """A very long text by its ends, and how many characters are left out."""
    if len(text) <= LONGEST:
        return text, 0
    front = LONGEST * 2 // 3
    left_out = len(text) - LONGEST
    return f"{text[:front]}\n[… {left_out:,} characters …]\n{text[front - LONGEST :]}", left_out
