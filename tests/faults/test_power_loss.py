"""What a loss of power can leave: a journal of the database that was cut or has garbage at its end, files of runs that
are cut, empty or gone. Every command works or says in one sentence what is wrong; `--resume` makes it whole."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import Done, Harness
from invariant import broken
from moments import watched
from small_sweep import words

from harness.store.artefacts import keep, settle
from harness.store.db import open_store

pytestmark = [pytest.mark.docker, pytest.mark.network]

READERS = [
    ["runs", "list"], ["runs", "show", "RUN"], ["loops"], ["report"], ["energy"], ["doctor"],
    ["export", "--format", "predictions"], ["export", "--format", "atif"], ["export", "--format", "parquet"],
    ["export", "--format", "bundle"],
]  # fmt: skip


def check_said(done: Done) -> None:
    """It worked, or says in one sentence what is wrong."""
    assert done.code in (0, 1, 2), done.err
    assert "Traceback" not in done.err, done.err
    if done.code == 2 or done.err.startswith("harness: "):
        assert done.err.count("\n") == 1, done.err


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Harness:
    """A sweep that lost its power as it ended: everything is in the journal still."""
    temporary = tmp_path_factory.mktemp("t")
    harness = Harness(tmp_path_factory.mktemp("power"), {"TMPDIR": str(temporary)}, own_session=True)
    killed = watched(harness, FAULTS_AT='update "sweeps" set "ended_at"')(*words(harness))
    assert killed.code == -signal.SIGKILL, killed.err
    assert (harness.runs / "harness.db-wal").stat().st_size > 0
    shutil.rmtree(temporary)
    return harness


@pytest.fixture
def copy(interrupted: Harness, harness: Harness) -> Harness:
    """The same in a folder of the test's own."""
    shutil.copytree(interrupted.runs, harness.runs)
    return replace(harness, started=[*interrupted.started])


def resume(harness: Harness) -> Done:
    done = harness("sweep", "--resume")
    check_said(done)
    return done


@pytest.mark.at_length
@pytest.mark.timeout(3600)
def test_a_journal_of_the_database_that_is_cut_anywhere(interrupted, harness) -> None:
    rng = random.Random(8)
    whole = (interrupted.runs / "harness.db-wal").read_bytes()
    resumed = 0
    for number in range(40):
        shutil.rmtree(harness.runs, ignore_errors=True)
        shutil.copytree(interrupted.runs, harness.runs)
        cut = rng.randrange(len(whole)) if number else len(whole)
        (harness.runs / "harness.db-wal").write_bytes(whole[:cut] + rng.randbytes(rng.randrange(9000)))
        done = resume(harness)
        if done.code == 2:
            assert "holds no sweep yet" in done.err, done.err  # it was not on disk when the power went
            continue
        assert done.code == 0, (cut, done.err)
        assert broken(harness) == [], cut
        resumed += 1
    assert resumed


def test_files_that_are_not_what_was_stored_are_said_and_made_again(copy, thorough) -> None:
    assert resume(copy).code == 0
    [sweep] = [path for path in copy.runs.iterdir() if path.name.startswith("20")]
    journal, log, patch = (next(sweep.rglob(f"{name}.gz")) for name in ("calls.jsonl", "agent.log", "patch.diff"))
    journal.write_bytes(journal.read_bytes()[:-20])
    log.unlink()
    patch.write_bytes(b"")
    patch.with_name("tests-2.log.gz.part").write_bytes(b"half")
    (sweep / f"{sweep.name}-warmup-00").mkdir()
    run = journal.parent.name
    for reader in READERS if thorough else READERS[1:3]:
        command = [run if word == "RUN" else word for word in reader]
        check_said(copy(*command, *(["--output", str(copy.folder / "out")] if command[0] == "export" else [])))
    [found] = [each for each in copy("doctor", "--json").json() if each["check"] == "database"]
    assert found["state"] == "look"
    assert found["mend"] == f"harness sweep --resume {sweep.name}"
    done = resume(copy)
    assert done.code == 0, done.err
    assert "is made again" in done.out
    assert broken(copy) == []
    shutil.move(sweep, copy.folder / "elsewhere")
    refused = resume(copy)
    assert (refused.code, "--runs-dir" in refused.err) == (2, True)


def test_a_damaged_database_is_not_continued(copy) -> None:
    database = copy.runs / "harness.db"
    with contextlib.closing(open_store(database)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        roots = [root for (root,) in db.execute("SELECT rootpage FROM sqlite_master WHERE rootpage > 0").fetchall()]
    content = bytearray(database.read_bytes())
    garbage = random.Random(8)
    for page in roots[-3:]:
        content[(page - 1) * 4096 : page * 4096] = garbage.randbytes(4096)
    database.write_bytes(content)
    done = resume(copy)
    assert done.code == 1
    assert "is damaged (" in done.err
    assert "harness doctor" in done.err
    assert database.read_bytes() == content


@pytest.mark.at_length
@pytest.mark.timeout(3600)
def test_a_damaged_database_is_said(copy) -> None:
    assert resume(copy).code == 0
    database = copy.runs / "harness.db"
    content = database.read_bytes()
    pages = range(4096, len(content), len(content) // 40960 * 4096 or 4096)
    zeroed = [content[:at] + bytes(4096) + content[at + 4096 :] for at in pages]
    for damaged in (content[: len(content) // 2], content[:100], b"x" * 5000, *zeroed):
        database.write_bytes(damaged)
        done = copy("runs", "list")
        check_said(done)
        assert done.code == 0 or done.err.startswith("harness: ")
        assert resume(copy).code in (1, 2)
        found = {each["check"]: each for each in copy("doctor", "--json").json()}["database"]
        assert found["state"] == "look"


def test_what_a_row_speaks_of_is_on_disk_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row is committed with its journal synced; before that, each file and each folder's list of names is."""
    synced = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))  # noqa: PTH115 - no real path
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    folder = tmp_path / "sweep" / "run"
    folder.mkdir(parents=True)
    keep(tmp_path, folder, "agent.log", b"words")
    settle(tmp_path, folder)
    assert synced == [f"{folder}/agent.log.gz.part", str(folder), str(folder.parent), str(tmp_path)]
    db = open_store(tmp_path / "harness.db")
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.close()
