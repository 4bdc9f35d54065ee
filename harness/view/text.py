"""Text of models and programs on a page: nothing of it is hidden, and nothing is longer than a page can show."""

from __future__ import annotations

from markupsafe import Markup

from harness.visible import visible

LONGEST = 12_000  # characters of one text that a page shows: two thirds of them from the front


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
