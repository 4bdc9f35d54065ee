"""Whether an answer says the same over and over."""

from __future__ import annotations

import re
from collections import Counter

WORD = re.compile(r"\w+|[^\w\s]")
OFTEN = 4  # times; twice is how an edit is written: the old lines, then the new ones
MOST_WORDS = 4_000


def repeated_share(text: str) -> tuple[float, int]:
    """The share of the text's runs of four words that stand in it four times or more, and the number of words.

    0 is a text that hardly ever repeats itself, 1 one that does nothing else.
    """
    words = WORD.findall(text)[:MOST_WORDS]
    runs = len(words) - 3
    if runs < 1:
        return 0.0, len(words)
    times = Counter(zip(words, words[1:], words[2:], words[3:], strict=False))
    return sum(count for count in times.values() if count >= OFTEN) / runs, len(words)
