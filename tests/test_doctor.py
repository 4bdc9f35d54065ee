"""What the doctor finds, of real damage, and what it mends."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

import pytest

from harness import owned
from harness.doctor import CHECKS, Finding, Place, examine
from harness.engines.ollama import Ollama
from harness.store.db import open_store
from tests.generated_store import generate


def finding(name: str, place: Place, fix: bool = False) -> Finding:
    return next(found for found in examine(place, fix) if found.check == name)


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


def test_a_database_that_is_not_there_is_no_fault_of_the_machine(tmp_path: Path) -> None:
    found = finding("database", Place(tmp_path / "none.db", tmp_path, "smoke"))
    assert (found.state, "there is no database" in found.found) == ("look", True)


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
