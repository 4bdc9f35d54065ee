"""Repositories that run code when git touches them: the folder that the harness is started in, the suite's, the one in
the image. Each trap would leave a mark, on the host or in the container; none goes off."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Harness

from harness.suites import load_suite

pytestmark = [pytest.mark.docker, pytest.mark.network]

COMMANDS = ("core.fsmonitor", "core.sshCommand", "core.pager", "core.editor", "core.askPass", "diff.external",
            "diff.x.textconv", "diff.x.command", "filter.x.clean", "filter.x.smudge", "filter.x.process",
            "merge.x.driver", "uploadpack.packObjectsHook", "gpg.program", "credential.helper",
            "alias.diff", "alias.apply")  # fmt: skip
HOOKS = ("post-checkout", "pre-commit", "post-index-change", "reference-transaction", "post-merge", "pre-auto-gc")


def trap(folder: Path, mark: Path) -> None:
    """Make a repository of a folder in which every use of git leaves a mark."""

    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True)

    git("init", "-q")
    (folder / ".gitattributes").write_text("* filter=x diff=x merge=x ident export-subst\n")
    git("add", "-A")
    git("-c", "user.name=a", "-c", "user.email=a@example.invalid", "commit", "-qm", "x")
    bite = f"touch {mark}; false"
    for name in COMMANDS:
        git("config", name, f"!{bite}" if name.startswith(("alias", "credential")) else bite)
    git("config", "core.hooksPath", ".git/hooks")
    git("config", "include.path", "more")
    (folder / ".git" / "more").write_text(f"[core]\n\tfsmonitor = {bite}\n")
    for name in HOOKS:
        hook = folder / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\n{bite}\n")
        hook.chmod(0o755)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    mark = Path("/tmp") / f"trap-{tmp_path.name[:40]}"
    mark.unlink(missing_ok=True)
    yield mark
    mark.unlink(missing_ok=True)


def test_the_traps_are_sharp(tmp_path: Path, mark: Path) -> None:
    folder = tmp_path / "sharp"
    folder.mkdir()
    (folder / "a").write_text("x")
    trap(folder, mark)
    subprocess.run(["git", "-C", str(folder), "status"], capture_output=True, check=False)
    assert mark.exists()


def test_no_repository_that_the_harness_meets_runs_code(harness: Harness, mark: Path) -> None:
    task = load_suite("smoke").tasks[0]
    assert hasattr(task, "folder")
    copy = harness.folder / "suite" / task.name
    shutil.copytree(task.folder, copy)
    seen = "import os, subprocess\n" \
        f"print('SEEN', os.path.exists({str(mark)!r}), open('.git/config').read(), os.listdir('.git'))\n" \
        "print(subprocess.run(['git', 'status', '--porcelain'], capture_output=True).stdout)\n" \
        f"print('AFTER', os.path.exists({str(mark)!r}))\nopen('notes.txt', 'w').write('x')\n"  # fmt: skip
    looks = harness.agent("looks", f"#!/usr/bin/env python3\n{seen}", runner="run.py")
    manifest = Path(looks) / "agent.toml"
    (Path(looks) / "run.sh").write_text('exec python3 "$(dirname "$0")/run.py"\n')
    manifest.write_text(manifest.read_text().replace("run.py", "run.sh"))
    trap(copy / "environment" / "repo", mark)
    # A test that is graded looks as well: what is in the image there is what the harness made of it.
    script = copy / "tests" / "test.sh"
    script.write_text(script.read_text().replace("set -u\n", f"set -u\n[ -e {mark} ] && echo BITTEN\n", 1))
    trap(harness.folder, mark)

    done = harness("sweep", "--agents", f"oracle,nop,{looks}", "--tasks", "suite")
    assert done.code == 0, done.err
    for words in (["grade", "--again"], ["report"], ["export", "--format", "swebench"], ["doctor", "--json"],
                  ["agents", "list", "--json"], ["tasks", "list", "suite"]):  # fmt: skip
        assert harness(*words).code in (0, 1)
    assert not mark.exists()
    verdicts = {row["agent"]: row["verdict"] for row in harness.rows("SELECT agent, verdict FROM runs")}
    assert verdicts == {"oracle": "resolved", "nop": "empty_patch", "looks": "unresolved"}
    logs = {path.parent.name: path for path in harness.runs.rglob("agent.log.gz")}
    [run] = harness.rows("SELECT run_id FROM runs WHERE agent = 'looks'")
    said = subprocess.run(["zcat", str(logs[run["run_id"]])], capture_output=True, check=True, text=True).stdout
    assert "SEEN False" in said
    assert "AFTER False" in said
    assert "fsmonitor" not in said
    for path in harness.runs.rglob("tests.log.gz"):
        assert "BITTEN" not in subprocess.run(["zcat", str(path)], capture_output=True, text=True, check=True).stdout
