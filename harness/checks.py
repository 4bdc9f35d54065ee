"""What a sweep refuses before its first run, each in one sentence."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.analysis.records import differences
from harness.errors import MachineError, UserError
from harness.plan import Plan

FREE_BYTES, FREE_FILES = 2 << 30, 1000  # asked for in the runs folder before a sweep starts


def check_same(stored: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises UserError that shows what differs between a stored sweep and one that wants to continue it."""
    found = differences(stored, json.loads(json.dumps(now)))
    changed = [f"{key}: {before[:60]} -> {after[:60]}" for key, before, after in found]
    # The list of runs follows from the rest: it is the difference only where nothing else is.
    changed = [line for line in changed if not line.startswith("runs: ")] or changed
    if changed:
        shown = "; ".join(changed[:6]) + (f"; and {len(changed) - 6} more" if len(changed) > 6 else "")
        raise UserError(
            f"this is not the sweep that was begun ({shown}): undo the change, or start a new sweep without --resume"
        )


def check_space(runs_dir: Path) -> None:
    """Raises MachineError when the runs folder can't be written or has no room for a sweep."""
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=runs_dir).close()  # it never has a name, so none is left
    except OSError as error:
        raise MachineError(f"the runs folder {runs_dir} can't be written: {error.strerror}") from error
    free = shutil.disk_usage(runs_dir).free
    if free < FREE_BYTES:
        raise MachineError(
            f"{runs_dir} has {free >> 20} MB left, a sweep asks for {FREE_BYTES >> 20} MB: "
            "make room, or choose another folder with --runs-dir"
        )
    found = os.statvfs(runs_dir)
    if found.f_files and found.f_favail < FREE_FILES:  # some file systems have no such number
        raise MachineError(
            f"{runs_dir} has inodes for {found.f_favail} more files, a sweep asks for {FREE_FILES}: "
            "remove some, or choose another folder with --runs-dir"
        )


def check_cores(cores: int, plan: Plan) -> None:
    """Raises UserError when a sandbox would need more cores than Docker has: no container could start."""
    if plan.spec.cpus:
        if plan.spec.cpus > cores:
            raise UserError(f"--cpus {plan.spec.cpus:g} is more than Docker has here: {cores}")
        return
    for task in plan.suite.tasks:
        if task.cpus and task.cpus > cores:
            raise UserError(
                f"{task.suite}/{task.name}: environment.cpus: {task.cpus:g} is more than Docker has here ({cores}): "
                "give --cpus to run it with fewer"
            )


def check_meter_at(plan: Plan) -> None:
    """Raises UserError for a meter that is said to stand at a remote engine where no engine is remote."""
    if plan.spec.meter_at == "here":
        return
    if plan.spec.meter is None:
        raise UserError("--meter-at engine: there is no meter; name it with --meter")
    where = {model.label: model.engine.location() for model in plan.models}
    if "remote" not in where.values():
        found = ", ".join(f"{label} is {word}" for label, word in where.items()) or "no model is called"
        raise UserError(
            f"--meter-at engine: no engine of this sweep is on another machine ({found}): leave the flag out"
        )
