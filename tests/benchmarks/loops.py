"""How fast loops are found. Exit code 1 where it is slower than issue 6 allows.

The search alone first, on steps that are there: those of the labelled set's 250 runs, one after the other, again and
again with new numbers, as if one run had made them all. The baseline is the least that any detector has to do with a
step: look its action and outcome up in a dictionary. Then what the gateway pays for a call, the rebuilding of its step
out of the whole request included: the same runs, with prompts as long as the frameworks' own, decoded anew for each
call as they are there.

    python tests/benchmarks/loops.py [--largest 1000000]
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "loops"))

from quality import traces

from harness.analysis.loops.detector import Detector
from harness.analysis.steps.rebuild import Step
from harness.gateway.guard import Guard

CHUNK = 10_000
STEPS_A_SECOND = 50_000
CALL_MS = 1.0
OPENING = re.compile(r"\[opening of (\d+) characters, ")


def steps() -> Iterator[Step]:
    real = [step for trace in traces() for step in trace.steps]
    for number in count():
        step = real[number % len(real)]
        # An own state of the files for each round: what was read is forgotten when they change, as in a run.
        state = None if step.after is None else f"{step.after}{number // len(real)}"
        yield replace(step, said=replace(step.said, call=number, before=state), after=state)


def detector_s(size: int) -> tuple[float, float, int]:
    """CPU seconds of the detector and of the baseline, and the loops that were found."""
    detector, known = Detector(), {}
    spent_s = baseline_s = 0.0
    source = islice(steps(), size)
    while chunk := list(islice(source, CHUNK)):
        began = time.process_time()
        for step in chunk:
            detector.hear(step.said)
            detector.feed(step)
            detector.grown()
        between = time.process_time()
        for step in chunk:
            known[step.said.action, step.outcome] = step.call
        spent_s += between - began
        baseline_s += time.process_time() - between
    return spent_s, baseline_s, len(detector.loops())


def calls_ms() -> list[float]:
    """Milliseconds of each call of the labelled runs, as the gateway spends them."""
    found = []
    for trace in traces():
        guard = Guard("observe", 20)
        for call in trace.calls:
            messages = json.loads(json.dumps([long_again(message) for message in call.messages]))
            began = time.perf_counter()
            if call.is_request:
                guard.before(call.index, messages, call.workdir)
            if call.is_step:
                guard.after(call.index, call.status, call.text, "", call.tool_calls, call.cut)
            found.append(1e3 * (time.perf_counter() - began))
    return found


def long_again(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """An opening, of which the labelled set has the length alone, as long as it was."""
    match = OPENING.match(message["content"]) if isinstance(message.get("content"), str) else None
    return {**message, "content": ("words of a prompt " * (int(match[1]) // 18 + 1))} if match else message


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--largest", type=int, default=1_000_000)
    given = options.parse_args()
    rates = {}
    size = 1_000
    while size <= given.largest:
        # A short one is over before a noisy machine has settled: the best of several.
        spent_s, baseline_s, loops = min(detector_s(size) for _ in range(max(1, min(9, 100_000 // size))))
        rates[size] = size / spent_s
        print(
            f"{size:>9,} steps  {rates[size]:>9,.0f} steps/s  {spent_s / baseline_s:5.1f} x a look-up  {loops:,} loops"
        )
        size *= 10
    growth = max(rates.values()) / min(rates.values())
    print(f"linear      the slowest rate is {1 / growth:.2f} of the fastest (limit 0.50)")
    spent = sorted(calls_ms())
    median_ms, high_ms = statistics.median(spent), spent[int(0.99 * len(spent))]
    longest = f"longest {spent[-1]:.2f} ms of {len(spent):,} calls"
    print(f"a call      median {median_ms:.2f} ms, p99 {high_ms:.2f} ms (limit {CALL_MS:g}), {longest}")
    good = min(rates.values()) >= STEPS_A_SECOND and growth <= 2 and high_ms <= CALL_MS
    print("within the limits" if good else "OUTSIDE the limits")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
