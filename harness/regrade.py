"""Grading stored patches afresh: the same tests on the same patches, no agent, another row in `grades`."""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import docker
from sqlite_utils import Database

from harness import __version__
from harness.errors import UserError
from harness.gradable import gradable_here
from harness.grading.grade import grade
from harness.images.locate import prepare_all
from harness.images.prepare import Prepared
from harness.sandbox.removal import wait_for_removals
from harness.sandbox.runtime import find_runtime
from harness.spec import read_spec
from harness.store import records
from harness.store.artefacts import keep, read
from harness.suites import choose, load_suite
from harness.task_limits import task_limits

FAILED = ("grader_error", "not_gradable")


def regrade(
    client: docker.DockerClient,
    db: Database,
    runs_dir: Path,
    sweep: Mapping[str, Any],
    again: bool,
    data: Path | None,
    say: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """Grade the patches of a sweep's runs (only those whose grading failed, unless `again`), each stored as it is done.

    Raises UserError when the suite is another one by now, its images are not here, or, at the end, patches are lost.
    """
    runs = [
        run for run in records.runs_of(db, str(sweep["sweep_id"]))
        if run["patch_bytes"] and not records.spoilt(run) and (again or run["verdict"] in FAILED)
    ]  # fmt: skip
    if not runs:
        return
    spec = read_spec(None, {}, json.loads(sweep["spec"]))
    resolved = json.loads(sweep["resolved"])["suite"]
    source = data or (Path(spec.data) if spec.data else None)
    # The tasks that the sweep had; which of them can be graded here is a question of its own.
    whole = choose(load_suite(spec.tasks, source), resolved["tasks"], None)
    if whole.hash != resolved["hash"]:
        raise UserError(
            f"suite {whole.name} is not what it was in sweep {sweep['sweep_id']} (hash {resolved['hash']}, now "
            f"{whole.hash}): grading by other tests would be another experiment"
        )
    wanted = {run["task"] for run in runs}
    suite = gradable_here(choose(whole, [task.name for task in whole.tasks if task.name in wanted], None), [])
    reasons = {task.name: task.reason for task in suite.left_out}
    runtime = find_runtime(client, spec.runtime)
    prepared = prepare_all(client, suite, runs_dir / "logs", say)
    tasks = {task.name: task for task in suite.tasks}
    cores = int(client.info()["NCPU"])
    lost: list[str] = []
    try:
        for run in runs:
            if run["task"] in reasons:
                say(f"{run['run_id']} can't be graded here: {reasons[run['task']]}")
                continue
            task, image = tasks[run["task"]], prepared[run["task"]]
            say(f"grading {run['run_id']}: {run['agent']} on {run['task']}")
            folder = runs_dir / str(sweep["sweep_id"]) / run["run_id"]
            try:
                patch = _patch(db, runs_dir, run["run_id"])
            except UserError as error:  # the others are still worth grading
                say(str(error))
                lost.append(run["run_id"])
                continue
            limits = task_limits(task, cores, spec)
            found = grade(
                client, task, image, patch, limits, threading.Event(), run=run["run_id"], runtime=runtime
            )  # fmt: skip
            number = db.table("grades").count_where("run_id = ?", [run["run_id"]]) + 1
            log = keep(runs_dir, folder, f"tests-{number}.log", found.log) if found.log else None
            notes = list(found.notes)
            if not _same_image(image, run):
                notes.append("graded_in_another_image")
            records.insert_grade(
                db, run, verdict=found.verdict, detail=found.detail, test_s=found.test_s, image_digest=image.image,
                notes=notes, artefact=asdict(log) if log else None, version=__version__,
            )  # fmt: skip
            yield {
                "run_id": run["run_id"], "agent": run["agent"], "task": run["task"], "before": run["verdict"],
                "now": found.verdict, "detail": found.detail, "test_s": found.test_s, "notes": notes,
            }  # fmt: skip
    finally:
        wait_for_removals()
    if lost:
        raise UserError(f"{len(lost)} patches could not be read ({', '.join(lost[:3])}): the others are graded")


def _same_image(image: Prepared, run: Mapping[str, Any]) -> bool:
    """Whether a task's image is what it was in a run, by the most that the run's row tells of it."""
    if run["image_origin"]:
        return bool(image.origin == run["image_origin"])
    if run["task_image_digest"]:
        return bool(image.task_image == run["task_image_digest"])
    return bool(image.image == run["image_digest"])


def _patch(db: Database, runs_dir: Path, run_id: str) -> bytes:
    """The stored patch of a run. Raises UserError when its file is gone."""
    rows = list(db.query("SELECT path FROM artefacts WHERE run_id = ? AND name = 'patch.diff'", [run_id]))
    try:
        return read(runs_dir, rows[0]["path"])
    except (OSError, EOFError, zlib.error, IndexError) as error:
        where = runs_dir / (rows[0]["path"] if rows else run_id)
        why = f"can't be read ({error})" if where.exists() else "is gone (see --runs-dir)"
        raise UserError(f"the patch of run {run_id}, {where}, {why}") from None
