"""The proof that a suite can be trusted: what is right resolves, and nothing less does."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from sqlite_utils import Database

from harness import paths
from harness.grading import hunks
from harness.grading.grade import Grade, grade, grade_untouched
from harness.images.locate import prepare_all
from harness.images.prepare import IN_USE, Prepared
from harness.plan import Plan
from harness.sandbox.container import Limits
from harness.store import records
from harness.store.artefacts import read
from harness.suites import Task
from harness.suites.swebench import SweBenchTask
from harness.sweep import Progress, run_sweep
from harness.task_limits import task_limits

# Of `wrong`, where no part of the solution was graded `unresolved`; the tests without any change are the proof then.
ONE_HUNK = "one_hunk"  # only the whole solution can be taken off
ANY_PART = "any_part"  # each part that was tried is enough to resolve


@dataclass(frozen=True)
class Proof:
    """What was tried on one task. `good` when all of it came out as it has to."""

    task: str
    oracle: str | None  # verdict on the known solution, applied by an agent in a sandbox
    nop: str | None  # verdict on doing nothing
    untouched: str  # verdict of the tests on the work directory as it is
    wrong: str | None  # verdict on the solution with hunks taken off; None where a task has no patch to take them off
    taken_off: str | None  # how many hunks of how many
    test_s: float | None  # with the solution
    duration_s: float | None  # of the oracle's run
    image_source: str
    image_origin: str | None
    image_bytes: int
    own_bytes: int | None  # of the image, what no other instance shares; None where that can't be told
    notes: tuple[str, ...]
    why: str | None  # it is not good
    log: str | None  # the end of what the tests printed, where it is not good

    @property
    def good(self) -> bool:
        return self.why is None


@paths.lock(IN_USE, shared=True)
def verify(
    plan: Plan, client: docker.DockerClient, db: Database, folder: Path, view: Progress, cancelled: threading.Event
) -> tuple[list[Proof], str | None]:
    """Try every task of a plan of the agents oracle and nop. The second value says why it was ended early, if it was.

    Raises what a sweep does.
    """
    prepared = prepare_all(client, plan.suite, folder, view.say)
    result = run_sweep(plan, client, db, folder, view, cancelled)
    made = {(row["task"], row["agent"]): row for row in records.runs_of(db, result.sweep_id)}
    cores = int(client.info()["NCPU"])
    proofs = []
    for task in plan.suite.tasks:
        if cancelled.is_set():
            break
        limits = task_limits(task, cores, plan.spec)
        rows = made.get((task.name, "oracle")), made.get((task.name, "nop"))
        proofs.append(_prove(client, task, prepared[task.name], limits, rows, folder, view.say, cancelled))
    return proofs, result.stopped


def _prove(
    client: docker.DockerClient,
    task: Task,
    prepared: Prepared,
    limits: Limits,
    rows: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None],
    folder: Path,
    say: Callable[[str], None],
    cancelled: threading.Event,
) -> Proof:
    oracle, nop = rows
    # An empty patch is not graded in a sweep, so the nop's verdict alone would prove nothing of the tests.
    say(f"{task.name}: the tests, without any change")
    untouched = grade_untouched(client, task, prepared, limits, cancelled)
    wrong, taken_off = None, None
    if isinstance(task, SweBenchTask):
        say(f"{task.name}: the tests, with a part of the solution")
        wrong, taken_off = _wrong(client, task, prepared, limits, cancelled)
    why = _why(oracle, nop, untouched, wrong)
    total, own = _sizes(client, prepared.image)
    return Proof(
        task=task.name,
        oracle=oracle["verdict"] if oracle else None,
        nop=nop["verdict"] if nop else None,
        untouched=untouched.verdict,
        wrong=wrong,
        taken_off=taken_off,
        test_s=oracle["test_s"] if oracle else None,
        duration_s=oracle["duration_s"] if oracle else None,
        image_source=prepared.source,
        image_origin=prepared.origin,
        image_bytes=total,
        own_bytes=own if prepared.source.startswith("rebuilt") else None,
        notes=untouched.notes,
        why=why,
        log=_last_lines(folder, oracle, untouched.log) if why else None,
    )


def _wrong(
    client: docker.DockerClient, task: SweBenchTask, prepared: Prepared, limits: Limits, cancelled: threading.Event
) -> tuple[str, str]:
    """The verdict on the solution without its last hunks, or its first, as few as it takes until the tests fail."""
    fix = task.gold_patch.encode()
    of = hunks.count(fix)
    for number in range(1, of):
        for part in (hunks.without_last(fix, number), hunks.without_first(fix, number)):
            found = grade(client, task, prepared, part, limits, cancelled)
            if found.verdict != "resolved":
                return found.verdict, f"{number} of {of}"
    return (ONE_HUNK if of == 1 else ANY_PART), f"{of} of {of}"


def _why(
    oracle: Mapping[str, Any] | None, nop: Mapping[str, Any] | None, untouched: Grade, wrong: str | None
) -> str | None:
    """Why a task can't be trusted, or None."""
    if untouched.verdict == "resolved":
        return "its tests pass without any change"
    if untouched.verdict != "unresolved":
        return f"its tests come to nothing without any change: {untouched.detail}"
    if oracle is None:
        return "the solution was not tried"
    if oracle["verdict"] != "resolved":
        detail = oracle["verdict_detail"] or oracle["ended_detail"] or "its tests fail with the solution"
        return f"the solution does not resolve it ({oracle['verdict']}): {detail}"
    if nop is None or nop["verdict"] != "empty_patch":
        return "doing nothing changed something"
    if wrong not in (None, "unresolved", ONE_HUNK, ANY_PART):
        return f"a part of the solution gives {wrong}"
    return None


def _sizes(client: docker.DockerClient, image: str) -> tuple[int, int | None]:
    """Bytes of an image, and of its last two layers: the instance's own files and its repository."""
    total = int(client.images.get(image).attrs["Size"])
    history = client.api.history(image)
    return total, sum(int(layer["Size"]) for layer in history[:2])


def _last_lines(folder: Path, oracle: Mapping[str, Any] | None, untouched_log: bytes) -> str:
    """The end of what the tests printed with the solution, or without where there is no such log."""
    log = untouched_log
    if oracle is not None:
        with contextlib.suppress(FileNotFoundError):
            log = read(folder, f"{oracle['sweep_id']}/{oracle['run_id']}/tests.log.gz")
    return "\n".join(log.decode(errors="replace").strip().splitlines()[-10:])
