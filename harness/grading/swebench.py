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
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath

from harness.errors import MachineError, UserError, nearest
from harness.grading import record
from harness.grading.trial import Log, Setting, Tried, left_file, lists_of, place, run_tests, work_directory
from harness.sandbox.archive import File, TooMuch
from harness.sandbox.command import SandboxError
from harness.sandbox.container import tar_of
from harness.sandbox.tree import Applied, Base, PatchRejected, touched
from harness.suites.base import TarEntry
from harness.suites.swebench import END, START, SweBenchTask, patched_files

SCRIPT = f"{record.FOLDER}/tests.sh"
KEY = f"{record.FOLDER}/key"
PATCH = f"{record.FOLDER}/model.patch"
RECORD_BYTES = 16 << 20
PATCH_LIMIT_S = 300.0  # for GNU patch
LOG_BYTES = 64 << 20  # the verdict is read from it, so it has to be whole

# GNU patch, as the official harness asks it as its last resort.
FUZZY = f'cd "$1" && patch --batch --forward --fuzz=5 --no-backup-if-mismatch -p1 -i {PATCH}'

# What runners and Python load by themselves, wherever it lies, and what decides what is installed.
LOADED = (
    "conftest.py",
    "pyproject.toml",
    "pytest.ini",
    ".pytest.ini",
    "runtests.py",
    "setup.cfg",
    "setup.py",
    "sitecustomize.py",
    "tox.ini",
    "usercustomize.py",
)


def check_parsers() -> None:
    """Raises MachineError when the official parsers are not installed."""
    if importlib.util.find_spec("swebench") is None:
        raise MachineError(
            "SWE-bench instances are graded by the package swebench: `pip install 'agent-energy-harness[swebench]'`"
        )


def check_parser(task: SweBenchTask) -> None:
    """Raises UserError when a row names a parser that the official package does not have."""
    from swebench.harness.log_parsers import PARSER_REGISTRY

    if task.log_parser not in PARSER_REGISTRY:
        raise UserError(f"{task.suite}: {task.name}: log_parser: {nearest(task.log_parser, PARSER_REGISTRY)}")


def is_runners(path: str, base: Collection[str], fix: Collection[str]) -> bool:
    """Whether a file decides how tests are run, so that a patch's version of it is put back.

    Tests and their settings; what Python or a runner load by themselves; compiled code, of which nothing shows that it
    is that of the source beside it; and whatever is new at the top, where it
    would be found in place of something installed, or as settings, or as the metadata of a plugin. `base` are the
    files before the patch, `fix` those that the known solution changes: what has to be changed is never put back.
    """
    parts = PurePosixPath(path).parts
    if path in fix:
        return False
    if {"tests", "__pycache__"} & set(parts) or parts[-1] in LOADED or path.endswith((".pth", ".pyc", ".pyo")):
        return True
    return not any(known == parts[0] or known.startswith(f"{parts[0]}/") for known in base)


def try_tests(setting: Setting, task: SweBenchTask, patch: bytes) -> Tried:
    """Run the hidden tests on a copy with `patch`. Raises Cancelled, PatchRejected, SandboxError."""
    prepared = setting.prepared
    base = prepared.base
    try:
        change = _change(base, task, patch)
    except PatchRejected:
        patch = _by_gnu_patch(setting, patch)
        change = dataclasses.replace(_change(base, task, patch), applied="patch_fuzz")
    try:
        tests_changed, tests_removed, _ = base.apply(task.test_patch.encode())
    except PatchRejected as error:
        raise SandboxError(f"the hidden tests don't go onto this image: {error}") from error
    changed, removed = [*change.changed, *tests_changed], [*change.removed, *tests_removed]
    key = secrets.token_hex(32)
    recorded = record.with_record(task.command)
    files: dict[str, TarEntry] = {
        SCRIPT: _script(task, recorded).encode(),
        f"{record.FOLDER}/{record.SCRIPT.name}": record.SCRIPT,
        KEY: key.encode(),
    }
    files |= lists_of(base, changed, removed)
    log = Log(LOG_BYTES)
    network = "bridge" if task.hosts else "none"
    with setting.container(tar_of(files), task.test_timeout_s, network) as container:
        try:
            place(container, prepared.workdir, changed, removed, log)
        except SandboxError as error:
            return Tried(None, f"can't be run: {error}", 0.0, log.content, _notes(task, change, recorded))
        exit_, how = run_tests(
            container, ["bash", SCRIPT], workdir=prepared.workdir, env={}, timeout_s=task.test_timeout_s,
            sink=log.add, cancelled=setting.cancelled,
        )  # fmt: skip
        container.kill()  # nothing that the tests left running can write a record any more
        content = None if how or not recorded else left_file(container, f"{record.FOLDER}/record", RECORD_BYTES)
    notes = _notes(task, change, recorded)
    kept = record.read(content, key) if content else None
    if not how and recorded and kept is None:
        how = f"ended before their end (exit code {exit_.code})"
    if how:
        return Tried(None, how, exit_.duration_s, log.content, notes)
    passed, how = official(task, log.content)
    if passed and kept is not None:
        # Of a file that both change, the hidden tests' version is what was run.
        patchs = {file.path for file in change.changed} - {file.path for file in tests_changed}
        against = record.contradiction(kept, task.fail_to_pass, task.pass_to_pass, patchs, prepared.workdir)
        if against:
            return Tried(False, against, exit_.duration_s, log.content, notes)
    return Tried(passed, how, exit_.duration_s, log.content, notes)


@dataclasses.dataclass(frozen=True)
class _Change:
    """What of a patch is graded."""

    changed: Sequence[File]
    removed: Sequence[str]
    put_back: Sequence[str]
    applied: Applied | None  # None for no patch


def _change(base: Base, task: SweBenchTask, patch: bytes) -> _Change:
    """Raises PatchRejected for a patch that git does not take."""
    if not patch:
        return _Change((), (), (), None)
    changed, removed, applied = base.apply(patch)
    fix = set(patched_files(task.gold_patch))
    # For a new test file the hidden tests' version counts, and for one of theirs as well.
    paths = [*(file.path for file in changed), *removed]
    put_back = sorted(path for path in paths if is_runners(path, base.entries, fix))
    return _Change(
        [file for file in changed if file.path not in put_back],
        [path for path in removed if path not in put_back],
        put_back,
        applied,
    )


def _by_gnu_patch(setting: Setting, patch: bytes) -> bytes:
    """What GNU patch makes of a patch that git does not take, as one that git takes: what it really changes is read
    from its work, not from the names in the patch. Raises PatchRejected, SandboxError."""
    for path in touched(patch):
        if {"..", ".git"} & set(PurePosixPath(path).parts) or path.startswith("/"):
            raise PatchRejected(f"it names {path!r}")
    log = Log()
    prepared = setting.prepared
    with setting.container(tar_of({PATCH: patch}), PATCH_LIMIT_S) as container:
        done = container.exec(["sh", "-c", FUZZY, "sh", prepared.workdir], sink=log.add)
        if done.code != 0:
            raise PatchRejected(log.content.decode(errors="replace").strip()[-400:] or f"patch: exit code {done.code}")
        try:
            return prepared.base.difference(work_directory(container, prepared.workdir, setting.cancelled)).patch
        except TooMuch as error:
            raise PatchRejected(str(error)) from error


def _script(task: SweBenchTask, recorded: str | None) -> str:
    """What is run in the container, with the marks that the official reader looks for."""
    lines = ["exec 2>&1", f"cd {shlex.quote(task.workdir or '.')}"]
    if not task.hosts:
        lines.append("export PIP_NO_INDEX=1")  # else pip asks again and again for what it can't reach
    # An installation runs code of the repository: the key is out of its sight, in a variable of this shell.
    lines += [f"harness_key=$(cat {KEY})", f"rm {KEY}", *task.before, f'printf %s "$harness_key" >{KEY}']
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


def official(task: SweBenchTask, log: bytes) -> tuple[bool | None, str]:
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
        try:
            report = get_eval_report(spec, prediction, file.name, include_tests_status=True)[task.name]
        except Exception as error:  # noqa: BLE001 - of a log that anybody may have printed into
            return None, f"left a log that the official reader can't read ({type(error).__name__}: {error})"
    status = report.get("tests_status")
    if status is None:
        reason = str(report.get("infra_failure_reason") or "no test result that can be read").replace("_", " ")
        return None, f"left {reason}"
    counts = [
        f"{name} {len(status[name]['success'])} of {len(status[name]['success']) + len(status[name]['failure'])}"
        for name in ("FAIL_TO_PASS", "PASS_TO_PASS")
    ]
    return bool(report["resolved"]), ", ".join(counts)


def _notes(task: SweBenchTask, change: _Change, recorded: str | None) -> tuple[str, ...]:
    notes = []
    if recorded is None:
        notes.append("graded_by_log_alone")
    if task.hosts:
        notes.append("graded_with_network")
    if change.applied not in (None, "git_apply"):
        notes.append(f"patch_applied_by_{change.applied}")
    if change.put_back:
        shown = ", ".join(change.put_back[:5]) + (", ..." if len(change.put_back) > 5 else "")
        notes.append(f"put_back_for_grading: {shown}")
    return tuple(notes)
