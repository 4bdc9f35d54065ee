"""Phases leave nothing out, whatever the calls were like."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise

import pytest

from harness.meter.phases import Phase, cut


@dataclass
class Timed:
    index: int
    offset_s: float
    duration_s: float
    first_token_s: float | None = None
    load_s: float | None = None
    sent: bool = True


def names(phases: list[Phase]) -> list[str]:
    return [phase.name for phase in phases]


def test_a_run_of_two_calls() -> None:
    calls = [Timed(0, 2, 5, first_token_s=3, load_s=1), Timed(1, 10, 4, first_token_s=1, load_s=0)]
    assert cut(100, 120, 100, calls) == [
        Phase("between_calls", 100, 102),
        Phase("load", 102, 103, 0),
        Phase("prefill", 103, 105, 0),
        Phase("decode", 105, 107, 0),
        Phase("between_calls", 107, 110),
        Phase("prefill", 110, 111, 1),
        Phase("decode", 111, 114, 1),
        Phase("tail", 114, 120),
    ]


def test_a_call_that_was_given_up_before_its_first_token_is_prefill() -> None:
    assert names(cut(0, 10, 0, [Timed(0, 1, 8)])) == ["between_calls", "prefill", "tail"]


def test_a_call_that_is_still_open_at_the_end_is_cut_there() -> None:
    assert cut(0, 5, 0, [Timed(0, 1, 60, first_token_s=2)])[-1] == Phase("decode", 3, 5, 0)


def test_without_calls_there_is_no_tail() -> None:
    assert cut(0, 5, 0, []) == [Phase("between_calls", 0, 5)]
    assert cut(0, 5, 0, [Timed(0, 1, 2, sent=False)]) == [Phase("between_calls", 0, 5)]


def test_they_always_add_up_to_the_run() -> None:
    rng = random.Random(11)
    for _ in range(5000):
        begin = rng.uniform(0, 1e6)
        end = begin + rng.choice([0.0, rng.uniform(0, 1e-3), rng.uniform(0, 4000)])
        opened = begin + rng.uniform(-2, 2)
        calls, offset = [], rng.uniform(-3, 3)
        for index in range(rng.randrange(8)):
            duration = rng.choice([0.0, rng.uniform(0, 900)])
            calls.append(
                Timed(
                    index,
                    offset,
                    duration,
                    first_token_s=rng.choice([None, 0.0, rng.uniform(0, 1000)]),
                    load_s=rng.choice([None, 0.0, rng.uniform(0, 30)]),
                    sent=rng.random() > 0.1,
                )
            )
            offset += duration + rng.choice([0.0, rng.uniform(0, 60)])
        rng.shuffle(calls)
        found = cut(begin, end, opened, calls)
        assert all(phase.duration_s > 0 for phase in found)
        assert all(before.end_s == after.begin_s for before, after in pairwise(found))
        assert sum(phase.duration_s for phase in found) == pytest.approx(end - begin)
        if found:
            assert (found[0].begin_s, found[-1].end_s) == (begin, end)
