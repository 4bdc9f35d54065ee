"""What loops cost, computed by hand; journals of every kind of damage; and what a guard would have saved."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from harness.analysis import failures
from harness.analysis.failures import RULES, failure_of
from harness.analysis.figures import CLOCK
from harness.analysis.intervals import wilson
from harness.analysis.loops.counterfactual import Recorded, curve
from harness.analysis.loops.detector import Loop
from harness.analysis.loops.digest import Digest, digest_of, loops_of
from harness.analysis.loops.kept import digests
from harness.analysis.loops.price import NO_PARTS
from harness.analysis.loops.stored import NO_CALLS, analyse, marks
from harness.analysis.loops.summary import kinds, recorded, wastes
from harness.analysis.metrics.cells import cells
from harness.analysis.summary import page
from harness.store.db import open_store
from harness.store.records import insert_run, insert_sweep

RESOLVED = {
    "suite": {"name": "s", "hash": "h", "tasks": ["t"]},
    "models": {},
    "agents": {},
    "sampling": {},
    "rules": {},
}
SYSTEM = {"role": "system", "content": "You are an engineer."}
ISSUE = {"role": "user", "content": "Mend it."}

# Ten seconds of setup; then calls of 2 s each, the first after 3 s, the others with 1 s in between; 4 s at the end.
CALLS = 6
AGENT_S = 3.0 + CALLS * 2.0 + (CALLS - 1) * 1.0 + 4.0


@pytest.fixture
def db(tmp_path: Path) -> Database:
    db = open_store(tmp_path / "h.db")
    insert_sweep(
        db, sweep_id="s", machine_id="m", facts={}, version="1", spec={}, resolved=RESOLVED, planned_runs=9
    )  # fmt: skip
    return db


def journal(folder: Path, answers: list[str], outcomes: list[str]) -> list[dict[str, Any]]:
    """The two files of a run, as the gateway writes them; returns them as rows of `artefacts`."""
    messages: list[dict[str, str]] = [SYSTEM, ISSUE]
    said: dict[str, Any] = {}
    lines = []
    for index, (answer, outcome) in enumerate(zip(answers, outcomes, strict=True)):
        hashes = []
        for message in messages:
            key = hashlib.sha256(json.dumps(message).encode()).hexdigest()
            said[key] = message
            hashes.append(key)
        lines.append(
            {"index": index, "status": "ok", "http_status": 200, "finish_reason": "stop", "workdir": None,
             "messages": hashes, "answer": {"text": answer, "thinking": "", "tool_calls": []}}
        )  # fmt: skip
        messages = [*messages, {"role": "assistant", "content": answer}, {"role": "user", "content": outcome}]
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "calls.jsonl": [json.dumps(line) for line in lines],
        "messages.jsonl": [json.dumps({"sha256": key, "message": message}) for key, message in said.items()],
    }
    rows = []
    for name, content in files.items():
        path = folder / f"{name}.gz"
        path.write_bytes(gzip.compress("\n".join(content).encode()))
        rows.append({"name": name, "path": path.name, "sha256": "", "bytes": 1})
    return rows


def sh(command: str) -> str:
    return f"```sh\n{command}\n```"


LOOPS = [sh("cat a.py")] + [sh("ls")] * (CALLS - 1)
OUTCOMES = ["def the_first_function(value):"] + ["a.py"] * (CALLS - 1)


def add(
    db: Database,
    folder: Path,
    position: int = 0,
    answers: list[str] = LOOPS,
    outcomes: list[str] = OUTCOMES,
    kind: str = "measured",
    parts: bool = True,
    **changes: Any,
) -> Digest:
    run_id = f"s-{position:04d}"
    row = {
        "run_id": run_id, "sweep_id": "s", "position": position, "suite": "s", "task": "t", "agent": "a",
        "agent_version": "1", "engine": "ollama", "model": "m", "think": 0, "repetition": 1, "attempt": 1,
        "ended_by": "budget_calls", "verdict": "empty_patch", "started_at": "2026-01-01T00:00:00+00:00",
        "ended_at": "", "duration_s": 99.0, "setup_s": 10.0, "agent_s": AGENT_S, "grading_s": 1.0, "calls": CALLS,
        "input_tokens": 10, "output_tokens": 4, "image_digest": "", "image_source": "dockerfile", "flags": "[]",
        "energy_source": "counters", "harness_version": "1", "machine_id": "m",
    } | changes  # fmt: skip
    calls = [
        {
            "call_id": f"{run_id}/{index}", "run_id": run_id, "call_index": index,
            "started_at": f"2026-01-01T00:00:{10 + 3 + 3 * index:02d}+00:00", "offset_s": 5.0 + 3.0 * index,
            "queued_s": 0.0, "duration_s": 2.0, "status": "ok", "truncated": 0, "dialect": "openai", "streamed": 1,
            "sent": 1, "tool_calls": 0, "request_bytes": 1, "asked": "{}", "input_tokens": 100 * (index + 1),
            "output_tokens": 10,
        }
        for index in range(len(answers))
    ]  # fmt: skip
    told = {"source": "counters", "component": "total", "layer": "gross", "kind": kind, "coverage": "cpu"}
    energy = [told | {"phase": "agent", "joules": None if kind == "unavailable" else 240.0}]
    by_call = []
    if parts:
        phases = {"prefill": 60.0, "decode": 120.0, "between_calls": 40.0, "tail": 20.0}
        energy += [told | {"phase": phase, "joules": joules} for phase, joules in phases.items()]
        by_call = [
            {"run_id": run_id, "call_index": index, "phase": phase, "duration_s": 1.0, "spread_j": joules / CALLS,
             "kind": kind, "source": "counters", "coverage": "cpu"}
            for index in range(CALLS)
            for phase, joules in (("prefill", 60.0), ("decode", 120.0))
        ]  # fmt: skip
    files = journal(folder, answers, outcomes) if answers else []
    insert_run(db, row, calls, energy, by_call, files)
    return digest_of(analyse(db, folder, run_id))


def test_what_was_spent_from_the_onset_on(db: Database, tmp_path: Path) -> None:
    run = add(db, tmp_path)
    assert run.dead_end == Loop("repeated_action", 0, 2, 5, 4, 3)
    lost, whole = run.wasted, run.whole
    assert (whole.calls, whole.tokens, whole.seconds, whole.joules) == (6, 2_160, AGENT_S, 240.0)
    # Calls 2 to 5: 300 + 400 + 500 + 600 tokens in, 40 out; the onset's call begins 9 s into the stage.
    assert (lost.calls, lost.tokens) == (4, 1_840)
    assert lost.seconds == pytest.approx(AGENT_S - 9.0)
    # 4 of 6 calls' joules, 3 of the 8 s between calls (3 s before the first), and the tail.
    assert lost.joules == pytest.approx(180.0 * 4 / 6 + 40.0 * 3 / 8 + 20.0)
    assert lost.kind == "estimated"


@pytest.mark.parametrize(
    ("kind", "parts", "why"),
    [
        ("estimated_constant", True, CLOCK),
        ("measured", False, NO_PARTS),
        ("unavailable", True, "no source told the energy"),
    ],
)
def test_joules_are_told_only_where_their_kind_allows(
    db: Database, tmp_path: Path, kind: str, parts: bool, why: str
) -> None:
    run = add(db, tmp_path, kind=kind, parts=parts)
    assert (run.wasted.joules, run.wasted.why) == (None, why)
    [cell] = wastes([run])
    assert cell.joules.value is None
    assert why in (cell.joules.why or "")
    assert cell.tokens.value == 1_840


def test_a_run_that_recovers_has_wasted_nothing(db: Database, tmp_path: Path) -> None:
    answers = [sh("ls")] * 4 + [sh("cat a.py"), sh("submit")]
    outcomes = ["a.py"] * 4 + ["def the_first_function(value):", ""]
    run = add(db, tmp_path, answers=answers, outcomes=outcomes)
    assert [loop.kind for loop in run.loops] == ["repeated_action"]
    assert (run.wasted.calls, run.wasted.tokens, run.wasted.joules) == (0, 0, 0.0)
    [row] = loops_of(run)
    assert row["recovered"]


def test_the_sum_of_a_cell_and_how_its_runs_differ(db: Database, tmp_path: Path) -> None:
    good = ([sh(f"cat {n}.py") for n in range(CALLS)], [f"def the_function_number_{n}(value):" for n in range(CALLS)])
    add(db, tmp_path / "0", 0)
    add(db, tmp_path / "1", 1, *good, verdict="resolved")
    add(db, tmp_path / "2", 2, ended_by="sandbox_error")
    for number in range(3):
        for path in (tmp_path / str(number)).iterdir():
            path.rename(tmp_path / f"{number}-{path.name}")
    db.execute("UPDATE artefacts SET path = CAST(substr(run_id, -1) AS INTEGER) || '-' || path")
    runs = digests(db, tmp_path, "s")
    [cell] = wastes(runs)
    assert (cell.runs, cell.unanalysable, cell.looping, cell.stuck) == (2, 0, 1, 1)
    assert (cell.calls.value, cell.tokens.value) == (4, 1_840)
    assert cell.tokens_share.value == pytest.approx(1_840 / 4_320)
    assert cell.quartiles is not None
    assert cell.quartiles[0] == 0
    assert cell.quartiles[4] == pytest.approx(1_840 / 2_160)
    assert [(kind.kind, kind.loops, kind.runs, kind.dead_ends) for kind in kinds(runs)] == [
        ("repeated_action", 1, 1, 1)
    ]
    assert len(list(recorded(runs))) == 2


def test_the_sum_over_a_sweep_stands_last(db: Database, tmp_path: Path) -> None:
    one, other = add(db, tmp_path / "0", 0), add(db, tmp_path / "1", 1, agent="b")
    assert [(cell.agent, cell.stuck, cell.tokens.value) for cell in wastes([one, other])] == [
        ("a", 1, 1_840),
        ("b", 1, 1_840),
        ("all", 2, 3_680),
    ]
    assert wastes([one, other])[2].joules.value == pytest.approx(2 * (one.wasted.joules or 0))


def test_the_share_after_the_last_useful_step(db: Database, tmp_path: Path) -> None:
    run = add(db, tmp_path)
    [cell] = cells(db, "s", analysed=[run])
    # Only call 0 got it any further: 5 of 6 calls, 4 of 8 s between them, and the tail.
    assert cell.after_last_useful_step.value == pytest.approx((180.0 * 5 / 6 + 40.0 * 4 / 8 + 20.0) / 240.0)
    assert cell.after_last_useful_step.kind == "estimated"


def test_tokens_that_the_engine_did_not_count_make_no_sum(db: Database, tmp_path: Path) -> None:
    add(db, tmp_path)
    db.execute("UPDATE calls SET output_tokens = NULL WHERE call_index = 3")
    run = digest_of(analyse(db, tmp_path, "s-0000"))
    assert run.wasted.tokens is None
    [cell] = wastes([run])
    assert cell.tokens.value is None
    assert "did not count" in (cell.tokens.why or "")
    assert kinds([run])[0].wasted_tokens is None
    # But on a prompt that did not fit no work was done.
    db.execute("UPDATE calls SET input_tokens = NULL, status = 'context_overflow' WHERE call_index = 3")
    run = digest_of(analyse(db, tmp_path, "s-0000"))
    assert run.wasted.tokens == 1_840 - 410


# What is kept of them in the store.


def test_what_was_kept_is_what_the_journal_tells(db: Database, tmp_path: Path) -> None:
    runs = [add(db, tmp_path), add(db, tmp_path, 1, answers=[], outcomes=[], calls=None)]
    first = digests(db, tmp_path, "s")
    for name in ("calls.jsonl", "messages.jsonl"):
        (tmp_path / f"{name}.gz").unlink()
    kept = digests(db, tmp_path, "s")
    assert [run.run["run_id"] for run in kept] == ["s-0000", "s-0001"]
    for found in (first, kept):
        for one, other in zip(runs, found, strict=True):
            for name in (
                "loops",
                "last_useful",
                "growth",
                "dead_end",
                "counted_tokens",
                "whole",
                "wasted",
                "after_useful",
                "why",
            ):
                assert getattr(one, name) == getattr(other, name), name
            assert one.dead_end == other.dead_end
    assert list(db.query("SELECT kind, onset, end, plain_at, recovered FROM loops")) == [
        {"kind": "repeated_action", "onset": 2, "end": 5, "plain_at": 3, "recovered": 0}
    ]


def test_what_other_rules_found_is_found_anew(db: Database, tmp_path: Path) -> None:
    add(db, tmp_path)
    digests(db, tmp_path, "s")
    db.execute("UPDATE histories SET detector = 'older', wasted_calls = 99")
    db.execute("UPDATE loops SET kind = 'cycle'")
    [run] = digests(db, tmp_path, "s")
    assert (run.wasted.calls, [loop.kind for loop in run.loops]) == (4, ["repeated_action"])
    assert [row["kind"] for row in db.query("SELECT kind FROM loops")] == ["repeated_action"]


def test_of_a_journal_that_is_gone_nothing_is_kept_since_it_may_come_back(db: Database, tmp_path: Path) -> None:
    add(db, tmp_path)
    (tmp_path / "calls.jsonl.gz").rename(tmp_path / "away")
    assert digests(db, tmp_path, "s")[0].unanalysable
    (tmp_path / "away").rename(tmp_path / "calls.jsonl.gz")
    assert digests(db, tmp_path, "s")[0].dead_end is not None


def test_a_store_that_can_not_be_written_is_read_all_the_same(db: Database, tmp_path: Path) -> None:
    add(db, tmp_path)
    db.execute("PRAGMA query_only = ON")
    assert digests(db, tmp_path, "s")[0].wasted.calls == 4


# Journals that are not what they should be.


def broken(folder: Path, name: str, content: bytes) -> None:
    (folder / f"{name}.gz").write_bytes(content)


LINE = json.dumps({"index": 0, "status": "ok"})


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("calls.jsonl", gzip.compress(b""), "calls.jsonl: it is empty"),
        ("calls.jsonl", b"", "calls.jsonl: it is empty"),
        ("calls.jsonl", gzip.compress(b"hello\n"), "calls.jsonl, line 1: "),
        ("calls.jsonl", gzip.compress(LINE.encode()), "calls.jsonl, line 1: no answer"),
        ("calls.jsonl", b"not compressed at all", "calls.jsonl, line 1: "),
        ("calls.jsonl", gzip.compress(b"\xff\xfe\x00" * 9), "calls.jsonl, line 1: "),
        ("messages.jsonl", gzip.compress(b"[]"), "messages.jsonl, line 1: not an object"),
        ("messages.jsonl", gzip.compress(b""), "calls.jsonl, line 1: a message that is not in messages.jsonl"),
    ],
)
def test_a_broken_journal_makes_its_run_unanalysable_and_says_where(
    db: Database, tmp_path: Path, name: str, content: bytes, complaint: str
) -> None:
    add(db, tmp_path)
    broken(tmp_path, name, content)
    run = digest_of(analyse(db, tmp_path, "s-0000"))
    assert run.unanalysable
    assert complaint in (run.why or "")
    assert str(tmp_path) in (run.why or "")
    assert failure_of(run).name == "timeout or budget"
    assert "loops unknown" in failure_of(run).evidence
    assert wastes([run])[0].unanalysable == 1
    assert complaint.split(":")[0] in page(db, "s", tmp_path)


def test_a_flipped_bit_anywhere_spoils_no_report(db: Database, tmp_path: Path) -> None:
    add(db, tmp_path)
    for name in ("calls.jsonl", "messages.jsonl"):
        whole = (tmp_path / f"{name}.gz").read_bytes()
        for place in range(0, len(whole), 7):
            broken(tmp_path, name, whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
            run = digest_of(analyse(db, tmp_path, "s-0000"))
            assert run.told or run.unanalysable
        broken(tmp_path, name, whole)
    assert analyse(db, tmp_path, "s-0000").history


@pytest.mark.parametrize(
    "change",
    [{"answer": {"text": 5, "thinking": "", "tool_calls": []}},
     {"answer": {"text": ["a"], "thinking": 0, "tool_calls": 1}},
     {"index": float("inf")}, {"workdir": 3}, {"messages": None}, {"status": None, "finish_reason": []}],
)  # fmt: skip
def test_values_of_another_type_are_said_to_be_no_call(db: Database, tmp_path: Path, change: dict[str, Any]) -> None:
    add(db, tmp_path)
    lines = gzip.decompress((tmp_path / "calls.jsonl.gz").read_bytes()).decode().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | change)
    broken(tmp_path, "calls.jsonl", gzip.compress("\n".join(lines).encode()))
    run = digest_of(analyse(db, tmp_path, "s-0000"))
    if "status" not in change:
        assert "calls.jsonl, line 2: not a call of the gateway" in (run.why or "")


def test_a_journal_that_was_cut_off_says_in_which_line(db: Database, tmp_path: Path) -> None:
    add(db, tmp_path)
    whole = (tmp_path / "calls.jsonl.gz").read_bytes()
    broken(tmp_path, "calls.jsonl", whole[: len(whole) // 2])
    run = digest_of(analyse(db, tmp_path, "s-0000"))
    assert run.unanalysable
    assert "calls.jsonl, line " in (run.why or "")


def test_a_journal_that_is_gone_and_a_run_without_calls_are_told_apart(db: Database, tmp_path: Path) -> None:
    add(db, tmp_path)
    (tmp_path / "calls.jsonl.gz").unlink()
    run = digest_of(analyse(db, tmp_path, "s-0000"))
    assert run.unanalysable
    idle = add(db, tmp_path, 1, answers=[], outcomes=[], calls=None)
    assert (idle.told, idle.why, idle.unanalysable) == (False, NO_CALLS, False)


def test_a_megabyte_and_what_is_no_text_are_taken_as_they_are(db: Database, tmp_path: Path) -> None:
    outcomes = [f"line {number}\n" * 200_000 for number in range(CALLS)]
    run = add(db, tmp_path, outcomes=outcomes)
    history = analyse(db, tmp_path, run.run["run_id"]).history
    assert history is not None
    assert len(history.steps) == CALLS
    lines = gzip.decompress((tmp_path / "messages.jsonl.gz").read_bytes()).decode().splitlines()
    strange = [json.loads(line) for line in lines]
    for line in strange:
        if line["message"]["role"] == "user":
            line["message"]["content"] = [{"type": "image_url", "image_url": {"url": "data:"}}, 7, None]
    broken(tmp_path, "messages.jsonl", gzip.compress("\n".join(json.dumps(line) for line in strange).encode()))
    assert analyse(db, tmp_path, "s-0000").history is not None


def test_marks_stand_beside_the_calls(db: Database, tmp_path: Path) -> None:
    add(db, tmp_path)
    history = analyse(db, tmp_path, "s-0000").history
    assert history is not None
    assert marks(history) == {2: ["repeated_action to 5"], **{call: ["repeated_action …"] for call in (3, 4, 5)}}


# Failures.


@pytest.mark.parametrize(
    ("name", "changes", "loops"),
    [
        ("resolved", {"ended_by": "budget_calls", "verdict": "resolved"}, True),
        ("environment error", {"ended_by": "sandbox_error"}, True),
        ("environment error", {"ended_by": "submitted", "verdict": "grader_error"}, False),
        ("model error", {"ended_by": "model_error"}, True),
        ("format failure", {"ended_by": "format_failure"}, True),
        ("context loss", {"ended_by": "context_overflow"}, False),
        ("loop: repeated_action", {"ended_by": "context_overflow"}, True),
        ("loop: repeated_action", {"ended_by": "budget_calls"}, True),
        ("loop: repeated_action", {"ended_by": "stopped_by_guard"}, True),
        ("loop: repeated_action", {"ended_by": "submitted"}, True),
        ("timeout or budget", {"ended_by": "timeout"}, False),
        ("timeout or budget", {"ended_by": "budget_tokens"}, False),
        ("timeout or budget", {"ended_by": "oom"}, False),
        ("invalid patch", {"ended_by": "submitted", "verdict": "patch_rejected"}, False),
        ("false success", {"ended_by": "submitted", "verdict": "unresolved"}, False),
        ("premature end", {"ended_by": "submitted", "verdict": "empty_patch"}, False),
        ("premature end", {"ended_by": "gave_up", "verdict": "unresolved"}, False),
        ("premature end", {"ended_by": "crashed", "verdict": "unresolved"}, False),
    ],
)
def test_every_run_has_one_class(db: Database, tmp_path: Path, name: str, changes: dict[str, str], loops: bool) -> None:
    good = ([sh(f"cat {n}.py") for n in range(CALLS)], [f"def the_function_number_{n}(value):" for n in range(CALLS)])
    run = add(db, tmp_path, 0, *((LOOPS, OUTCOMES) if loops else good), **changes)
    failure = failure_of(run)
    assert failure.name == name
    assert f"ended by {changes['ended_by']}" in failure.evidence
    assert ("from call 2 to 5" in failure.evidence) is loops
    assert failures.by_cell([run]) == {("a", "m"): {name: 1}}
    assert name in page(db, "s", tmp_path)


def test_the_last_rule_takes_what_is_left() -> None:
    assert RULES[-1].name == "premature end"


# What a guard would have saved.


TASKS = itertools.count()


def run_of(calls: int, grows_from: int | None, resolved: bool | None = False, dead: bool = True) -> Recorded:
    """A run of calls of 10 tokens, in which a loop grows by one step with each call."""
    growth = []
    if grows_from is not None:
        growth = [(call, call - grows_from, 10 * (calls - call)) for call in range(grows_from + 2, calls)]
    task = f"t{next(TASKS)}"
    return Recorded(task, 10 * calls, growth, grows_from is not None and dead, resolved)


def test_savings_and_losses_of_each_patience() -> None:
    runs = [run_of(20, 4), run_of(12, 1), run_of(10, None, True), run_of(15, 2, True, dead=False)]
    [two, ten] = curve(runs, (2, 10))
    # The guard sees two steps when calls 6, 3 and 4 come.
    assert (two.saved_tokens, two.stopped, two.lost, two.resolved) == (140 + 90, 3, 1, 2)
    assert two.share == pytest.approx(230 / 320)
    assert two.low is not None
    assert two.high is not None
    assert two.low <= two.share <= two.high
    assert (two.lost_share, (two.lost_low, two.lost_high)) == (0.5, wilson(1, 2))
    assert (ten.saved_tokens, ten.stopped) == (60 + 10, 3)


def test_no_loss_seen_is_not_no_loss() -> None:
    [point] = curve([run_of(20, 4), *[run_of(10, None, True)] * 30], (2,))
    assert (point.lost, point.lost_share, point.lost_high) == (0, 0.0, pytest.approx(3 / 30))


def test_without_resolved_or_looping_runs_there_is_no_share() -> None:
    [point] = curve([run_of(20, 4)], (2,))
    assert (point.lost_share, point.lost_high) == (None, None)
    [point] = curve([run_of(10, None, True)], (2,))
    assert (point.share, point.low, point.saved_tokens) == (None, None, 0)
    assert curve([], (2,))[0].stopped == 0


def test_wilson_by_hand() -> None:
    low, high = wilson(5, 10) or (0, 0)
    assert (round(low, 3), round(high, 3)) == (0.237, 0.763)
    assert wilson(0, 0) is None
    low, high = wilson(0, 20) or (1, 1)
    assert low == 0
    assert round(high, 3) == 0.161
