"""Agents that behave badly: each ends by its right name and within its limits, its work is graded all the same, and
the run after it is as if nothing had been."""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import Harness
from invariant import broken
from tiny_task import SOLVE, SUBMIT, suite

from harness.store.artefacts import read

pytestmark = pytest.mark.docker

LIMIT_S, GRACE_S = 20.0, 10.0
ESCAPES = r"\033[31mred\033[0m \033]0;title\007 \000nul \377\376 \033[2J"
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\x9b]")


@dataclass(frozen=True)
class Odd:
    """A script; then the greeting is mended and submitted, unless the script has ended by then."""

    script: str
    ended_by: str = "submitted"
    verdict: str = "resolved"
    claimed: str | None = "submitted"
    flag: str | None = None
    thorough: bool = False
    after: str = ""  # what it does when it has submitted


DETACHED = "(trap '' TERM HUP INT; setsid sh -c 'while :; do sleep 1; done' &)\n"

ODD = {
    # They end when they are told to, or when they are ended.
    "deaf": Odd(SOLVE + "trap '' TERM HUP INT QUIT\nwhile :; do sleep 1; done", "timeout", claimed=None, thorough=True),
    "flees": Odd(DETACHED * 3, thorough=True),
    "chatters": Odd("yes 'a line of no use' | head -c {chatter}", flag="output_cut"),
    # What they print and say.
    "garbles": Odd(f"printf '{ESCAPES}'; printf '{ESCAPES}' >&2"),
    "garbles-its-result": Odd(
        "", after="printf '{\"status\": \"gave_up\", \"message\": \"\\\\u001b[31mred \\\\u0000 \\\\ud800\"}' "
        '> "$HARNESS_RESULT_FILE"', ended_by="gave_up", claimed="gave_up",
    ),
    "garbles-its-files": Odd("printf x > \"$(printf 'a\\033[31m\\377')\"", thorough=True),
    # The result file.
    "result-is-a-pipe": Odd(
        "", "gave_up", claimed="unreadable", after='rm "$HARNESS_RESULT_FILE"; mkfifo "$HARNESS_RESULT_FILE"',
    ),
    "result-is-a-link": Odd(
        "", "gave_up", claimed="unreadable", after='ln -sf /etc/shadow "$HARNESS_RESULT_FILE"',
    ),
    "result-is-huge": Odd(
        "", "gave_up", claimed="unreadable", flag="out_folder_too_large", after='truncate -s 2G "$HARNESS_RESULT_FILE"',
    ),
    "result-is-a-folder": Odd(
        "", "gave_up", claimed="unreadable", thorough=True,
        after='rm "$HARNESS_RESULT_FILE"; mkdir "$HARNESS_RESULT_FILE"',
    ),
    # The repository.
    "git-is-a-pipe": Odd("rm -rf .git; mkfifo .git"),
    "git-is-a-link": Odd("rm -rf .git; ln -s / .git", thorough=True),
    "git-is-a-hard-link": Odd(
        "rm -rf .git; ln greeting.txt .git", verdict="empty_patch", flag="patch_left_out_large_files", thorough=True,
    ),
    "a-hundred-thousand-files": Odd(
        "mkdir z; cd z; seq 100000 | split -l 1 -a 5 - f; cd ..", flag="patch_left_out_large_files", thorough=True,
    ),
    # The machine.
    "sets-its-clock": Odd("date -s 2001-01-01 && echo 'the clock was set'", thorough=True),
    "opens-files": Odd("bash -c 'for i in $(seq 4000); do exec {fd}>/tmp/f$i || exit 9; done'", thorough=True),
    "kills-all": Odd(SOLVE + "kill -9 -1; sleep 60", "crashed", claimed=None, thorough=True),
}  # fmt: skip


def memory_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) << 10


def test_each_ends_by_its_name_and_leaves_the_next_run_alone(harness: Harness, thorough: bool) -> None:
    chosen = {name: odd for name, odd in ODD.items() if thorough or not odd.thorough}
    chatter = 1 << 30 if thorough else 64 << 20
    agents = []
    for name, odd in chosen.items():
        script = odd.script.replace("{chatter}", str(chatter)) + f"\n{SOLVE}{SUBMIT}{odd.after}\n"
        agents.append(harness.agent(name, script))
        if thorough or name == list(chosen)[-1]:
            agents.append(harness.agent(f"after-{name}", SOLVE + SUBMIT))
    process = harness.popen(
        "sweep", "--agents", ",".join(agents), "--tasks", suite(harness.folder), "--order", "listed",
        "--time-limit", str(LIMIT_S),
    )  # fmt: skip
    sizes: list[int] = []

    def weigh() -> None:
        while process.poll() is None:
            try:
                sizes.append(memory_bytes(process.pid))
            except (OSError, StopIteration):
                return
            time.sleep(0.2)

    watch = threading.Thread(target=weigh)
    watch.start()
    out, err = process.communicate(timeout=1800)
    watch.join()
    assert process.returncode == 0, out + err
    assert not CONTROL.search(out + err), [line for line in (out + err).splitlines() if CONTROL.search(line)]
    rows = {row["agent"]: row for row in harness.rows("SELECT * FROM runs")}
    wrong = []
    for name, odd in chosen.items():
        row = rows[name]
        said = (row["ended_by"], row["verdict"], row["claimed"])
        if said != (odd.ended_by, odd.verdict, odd.claimed):
            wrong.append(f"{name}: {said} ({row['ended_detail']}; {row['verdict_detail']})")
        flags = [flag.partition(":")[0] for flag in json.loads(row["flags"])]
        if odd.flag and odd.flag not in flags:
            wrong.append(f"{name}: not flagged {odd.flag}: {flags}")
        if row["agent_s"] > LIMIT_S + 3 * GRACE_S:
            wrong.append(f"{name}: took {row['agent_s']:.0f} s")
        after = rows.get(f"after-{name}")
        if after and (after["ended_by"], after["verdict"]) != ("submitted", "resolved"):
            wrong.append(f"after {name}: {after['ended_by']}, {after['verdict']} ({after['ended_detail']})")
    assert wrong == [], "\n".join(wrong)
    assert broken(harness) == []

    log = read(harness.runs, f"{rows['chatters']['sweep_id']}/{rows['chatters']['run_id']}/agent.log.gz")
    assert len(log) < 17 << 20
    assert log.endswith(b"a line of no use\n") or b"bytes are left out]" in log
    # What an agent prints is passed on and forgotten; 16 MiB of it are kept.
    assert max(sizes) - sizes[len(sizes) // 20] < 250 << 20, (min(sizes), max(sizes))

    for name in ("garbles", "garbles-its-result"):
        shown = harness("runs", "show", rows[name]["run_id"])
        assert shown.code == 0, shown.err
        assert not CONTROL.search(shown.out + shown.err), repr(shown.out)
        as_json = harness("runs", "show", rows[name]["run_id"], "--json")
        assert json.loads(as_json.out)
        assert not CONTROL.search(as_json.out)
    for words in (["runs", "list"], ["report"], ["runs", "list", "--json"]):
        shown = harness(*words)
        assert shown.code == 0, shown.err
        assert not CONTROL.search(shown.out + shown.err)
    page = next(harness.runs.glob("*/summary.html")).read_text()
    assert not CONTROL.search(page)
