"""What the loops of a run come to, small enough to be stored with it: a report of many runs reads no journal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.analysis.loops.detector import Loop
from harness.analysis.loops.price import Spent, kind_of_a_part, missing_joules, tokens_of, whole_of
from harness.analysis.loops.stored import NO_CALLS, Analysed
from harness.analysis.names import label


@dataclass(frozen=True, slots=True)
class Digest:
    """A run and its loops. Where they are unknown `why` says so, and there is no loop and nothing wasted."""

    run: Mapping[str, Any]
    """Its row of `runs_summary`, with `ended_detail` and `verdict_detail`."""
    loops: tuple[Loop, ...]
    """By onset."""
    last_useful: int | None
    """The last call that got it any further."""
    growth_json: str
    """`growth` as it is stored: of many runs it would take most of the memory."""
    counted_tokens: int
    """Of the calls whose tokens are known."""
    whole: Spent
    wasted: Spent
    """From the onset of the first plain loop that it never recovered from."""
    after_useful: Spent
    dead_end: Loop | None
    """The first plain loop from which it never recovered."""
    why: str | None = None

    @property
    def growth(self) -> list[tuple[int, int, int]]:
        """What a guard would have seen: (call, steps of the longest loop when it came, tokens from that call on)."""
        return [(call, steps, tokens) for call, steps, tokens in json.loads(self.growth_json)]

    @property
    def model(self) -> str:
        return label(self.run["engine"], self.run["model"])

    @property
    def unanalysable(self) -> bool:
        return self.why is not None and self.why != NO_CALLS

    @property
    def told(self) -> bool:
        """Whether there is something to be told of it."""
        return self.why is None

    def recovered(self, loop: Loop) -> bool:
        return self.last_useful is not None and self.last_useful >= loop.onset


def digest_of(analysed: Analysed) -> Digest:
    run, spending, history = analysed.run, analysed.spending, analysed.history
    # Nothing, and that is known whatever the kind of the run's energy.
    nothing = Spent(0, 0, 0.0, 0.0, kind_of_a_part(run), run["energy_coverage"])
    tokens = [(call["call_index"], tokens_of([call]) or 0) for call in spending.calls]
    counted = sum(number for _, number in tokens)
    if history is None:
        return Digest(run, (), None, "[]", counted, spending.of_all(), nothing, nothing, None, analysed.why)
    end = history.dead_end
    useful = history.useful[-1] if history.useful else None
    return Digest(
        run=run,
        loops=tuple(history.loops),
        last_useful=useful,
        growth_json=json.dumps(
            [(call, steps, sum(number for index, number in tokens if index >= call)) for call, steps in history.growth]
        ),
        counted_tokens=counted,
        whole=spending.of_all(),
        wasted=spending.since(end.onset) if end else nothing,
        after_useful=spending.since(0 if useful is None else useful + 1),
        dead_end=end,
    )


def as_row(digest: Digest, detector: str) -> dict[str, Any]:
    """As a row of the table `histories`."""
    return {
        "run_id": digest.run["run_id"],
        "detector": detector,
        "why": digest.why,
        "last_useful": digest.last_useful,
        "calls": digest.whole.calls,
        "tokens": digest.whole.tokens,
        "counted_tokens": digest.counted_tokens,
        **{f"wasted_{name}": value for name, value in _amounts(digest.wasted).items()},
        **{f"after_useful_{name}": value for name, value in _amounts(digest.after_useful).items()},
        "growth": digest.growth_json,
    }


def _amounts(spent: Spent) -> dict[str, Any]:
    return {"calls": spent.calls, "tokens": spent.tokens, "s": spent.seconds, "j": spent.joules}


def of_row(run: Mapping[str, Any], row: Mapping[str, Any], loops: tuple[Loop, ...]) -> Digest:
    """Back from a row of the table `histories` and the run's loops."""

    def spent(prefix: str) -> Spent:
        calls, tokens, seconds, joules = (row[f"{prefix}_{name}"] for name in ("calls", "tokens", "s", "j"))
        why = missing_joules(run) if joules is None else None
        return Spent(calls, tokens, seconds, joules, kind_of_a_part(run), run["energy_coverage"], why)

    useful = row["last_useful"]
    return Digest(
        run=run,
        loops=loops,
        last_useful=useful,
        growth_json=row["growth"],
        counted_tokens=row["counted_tokens"],
        whole=whole_of(run, row["calls"], row["tokens"]),
        wasted=spent("wasted"),
        after_useful=spent("after_useful"),
        dead_end=next(
            (loop for loop in loops if loop.alarm is not None and (useful is None or useful < loop.onset)), None
        ),
        why=row["why"],
    )


def loops_of(digest: Digest) -> list[dict[str, Any]]:
    """The loops of a run as rows of the table `loops`."""
    return [
        {
            "run_id": digest.run["run_id"], "number": number, "kind": loop.kind, "conversation": loop.thread,
            "onset": loop.onset, "end": loop.end, "steps": loop.steps, "plain_at": loop.alarm,
            "recovered": int(digest.recovered(loop)),
        }
        for number, loop in enumerate(digest.loops, 1)
    ]  # fmt: skip
