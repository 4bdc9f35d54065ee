"""Whether an answer says the same over and over."""

from __future__ import annotations

import re

WORD = re.compile(r"\w+|[^\w\s]")
GRAM = 4  # words in a row that are compared
MOST_WORDS = 4_000


def repeated_share(text: str) -> tuple[float, int]:
    """The share of the text's runs of four words that stood before in it, and the number of words.

    0 is a text that never repeats itself; one that says a sentence of ten words a hundred times has 0.99.
    """
    words = WORD.findall(text)[:MOST_WORDS]
    runs = len(words) - GRAM + 1
    if runs < 1:
        return 0.0, len(words)
    different = set(zip(words, words[1:], words[2:], words[3:], strict=False))
    return 1 - len(different) / runs, len(words)
