"""The tests of a SWE-bench instance, as the official harness runs and reads them.

The patch goes onto a fresh copy, then the hidden tests, then the repository's own test command is run and its log is
read by the official parser. What decides how tests are run is never the patch's: see `is_runners`. All passed means
that the log says so and the runner's own record (record.py) as well.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import secrets
import shlex
import tempfile
import threading
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath

import docker

from harness.errors import MachineError
from harness.grading import record
from harness.grading.trial import GRACE_S, Log, Tried, left_file, lists_of, place, run_tests
from harness.images.prepare import Prepared
from harness.sandbox.container import Container, Limits, running, tar_of
from harness.sandbox.tree import Applied, Base, File, PatchRejected, touched
from harness.suites.base import TarEntry
from harness.suites.swebench import END, START, SweBenchTask, patched_files

SCRIPT = f"{record.FOLDER}/tests.sh"
PATCH = f"{record.FOLDER}/model.patch"
RECORD_BYTES = 16 << 20

# GNU patch, as the official harness asks it as its last resort.
FUZZY = f"cd \"$1\" && patch --batch --forward --fuzz=5 -p1 -i {PATCH} && find . -name '*.orig' -newer {PATCH} -delete"

# As the image's own installation was made.
REINSTALL = "SETUPTOOLS_USE_DISTUTILS=stdlib python -m pip install --no-deps --no-index --no-build-isolation -e ."

ROOT_FILES = ("conftest.py", "pytest.ini", ".pytest.ini", "tox.ini", "setup.cfg", "pyproject.toml", "runtests.py")
ANYWHERE = ("conftest.py", "sitecustomize.py", "usercustomize.py")


def check_parsers() -> None:
    """Raises MachineError when the official parsers are not installed."""
    if importlib.util.find_spec("swebench") is None:
        raise MachineError(
            "SWE-bench instances are graded by the package swebench: `pip install 'agent-energy-harness[swebench]'`"
        )


def is_runners(path: str, base: Collection[str], fix: Collection[str]) -> bool:
    """Whether a file decides how tests are run, so that a patch's version of it is put back.

    Tests and their settings; what Python or pytest load by themselves; and new modules at the top, which would be
    found in place of an installed one of the same name. `base` are the files before the patch, `fix` those that the
    known solution changes: what has to be changed is never put back.
    """
    parts = PurePosixPath(path).parts
    if path in fix:
        return False
    if "tests" in parts[:-1] or parts[-1] in ANYWHERE or path.endswith(".pth") or path in ROOT_FILES:
        return True
    top = parts[0]
    new = not any(known == top or known.startswith(f"{top}/") for known in base)
    return new and path.endswith((".py", ".so"))


def try_tests(
    client: docker.DockerClient,
    task: SweBenchTask,
    prepared: Prepared,
    patch: bytes,
    limits: Limits,
    cancelled: threading.Event,
    *,
    sweep: str,
    run: str,
) -> Tried:
    """Run the hidden tests on a copy with `patch`. Raises Cancelled, PatchRejected, SandboxError."""
    base = prepared.base
    change = _change(base, task, patch)
    tests_changed, tests_removed, _ = base.apply(task.test_patch.encode())
    changed, removed = [*change.changed, *tests_changed], [*change.removed, *tests_removed]
    key = secrets.token_hex(32)
    recorded = record.with_record(task.command)
    files: dict[str, TarEntry] = {
        SCRIPT: _script(task, recorded, reinstall="setup.py" in change.paths).encode(),
        f"{record.FOLDER}/{record.SCRIPT.name}": record.SCRIPT,
        f"{record.FOLDER}/key": key.encode(),
        PATCH: patch,
    }
    files |= lists_of(base, changed, removed)
    log = Log()
    lasting = dataclasses.replace(limits, deadline_s=task.test_timeout_s + GRACE_S)
    with running(
        client, prepared.image, kind="grade", limits=lasting, files=tar_of(files), sweep=sweep, run=run, hardened=False,
        network="bridge" if task.hosts else "none",
    ) as container:  # fmt: skip
        if change.applied == "patch_fuzz":
            _apply_fuzzily(container, prepared.workdir, base, change, log)
        place(container, prepared.workdir, changed, removed, log)
        exit_, how = run_tests(
            container, ["bash", SCRIPT], workdir=prepared.workdir, env={}, timeout_s=task.test_timeout_s,
            sink=log.add, cancelled=cancelled,
        )  # fmt: skip
        container.kill()  # nothing that the tests left running can write a record any more
        content = None if how or not recorded else left_file(container, f"{record.FOLDER}/record", RECORD_BYTES)
    notes = _notes(task, change)
    kept = record.read(content, key) if content else None
    if not how and recorded and kept is None:
        how = f"ended before their end (exit code {exit_.code})"
    if how:
        return Tried(None, how, exit_.duration_s, log.content, notes)
    passed, how = _official(task, log.content)
    if passed and kept is not None:
        against = record.contradiction(kept, task.fail_to_pass, task.pass_to_pass, change.paths, prepared.workdir)
        if against:
            return Tried(False, against, exit_.duration_s, log.content, notes)
    return Tried(passed, how, exit_.duration_s, log.content, notes)


@dataclasses.dataclass(frozen=True)
class _Change:
    """What of a patch is graded."""

    changed: Sequence[File]
    removed: Sequence[str]
    paths: frozenset[str]  # all that the patch touches
    put_back: tuple[str, ...]
    applied: Applied | None  # None for no patch


def _change(base: Base, task: SweBenchTask, patch: bytes) -> _Change:
    """Raises PatchRejected for a patch that can't be tried by any means."""
    if not patch:
        return _Change((), (), frozenset(), (), None)
    try:
        changed, removed, applied = base.apply(patch)
    except PatchRejected:
        # Whether GNU patch can make sense of it, the container will tell.
        changed, removed, applied = [], [], "patch_fuzz"
        paths = frozenset(touched(patch))
    else:
        paths = frozenset([*(file.path for file in changed), *removed])
    if unsafe := [path for path in paths if {"..", ".git"} & set(PurePosixPath(path).parts) or path.startswith("/")]:
        raise PatchRejected(f"it names {unsafe[0]!r}")
    fix = set(patched_files(task.gold_patch))
    # For a new test file the hidden tests' version counts, and for one of theirs as well.
    put_back = tuple(sorted(path for path in paths if is_runners(path, base.entries, fix)))
    return _Change(
        [file for file in changed if file.path not in put_back],
        [path for path in removed if path not in put_back],
        paths,
        put_back,
        applied,
    )


def _apply_fuzzily(container: Container, workdir: str, base: Base, change: _Change, log: Log) -> None:
    done = container.exec(["sh", "-c", FUZZY, "sh", workdir], sink=log.add)
    if done.code != 0:
        raise PatchRejected(log.content.decode(errors="replace").strip()[-400:] or f"patch: exit code {done.code}")
    back = [file for path in change.put_back if (file := base.read(path))]
    gone = [path for path in change.put_back if path not in base.entries]
    container.put(tar_of(lists_of(base, back, gone)))
    place(container, workdir, back, gone, log)


def _script(task: SweBenchTask, recorded: str | None, *, reinstall: bool) -> str:
    """What is run in the container, with the marks that the official reader looks for."""
    lines = ["exec 2>&1", f"cd {shlex.quote(task.workdir or '.')}", *task.before]
    if reinstall:
        lines.append(
            "SETUPTOOLS_USE_DISTUTILS=stdlib python -m pip install --no-deps --no-index --no-build-isolation -e ."
        )
    if recorded and not recorded.startswith("python "):
        # Beside the installed packages, where every way of starting pytest finds it.
        lines.append(
            f"cp {record.FOLDER}/{record.SCRIPT.name} "
            '"$(python -c "import os, _pytest; print(os.path.dirname(os.path.dirname(_pytest.__file__)))")"/'
        )
    lines += [
        f"echo '{START}'",
        recorded or task.command,
        "code=$?",
        f"echo '{END}'",
        'echo ">>>>> Test Exit Code: $code"',
    ]
    return "\n".join(lines) + "\n"


def _official(task: SweBenchTask, log: bytes) -> tuple[bool | None, str]:
    """The official verdict on a log, and what there is to say of it; None when it can't be graded."""
    from swebench.harness.grading import get_eval_report
    from swebench.types import TestSpec

    spec = TestSpec(
        instance_id=task.name,
        image=task.published_image,
        eval_script_list=[],
        repo=task.repo,
        version=task.version,
        FAIL_TO_PASS=list(task.fail_to_pass),
        PASS_TO_PASS=list(task.pass_to_pass),
        log_parser=task.log_parser,
        eval_type="pass_and_fail",
    )
    prediction = {"instance_id": task.name, "model_name_or_path": "", "model_patch": "-"}
    with tempfile.NamedTemporaryFile(prefix="harness-log-") as file:
        file.write(log.decode(errors="replace").encode())
        file.flush()
        report = get_eval_report(spec, prediction, file.name, include_tests_status=True)[task.name]
    status = report.get("tests_status")
    if status is None:
        reason = str(report.get("infra_failure_reason") or "no test result that can be read").replace("_", " ")
        return None, f"left {reason}"
    counts = [
        f"{name} {len(status[name]['success'])} of {len(status[name]['success']) + len(status[name]['failure'])}"
        for name in ("FAIL_TO_PASS", "PASS_TO_PASS")
    ]
    return bool(report["resolved"]), ", ".join(counts)


def _notes(task: SweBenchTask, change: _Change) -> tuple[str, ...]:
    notes = []
    if task.hosts:
        notes.append("graded_with_network")
    if change.applied not in (None, "git_apply"):
        notes.append(f"patch_applied_by_{change.applied}")
    if change.put_back:
        shown = ", ".join(change.put_back[:5]) + (", ..." if len(change.put_back) > 5 else "")
        notes.append(f"put_back_for_grading: {shown}")
    return tuple(notes)
