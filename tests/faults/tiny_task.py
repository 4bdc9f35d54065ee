"""A task whose image is made without a network, and whose tests take as long as one wants: a greeting to be mended."""

from __future__ import annotations

from pathlib import Path

from command_line import Harness

SUBMIT = 'echo \'{"status": "submitted"}\' > "$HARNESS_RESULT_FILE"\n'
SOLVE = "echo hello > greeting.txt\n"

TEST = """#!/bin/bash
mkdir -p /logs/verifier
{before}
grep -qx hello greeting.txt && reward=1 || reward=0
echo $reward > /logs/verifier/reward.txt
"""


def suite(folder: Path, before: str = "", disk_mb: int = 1024) -> str:
    """Write a suite of one task; `before` is what its tests do first. Returns its path for --tasks."""
    task = folder / "tiny" / "greeting"
    files = {
        "task.toml": f'version = "1.0"\n[environment]\nstorage_mb = {disk_mb}\n',
        "instruction.md": "greeting.txt should say hello.\n",
        "environment/Dockerfile": "FROM debian:bookworm-slim\nWORKDIR /testbed\nCOPY repo/ /testbed/\n",
        "environment/repo/greeting.txt": "bye\n",
        "tests/test.sh": TEST.format(before=before),
        "solution/solve.sh": f"cd /testbed\n{SOLVE}",
    }
    for name, text in files.items():
        path = task / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(task.parent)


def words(harness: Harness, script: str = "", *more: str, before: str = "", repeats: int = 1) -> list[str]:
    """The command of a sweep whose agent does `script`, mends the greeting and says so."""
    agent = harness.agent("mender", script + "\n" + SOLVE + SUBMIT)
    tasks = suite(harness.folder, before)
    return ["sweep", "--agents", agent, "--tasks", tasks, "--repeats", str(repeats), "--retries", "2", *more]
