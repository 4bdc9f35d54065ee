"""The labelled set is what was committed, and the detector is as good on it as is aimed for."""

from __future__ import annotations

import hashlib
import json

import pytest
import quality
from quality import FOLDER, by_loop, by_run, found_by_us, history, kappa, labels, traces

from harness.analysis.loops.kinds import DETECTOR, KINDS
from harness.analysis.loops.watch import Watch
from harness.analysis.steps.journal import Call


def test_the_labels_are_those_that_were_made_before_the_detector() -> None:
    content = b"".join((FOLDER / "labels" / f"{who}.json").read_bytes() for who in ("a", "b", "agreed"))
    assert hashlib.sha256(content).hexdigest() == (FOLDER / "labels" / "sha256").read_text().strip()


@pytest.mark.parametrize("who", ["a", "b", "agreed"])
def test_every_trace_is_labelled_with_kinds_and_steps_that_exist(who: str) -> None:
    said = labels(who)
    assert said.keys() == {trace.name for trace in traces()}
    for trace in traces():
        calls = {call.index for call in trace.calls}
        for label in said[trace.name]:
            assert label["kind"] in KINDS
            assert label["onset"] <= label["end"]
            assert {label["onset"], label["end"]} <= calls


def test_the_set_is_as_large_and_as_mixed_as_it_has_to_be() -> None:
    real = [trace for trace in traces() if trace.group == "real"]
    assert len(real) >= 100
    assert len({trace.agent for trace in real}) >= 3
    assert sum(trace.group == "hard_negative" for trace in traces()) >= 60


def test_whether_a_real_run_loops_is_told_as_well_as_aimed_for() -> None:
    score = by_run([trace for trace in traces() if trace.group == "real"], found_by_us)
    assert score.right >= 0.98 * (score.right + score.wrong)
    assert score.found >= 0.95 * (score.found + score.missed)


def test_what_only_looks_like_a_loop_raises_hardly_an_alarm() -> None:
    score = by_loop([trace for trace in traces() if trace.group == "hard_negative"], found_by_us)
    assert score.wrong <= 1


def test_kappa_takes_chance_into_account() -> None:
    assert kappa([(True, True), (False, False)]) == 1
    assert kappa([(True, True), (True, False), (False, True), (False, False)]) == 0


def heard(calls: list[Call]) -> list[tuple[str, int, int]]:
    """Every loop that grew, as the gateway hears it, in their order."""
    watch, alarms = Watch(), []
    for call in calls:
        if call.is_request:
            alarms += [(loop.kind, loop.onset, loop.steps) for loop in watch.asked(call.messages, call.workdir)[1]]
        if call.is_step:
            watch.answered(call.index, call.status, call.text, call.tool_calls, call.cut)
    return alarms


def test_an_alarm_needs_nothing_of_what_comes_after_it() -> None:
    """What was heard up to some call is the beginning of what was heard up to the end."""
    for trace in traces():
        whole = heard(trace.calls)
        for part in (len(trace.calls) // 3, 2 * len(trace.calls) // 3):
            alarms = heard(trace.calls[:part])
            assert alarms == whole[: len(alarms)]


def test_no_loop_has_more_steps_than_calls_lie_in_it() -> None:
    for trace in traces():
        steps = trace.steps
        for loop in found_by_us(trace):
            within = sum(step.thread == loop.thread and loop.onset <= step.call <= loop.end for step in steps)
            assert 1 <= loop.steps <= within, (trace.name, loop)


def test_every_run_can_be_shown_side_by_side() -> None:
    assert len(quality.agreement()) == 3
    assert any(row[:2] == ["held out", "real"] for row in quality.runs_table())


FOUND = {"1": "44368c35ec1edeea"}
"""By rules (`DETECTOR`), the hash of all that they find in the set."""


def test_rules_that_find_something_else_have_another_number() -> None:
    """By it stores know that what was kept of their runs is out of date."""
    found = [
        [trace.name, [[loop.kind, loop.thread, loop.onset, loop.end, loop.steps, loop.alarm] for loop in seen.loops],
         seen.useful, seen.growth]
        for trace in traces()
        for seen in [history(trace)]
    ]  # fmt: skip
    assert hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16] == FOUND[DETECTOR]
