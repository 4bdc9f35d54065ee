"""Rows and files of a stored sweep, held against each other."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import stored_sweep

from harness.errors import UserError
from harness.store.agreement import damaged, mend
from harness.store.db import open_store
from harness.store.records import runs_of


@pytest.fixture
def db(tmp_path: Path):
    with contextlib.closing(open_store(stored_sweep.make(tmp_path))) as db:
        yield db


def a_file(tmp_path: Path, db) -> Path:
    [(path,)] = db.execute("SELECT path FROM artefacts ORDER BY run_id, name LIMIT 1").fetchall()
    return tmp_path / path


@contextlib.contextmanager
def unreadable(file: Path) -> Iterator[None]:
    """No file can be kept from root, so root becomes somebody else."""
    mode, root = file.stat().st_mode, os.geteuid() == 0
    file.chmod(0)
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        file.chmod(mode)


def test_a_whole_sweep_agrees_and_stays_as_it_is(tmp_path: Path, db) -> None:
    before = runs_of(db, stored_sweep.SWEEP)
    assert damaged(db, tmp_path, stored_sweep.SWEEP) == {}
    assert list(mend(db, tmp_path, stored_sweep.SWEEP)) == []
    assert runs_of(db, stored_sweep.SWEEP) == before


def test_a_cut_file_takes_its_run_out_and_a_file_of_no_run_goes(tmp_path: Path, db) -> None:
    file = a_file(tmp_path, db)
    file.write_bytes(file.read_bytes()[:-1])
    part = file.with_name("half.gz.part")
    part.write_bytes(b"x")
    runs = len(runs_of(db, stored_sweep.SWEEP))
    [said] = mend(db, tmp_path, stored_sweep.SWEEP)
    assert "is not the file that was stored" in said
    assert len(runs_of(db, stored_sweep.SWEEP)) == runs - 1
    assert not part.exists()


def test_a_file_that_this_user_may_not_read_costs_no_run(tmp_path: Path, db) -> None:
    runs = len(runs_of(db, stored_sweep.SWEEP))
    with unreadable(a_file(tmp_path, db)), pytest.raises(UserError, match="can't be read by this user"):
        damaged(db, tmp_path, stored_sweep.SWEEP)  # by which `mend` begins
    assert len(runs_of(db, stored_sweep.SWEEP)) == runs
