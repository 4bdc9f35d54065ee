"""What the doctor finds, of real damage, and what it mends."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness import owned
from harness.checkup import Finding, Place
from harness.doctor import CHECKS, examine
from harness.engines.ollama import Ollama
from harness.store.db import open_store
from tests.generated_store import generate


def finding(name: str, place: Place, fix: bool = False) -> Finding:
    [check] = [check for check in CHECKS if check.name == name]
    [found] = examine(place, fix, [check])
    return found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    generate(tmp_path / "harness.db", tasks=2, repeats=1, calls=3)
    return Place(tmp_path / "harness.db", tmp_path, "smoke")


def keep_files(place: Place) -> list[Path]:
    with contextlib.closing(open_store(place.database)) as db:
        with db.atomic():
            db.execute("UPDATE artefacts SET bytes = 1, sha256 = ?", [hashlib.sha256(b"x").hexdigest()])
        files = [place.runs_dir / path for (path,) in db.execute("SELECT path FROM artefacts").fetchall()]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    return files


def test_every_check_says_why_it_matters(place: Place) -> None:
    found = list(examine(place, fix=False))
    assert [each.check for each in found] == [check.name for check in CHECKS]
    assert all(each.why and each.found for each in found)


@pytest.mark.docker
def test_a_docker_without_a_filter_of_system_calls_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels without one are rare: the answer of the Docker that is here, without it."""
    info = place.client.info()
    assert finding("docker", place).state == "ok"
    left = [option for option in info["SecurityOptions"] if "seccomp" not in option]
    monkeypatch.setattr(place.client, "info", lambda: {**info, "SecurityOptions": left})
    assert (finding("docker", place).state, "seccomp" in finding("docker", place).found) == ("missing", True)


def test_a_database_is_looked_at_with_its_files(place: Place) -> None:
    files = keep_files(place)
    assert finding("database", place).state == "ok"
    for damage, said in ((b"y", "is not the file that was stored"), (b"", "is not the file"), (None, "is gone")):
        files[3].unlink() if damage is None else files[3].write_bytes(damage)
        found = finding("database", place)
        assert found.state == "look"
        assert f"{files[3].relative_to(place.runs_dir)} {said}" in found.found
        assert found.mend.startswith("harness sweep --resume ")


def test_a_damaged_database_is_found(place: Place) -> None:
    keep_files(place)
    db = open_store(place.database)
    db.execute("PRAGMA foreign_keys = OFF")
    db.execute("DELETE FROM machines")
    db.close()
    assert "a row of " in finding("database", place).found


def test_a_torn_database_is_found_and_what_rescues_it_is_a_command(place: Place) -> None:
    open_store(place.database).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(place.database.read_bytes())
    for page in (40, 60):
        content[page * 4096 : page * 4096 + 2000] = os.urandom(2000)
    place.database.write_bytes(content)
    found = finding("database", place)
    assert found.state == "look", found
    if shutil.which("sqlite3") is None:
        pytest.skip("sqlite3 is not installed: what mends it can't be tried")
    subprocess.run(["sh", "-c", found.mend], capture_output=True, check=True)
    with contextlib.closing(open_store(place.database.with_suffix(".recovered.db"))) as recovered:
        assert recovered.table("runs").count > 0


def test_a_database_that_is_not_there_is_no_fault_of_the_machine(tmp_path: Path) -> None:
    found = finding("database", Place(tmp_path / "none.db", tmp_path, "smoke"))
    assert (found.state, "the first sweep makes it" in found.found) == ("ok", True)


def test_without_docker_the_rest_is_looked_at_and_what_is_missing_has_a_command(tmp_path: Path) -> None:
    # One that is not there, and one that is and never answers.
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent.sock"))
        silent.listen(8)
        for name in ("none.sock", "silent.sock"):
            began = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-m", "harness", "doctor", "--json", "--runs-dir", str(tmp_path)],
                env=os.environ | {"DOCKER_HOST": f"unix://{tmp_path / name}", "OLLAMA_HOST": "127.0.0.1:1"},
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert (done.returncode, done.stderr) == (1, "")
            assert time.monotonic() - began < 60  # of which Docker's silence is 5, once
            found = {each["check"]: each for each in json.loads(done.stdout)}
            assert list(found) == [check.name for check in CHECKS]
            assert (found["docker"]["state"], found["docker"]["mend"]) == ("missing", "unset DOCKER_HOST")
            assert (found["ollama"]["state"], found["ollama"]["mend"]) == ("look", "ollama serve")
            assert found["leftovers"]["found"] == "unknown, since Docker does not answer"
            for each in found.values():
                assert each["state"] == "ok" or each["mend"] or "Docker does not answer" in each["found"], each


def test_a_runs_folder_on_a_disk_that_is_too_small_is_said(place: Place, tmp_path: Path) -> None:
    if finding("docker", place).state != "ok":
        pytest.skip("no Docker engine: space is unknown without it")
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "small", str(small)], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        found = finding("space", Place(place.database, small / "runs", "smoke"))
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert (found.state, f"{small} has 0.1 GB free" in found.found) == ("missing", True), found
    assert "--runs-dir" in found.mend


def test_who_keeps_the_machine_busy_is_named(place: Place) -> None:
    if finding("quiet", place).state != "ok":
        pytest.skip("this machine is busy with something else already")
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4 * (os.cpu_count() or 1))]
    try:
        found = finding("quiet", place)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert (found.state, found.mend) == ("look", "harness sweep --when-busy wait")
    assert any(f"({process.pid})" in found.found for process in busy), found.found


def test_a_suite_that_does_not_fit_the_disk_is_said_with_both_numbers(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    if finding("docker", place).state != "ok":
        pytest.skip("no Docker engine: its folder can't be looked at")
    free = shutil.disk_usage("/").free
    monkeypatch.setattr("harness.doctor.MOST_BYTES", free * 10)
    found = finding("space", Place(place.database, place.runs_dir, "swe-bench-verified"))
    assert found.state == "missing"
    assert "swe-bench-verified needs" in found.found


@pytest.mark.docker
def test_what_a_killed_harness_left_is_removed_on_request_alone(place: Place) -> None:
    # In the runs folder, as an export is: any sweep on this machine would remove it from the temporary one.
    left = place.runs_dir / owned.prefix().replace(str(os.getpid()), "999999999")
    left.mkdir()
    try:
        found = finding("leftovers", place)
        assert (found.state, found.mend) == ("look", "harness clean")
        assert left.exists()
        found = finding("leftovers", place, fix=True)
        assert found.state == "ok"
        assert "unfinished files" in found.fixed
        assert not left.exists()
    finally:
        shutil.rmtree(left, ignore_errors=True)


@pytest.mark.model
def test_the_window_is_the_one_that_a_sweep_asks_for(place: Place) -> None:
    found = finding("window", place)
    assert (found.state, "llamacpp: smollm2:135m was loaded with 8,192 tokens" in found.found) == ("ok", True)


@pytest.mark.ollama
def test_what_is_in_ollamas_memory_is_told_and_stays(place: Place) -> None:
    with contextlib.closing(Ollama()) as engine:
        engine.prepare("smollm2:135m", 1024)
        assert "ollama: smollm2:135m is in memory with 1,024 tokens" in finding("window", place).found
        assert engine.loaded_context_tokens("smollm2:135m") == 1024
        engine.unload("smollm2:135m")
        assert "ollama: smollm2:135m was loaded with 8,192 tokens" in finding("window", place).found
        assert engine.loaded_context_tokens("smollm2:135m") is None
