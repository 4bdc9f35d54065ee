"""Whether an answer says the same over and over."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import islice

WORD = re.compile(r"\w+|([^\w\s])\1*")  # a line of dashes is one
RUN = 4  # words
MOST_WORDS = 4_000


@dataclass(frozen=True, slots=True)
class Repetition:
    """Shares of an answer's runs of four words, by how often each stands in it.

    0 is a text that hardly ever says anything again, 1 one that does nothing else. Twice is how an edit is written (the
    old lines, then the new ones), so it says little of an answer that asks for something.
    """

    words: int
    twice: float
    thrice: float
    four_times: float


def repetition(text: str) -> Repetition:
    words = [match[0] for match in islice(WORD.finditer(text), MOST_WORDS)]
    runs = len(words) - RUN + 1
    if runs < 1:
        return Repetition(len(words), 0.0, 0.0, 0.0)
    counts = list(Counter(zip(words, words[1:], words[2:], words[3:], strict=False)).values())
    twice, thrice, four_times = (sum(count for count in counts if count >= least) / runs for least in (2, 3, 4))
    return Repetition(len(words), twice, thrice, four_times)
