"""A long sweep, watched from outside: what the harness holds must not grow. Exit code 1 when it does.

A sweep of a thousand runs of an agent that asks the scripted engine three times, in its own container, with grading;
another with two runs at a time. Four times a second the resident memory, open files and threads of the harness and the
memory of its sampler are read. Memory: the median of the fifty runs after run 100 against that of the last fifty. Files
and threads come and go with what happens to be under way, and two runs at a time beat against each other for a hundred
runs: the lowest number in the first half from run 100 on against that in the second, which whatever is left open
raises. More than 5 % (or, of what is counted, one piece) is growth. In the end nothing may be left: no container,
process, or temporary file.

    python tests/benchmarks/soak.py [--runs 1000] [--slots 1,2]
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

LARGEST_GROWTH = 0.05
TASKS = 4
FIRST, WINDOW = 100, 50  # runs

RUNNER = """#!/bin/sh
exec python3 -c '
import json, os, urllib.request
said = []
for _ in range(3):
    said.append({"role": "user", "content": "What next? " * 200})
    asked = urllib.request.Request(
        os.environ["OPENAI_BASE_URL"] + "/chat/completions",
        json.dumps({"model": os.environ["HARNESS_MODEL"], "messages": said}).encode(),
        {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Content-Type": "application/json"},
    )
    said.append(json.load(urllib.request.urlopen(asked))["choices"][0]["message"])
open("asked.txt", "w").write("three times\\n")
json.dump({"status": "submitted"}, open(os.environ["HARNESS_RESULT_FILE"], "w"))
'
"""
MANIFEST = (
    'name = "asker"\ngroup = "example"\nsummary = "Asks three times."\nversion = "1"\nrunner = "run.sh"\n'
    "calls_model = true\n"
)
PLAY = 'when_exhausted = "loop"\n[[answers]]\ntext = "Look at the files, then at the tests, then decide. "\n'


@dataclass(frozen=True)
class Reading:
    """What the harness and its sampler held when so many runs were stored."""

    runs: int
    memory_bytes: int
    sampler_bytes: int
    files: int
    threads: int


def sweep(folder: Path, runs: int, slots: int) -> subprocess.Popen[bytes]:
    agent = folder / "asker"
    agent.mkdir()
    (agent / "agent.toml").write_text(MANIFEST, encoding="utf-8")
    (agent / "run.sh").write_text(RUNNER, encoding="utf-8")
    (folder / "play.toml").write_text(PLAY, encoding="utf-8")
    (folder / "tmp").mkdir()
    words = ["sweep", "--agents", str(agent), "--models", f"scripted/{folder / 'play.toml'}", "--tasks", "smoke"]
    words += ["--limit", str(TASKS), "--repeats", str(runs // TASKS), "--slots", str(slots)]
    with (folder / "sweep.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "harness", *words],
            cwd=folder,
            stdout=log,
            stderr=log,
            env=os.environ | {"TMPDIR": str(folder / "tmp")},
        )


def readings(process: subprocess.Popen[bytes], database: Path) -> Iterator[Reading]:
    harness = psutil.Process(process.pid)
    while process.poll() is None:
        time.sleep(0.25)
        stored = count(database)
        if not stored:
            continue
        try:
            sampler = sum(child.memory_info().rss for child in harness.children() if "sampler" in str(child.cmdline()))
            with harness.oneshot():
                yield Reading(
                    stored, harness.memory_info().rss, sampler, harness.num_fds(), harness.num_threads()
                )  # fmt: skip
        except psutil.NoSuchProcess:
            continue


def count(database: Path) -> int:
    if not database.exists():
        return 0
    with sqlite3.connect(database, timeout=30) as db:
        try:
            return int(db.execute("SELECT COUNT(*) FROM runs").fetchone()[0])
        except sqlite3.OperationalError:  # not made yet
            return 0


def left(folder: Path, database: Path, pid: int) -> list[str]:
    """What of a sweep is still there."""
    from harness.sandbox.daemon import SWEEP, connect

    with sqlite3.connect(database) as db:
        [(sweep_id,)] = db.execute("SELECT sweep_id FROM sweeps")
    containers = connect().api.containers(all=True, filters={"label": f"{SWEEP}={sweep_id}"})
    found = [f"container {each['Id'][:12]}" for each in containers]
    found += [f"temporary {path.name}" for path in (folder / "tmp").iterdir()]
    found += [f"part {path.name}" for path in (folder / "runs").rglob("*.part")]
    for process in psutil.process_iter(["pid", "environ"]):
        if (process.info["environ"] or {}).get("TMPDIR") == str(folder / "tmp") and process.pid != pid:
            found.append(f"process {process.pid}")
    return found


def soak(runs: int, slots: int) -> bool:
    """Whether nothing grew and nothing was left."""
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        database = folder / "runs" / "harness.db"
        began = time.monotonic()
        process = sweep(folder, runs, slots)
        seen = list(readings(process, database))
        took_s = time.monotonic() - began
        with sqlite3.connect(database) as db:
            ends = db.execute("SELECT ended_by, verdict, COUNT(*) FROM runs GROUP BY 1, 2").fetchall()
        remains = left(folder, database, os.getpid())
        if process.returncode:
            print((folder / "sweep.log").read_text(encoding="utf-8")[-2000:])
    print(f"{runs} runs, {slots} at a time: {took_s:,.0f} s, exit code {process.returncode}")
    print("  " + ", ".join(f"{n} {ended_by} and {verdict}" for ended_by, verdict, n in ends))
    half = (FIRST + runs) // 2
    windows = (FIRST, FIRST + WINDOW), (runs - WINDOW, runs)  # then it closes what it has
    halves = (FIRST, half), (half, runs)
    fine = process.returncode == 0 and sum(n for _, _, n in ends) == runs and not remains
    for field, unit, scale, of, parts in (
        ("memory_bytes", "MB", 1e6, statistics.median, windows),
        ("sampler_bytes", "MB", 1e6, statistics.median, windows),
        ("files", "", 1, min, halves),
        ("threads", "", 1, min, halves),
    ):
        before, after = (
            of([getattr(each, field) for each in seen if first <= each.runs < last]) / scale for first, last in parts
        )
        growth = after / before - 1
        grew = growth > LARGEST_GROWTH and (scale > 1 or after - before > 1)
        fine = fine and not grew
        most = max(getattr(each, field) for each in seen) / scale
        print(
            f"  {field.replace('_bytes', ''):8} {before:7.1f} {unit} from run {FIRST} on, {after:7.1f} {unit} at last"
            f" ({growth:+.1%}), most {most:.1f}{', GREW' if grew else ''}"
        )
    hundreds = [[each.memory_bytes for each in seen if each.runs // 100 == number] for number in range(runs // 100)]
    print("  memory by the hundred: " + ", ".join(f"{statistics.median(part) / 1e6:.0f}" for part in hundreds if part))
    print(f"  left behind: {', '.join(remains) or 'nothing'}", flush=True)
    return fine


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--slots", default="1,2")
    given = parser.parse_args()
    if given.runs < FIRST + 2 * WINDOW:
        parser.error(f"--runs: at least {FIRST + 2 * WINDOW} are needed to compare two parts")
    fine = [soak(given.runs, int(slots)) for slots in given.slots.split(",")]
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
