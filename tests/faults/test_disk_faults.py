"""Disks that are full, out of inodes or read-only: one sentence, nothing half stored, and --resume finishes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from at_work import WAIT_S, at_work, stored
from command_line import Harness
from invariant import broken
from moments import until
from own_docker import OwnDocker, disk, missing, unmount
from tiny_task import words

from harness.sandbox.daemon import connect

pytestmark = pytest.mark.docker

CHATTER = "yes | head -c 8000000"


@pytest.fixture
def on_disk(harness: Harness) -> Iterator[Harness]:
    """A harness whose folder is a disk of its own, just large enough for a sweep to begin."""
    if reason := missing():
        pytest.skip(reason)
    with disk(3 << 30, inodes=3000) as folder:
        yield Harness(folder, harness.env, harness.started, own_session=True)


def fill(folder: Path) -> Path:
    """Take all the room that there is. Returns the file that has it."""
    filler = folder / "filler"
    with filler.open("wb") as file:
        size, step = 0, 1 << 30
        while step >= 4096:
            try:
                os.posix_fallocate(file.fileno(), size, step)
                size += step
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                step //= 2
    return filler


def use_up_inodes(folder: Path) -> Path:
    heap = folder / "heap"
    heap.mkdir()
    with contextlib.suppress(OSError):
        for number in range(1 << 30):
            (heap / str(number)).touch()
    return heap


def make_read_only(folder: Path) -> None:
    """As a disk becomes that answers with errors."""
    subprocess.run(["mount", "-o", "remount,errors=remount-ro", str(folder)], check=True)
    device = subprocess.run(
        ["findmnt", "--noheadings", "--output", "SOURCE", str(folder)], check=True, capture_output=True, text=True
    ).stdout.strip()
    Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error").write_text("1")


def mount_again(folder: Path) -> None:
    unmount(folder)
    subprocess.run(["mount", "-o", "loop", str(folder.with_name("image")), str(folder)], check=True)


@pytest.mark.parametrize("fault", ["full", "inodes", "read-only"])
def test_a_runs_folder_that_can_be_written_no_more_stops_the_sweep_and_loses_nothing(
    on_disk: Harness, thorough: bool, fault: str
) -> None:
    if fault != "full" and not thorough:
        pytest.skip("make faults tries each of them")
    # What it prints after the fault meets it in the middle of the agent stage.
    process = on_disk.popen(*words(on_disk, f"sleep 4; {CHATTER}", repeats=3))
    # What the test itself has written is to last; what the harness writes from here on, lasts by its own doing.
    subprocess.run(["sync", "--file-system", str(on_disk.folder)], check=True)
    until(lambda: stored(on_disk), WAIT_S)
    with contextlib.closing(connect()) as client:
        at_work(on_disk, "run", client)
    {"full": fill, "inodes": use_up_inodes, "read-only": make_read_only}[fault](on_disk.folder)
    out, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1, out + err
    said = [line for line in err.splitlines() if line.startswith("harness: ")]
    assert len(said) == 1, err
    assert "Traceback" not in err + out
    assert "Read-only file system" in said[0] if fault == "read-only" else "No space left on device" in said[0]
    assert "continue with `harness sweep --resume 20" in said[0]
    assert not on_disk.containers()

    if fault == "read-only":
        mount_again(on_disk.folder)
    else:
        subprocess.run(["rm", "-r", str(on_disk.folder / ("filler" if fault == "full" else "heap"))], check=True)
    assert stored(on_disk) in (1, 2)
    again = on_disk("sweep", "--resume")
    assert again.code == 0, again.err
    assert {row["verdict"] for row in on_disk.rows("SELECT verdict FROM runs")} == {"resolved"}
    assert broken(on_disk) == []


def test_a_sweep_does_not_begin_without_inodes(on_disk: Harness) -> None:
    use_up_inodes(on_disk.folder)
    for number in range(300):
        (on_disk.folder / "heap" / str(number)).unlink()
    done = on_disk(*words(on_disk))
    assert done.code == 1
    assert "more files, a sweep asks for 1000" in done.err


@contextlib.contextmanager
def filled(folder: Path, fault: str) -> Iterator[None]:
    taken = fill(folder) if fault == "full" else use_up_inodes(folder)
    try:
        yield
    finally:
        subprocess.run(["rm", "-r", str(taken)], check=True)


@pytest.mark.parametrize("fault", ["full", "inodes"])
@pytest.mark.parametrize("kind", ["run", "grade"])
def test_a_full_disk_of_dockers_is_the_machines_fault(
    harness: Harness, own: OwnDocker, thorough: bool, kind: str, fault: str
) -> None:
    if (kind, fault) != ("grade", "full") and not thorough:
        pytest.skip("make faults tries each of them")
    # Whoever writes after the fault fails for it, and looks as if it had done wrong.
    attempt = "sleep 4; for i in $(seq 200); do head -c 1m /dev/zero > /big$i || exit 1; done"
    script, before = (attempt, "") if kind == "run" else ("", attempt)
    process = harness.popen(*words(harness, script, "--retries", "0", before=before))
    with contextlib.closing(own.client()) as client:
        at_work(harness, kind, client)
    with filled(own.root, fault):
        out, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1, out + err
    [row] = harness.rows("SELECT * FROM runs")
    told = row["ended_detail"] if kind == "run" else row["verdict_detail"]
    assert (row["ended_by"], row["verdict"]) == (
        ("sandbox_error", "not_gradable") if kind == "run" else ("submitted", "grader_error")
    ), told
    assert any(word in told for word in ("is full", "no inodes left", "no space left on device")), told
    assert str(own.root) in told
    again = harness("sweep", "--resume") if kind == "run" else harness("grade")
    assert again.code == 0, again.err
    assert [row["verdict"] for row in harness.rows("SELECT verdict FROM runs")] == ["resolved"]
    assert broken(harness) == []


def test_a_tmp_of_the_tests_is_as_large_as_their_disk(harness: Harness) -> None:
    """What fills the memory that an agent has for /tmp is no failed test."""
    done = harness(*words(harness, before="fallocate -l 1500M /tmp/large || exit 1"))
    assert done.code == 0, done.err
    assert [row["verdict"] for row in harness.rows("SELECT verdict FROM runs")] == ["resolved"]
    assert broken(harness) == []


@pytest.mark.parametrize(
    ("then", "ended_by", "verdict"),
    [("exit 3", "disk_full", "empty_patch"), ("sleep 0.5", "submitted", "resolved")],
    ids=["fails-for-it", "gets-on"],
)
def test_an_agent_that_fills_its_tmp_is_told_from_one_that_crashes(
    harness: Harness, thorough: bool, then: str, ended_by: str, verdict: str
) -> None:
    if ended_by == "submitted" and not thorough:
        pytest.skip("make faults tries it")
    done = harness(*words(harness, f"cat /dev/zero > /tmp/full; {then}"))
    assert done.code == 0, done.err
    [row] = harness.rows("SELECT * FROM runs")
    assert (row["ended_by"], row["verdict"]) == (ended_by, verdict), row["ended_detail"]
    assert "tmp_full" in json.loads(row["flags"])
    assert broken(harness) == []


def test_a_full_temporary_folder_of_the_host_is_no_agents_and_no_patchs_fault(harness: Harness, thorough: bool) -> None:
    if not thorough:
        pytest.skip("make faults tries it")
    if reason := missing():
        pytest.skip(reason)
    temporary = harness.env["TMPDIR"]
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", temporary], check=True)
    try:
        (Path(temporary) / "filler").write_bytes(bytes((256 << 10) - 4096))
        done = harness(*words(harness, "seq 100000 > numbers.txt"))
        assert done.code == 1, done.out
        assert "Traceback" not in done.err + done.out
        assert not [row for row in harness.rows("SELECT * FROM runs") if row["ended_by"] != "sandbox_error"]
        (Path(temporary) / "filler").unlink()
        subprocess.run(["mount", "-o", "remount,size=64m", temporary], check=True)
        again = harness("sweep", "--resume")
        assert again.code == 0, again.err
        assert {row["verdict"] for row in harness.rows("SELECT verdict FROM runs")} == {"resolved"}
        assert broken(harness) == []
    finally:
        subprocess.run(["umount", temporary], check=True)
