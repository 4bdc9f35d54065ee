"""A sweep in one archive: what is in it, and that it is the same sweep after it was taken in elsewhere."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import sqlite3
import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stored_sweep
from archives import Parts
from stored_sweep import SWEEP
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import UserError
from harness.exchange.pack import pack
from harness.exchange.take_in import take_in
from harness.spec import read_spec
from harness.store.belonging import recorded
from harness.store.db import open_store, writer_lock
from harness.store.migrations import MIGRATIONS
from harness.store.records import insert_calibration

OTHER = "20250101-000000-ffff"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A runs folder with two sweeps."""
    stored_sweep.make(tmp_path / "here", sweep_id=OTHER, runs=2)
    stored_sweep.make(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def bundle(here: Path, tmp_path: Path) -> Path:
    target = tmp_path / "bundle.tar.gz"
    assert pack(here / "harness.db", here, SWEEP, target).missing == []
    return target


def harness(runs_dir: Path, *words: str) -> str:
    done = CliRunner().invoke(app, [*words, "--runs-dir", str(runs_dir)], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def rows(runs_dir: Path, sweep_id: str = SWEEP) -> dict[str, list[Any]]:
    with contextlib.closing(open_store(runs_dir / "harness.db")) as db:
        return {
            table.name: db.execute(
                f"SELECT {', '.join(table.columns)} FROM {table.name} WHERE {table.where} ORDER BY rowid",
                {"sweep": sweep_id},
            ).fetchall()
            for table in recorded(db)
        }


def test_a_sweep_is_the_same_after_it_was_taken_in_elsewhere(here: Path, bundle: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    harness(there, "import", str(bundle))
    before, after = rows(here), rows(there)
    assert after == before
    assert all(before.values()), f"nothing was tried of {[name for name, found in before.items() if not found]}"
    assert not any(table for name, table in rows(there, OTHER).items())
    for words in (["loops", SWEEP], ["runs", "list", "--sweep", SWEEP], ["runs", "show", f"{SWEEP}-0001"]):
        assert harness(there, *words, "--json") == harness(here, *words, "--json")
    cells = [json.loads(harness(place, "report", SWEEP, "--json"))["sweeps"][0]["cells"] for place in (here, there)]
    assert cells[0] == cells[1]
    assert cells[0]


def test_what_was_taken_in_stands_beside_other_sweeps_and_compares_with_them(bundle: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    stored_sweep.make(there, sweep_id=OTHER, runs=2)
    before = rows(there, OTHER)
    take_in(bundle, there / "harness.db", there)
    assert rows(there, OTHER) == before
    found = json.loads(harness(there, "compare", OTHER, SWEEP, "--json"))
    assert (found["one"], found["other"]) == (OTHER, SWEEP)


def test_the_same_sweep_gives_the_same_bytes_whoever_packs_it(here: Path, bundle: Path, tmp_path: Path) -> None:
    for file in here.rglob("*.gz"):
        os.utime(file, (1, 1))
        file.chmod(0o600)
    again = tmp_path / "again" / "x.tar.gz"
    pack(here / "harness.db", here, SWEEP, again)
    assert again.read_bytes() == bundle.read_bytes()
    take_in(bundle, tmp_path / "there" / "harness.db", tmp_path / "there")
    pack(tmp_path / "there" / "harness.db", tmp_path / "there", SWEEP, again)
    assert again.read_bytes() == bundle.read_bytes()


def test_nothing_of_the_one_who_packed_it_is_in_its_headers(bundle: Path) -> None:
    with tarfile.open(bundle) as tar:
        members = tar.getmembers()
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime, m.mode) for m in members} == {(0, 0, "", "", 0, 0o644)}
    assert bundle.read_bytes()[4:8] == bytes(4)


def test_unpacked_by_hand_it_is_a_runs_folder_by_itself(here: Path, bundle: Path, tmp_path: Path) -> None:
    with tarfile.open(bundle) as tar:
        tar.extractall(tmp_path / "by hand")
    [folder] = (tmp_path / "by hand").iterdir()
    assert harness(folder, "loops", SWEEP, "--json") == harness(here, "loops", SWEEP, "--json")


def test_the_manifest_says_what_made_the_sweep_and_the_spec_asks_for_it_again(bundle: Path, tmp_path: Path) -> None:
    parts = Parts(bundle)
    found = parts.manifest
    assert (found["sweep_id"], found["runs"], found["planned_runs"], found["version"]) == (SWEEP, 5, 5, 1)
    assert found["machines"] == {stored_sweep.MACHINE: stored_sweep.FACTS}
    assert {agent["agent_version"] for agent in found["agents"]} == {"1.2.3"}
    assert found["images"][0]["image_digest"] == "sha256:1"
    assert found["models"][0]["model"] == "smollm2:135m"
    assert found["rows"]["runs"] == 5
    (tmp_path / "spec.toml").write_bytes(parts.files["spec.toml"])
    assert tomllib.loads(parts.files["spec.toml"].decode())["experiment"]["rest_s"] == 1.5
    assert read_spec(tmp_path / "spec.toml", {}) == stored_sweep.SPEC
    assert SWEEP in parts.files["README.txt"].decode()


def test_a_file_that_is_gone_or_damaged_is_named_and_the_rest_is_packed(here: Path, tmp_path: Path) -> None:
    run = here / SWEEP / f"{SWEEP}-0001"
    (run / "patch.diff.gz").unlink()
    (run / "agent.log.gz").write_bytes(gzip.compress(b"another log"))
    said = harness(here, "export", SWEEP, "--format", "bundle", "--output", str(tmp_path))
    assert "agent.log.gz: it is damaged" in said
    assert "patch.diff.gz: it is gone" in said
    there = tmp_path / "there"
    said = harness(there, "import", str(tmp_path / f"{SWEEP}.tar.gz"))
    assert "patch.diff.gz: where it was packed, it is gone" in said
    assert rows(there) == rows(here)
    assert not (there / SWEEP / f"{SWEEP}-0001" / "patch.diff.gz").exists()
    assert (there / SWEEP / f"{SWEEP}-0001" / "calls.jsonl.gz").exists()


def test_a_path_that_leads_out_of_the_sweeps_folder_is_not_packed(here: Path, tmp_path: Path) -> None:
    secret = here / "secret"
    secret.write_bytes(b"a key")
    db = open_store(here / "harness.db")
    path = f"{SWEEP}/../secret"
    db.execute("UPDATE artefacts SET path = ? WHERE run_id = ? AND name = 'agent.log'", [path, f"{SWEEP}-0000"])
    db.conn.commit()
    packed = pack(here / "harness.db", here, SWEEP, tmp_path / "x.tar.gz")
    assert [file.path for file in packed.missing] == [path]
    assert b"a key" not in gzip.decompress((tmp_path / "x.tar.gz").read_bytes())


@pytest.mark.parametrize("words", [["bundle"], ["parquet"], ["atif"], ["swebench"]])
def test_a_sweep_that_is_not_finished_can_be_exported_and_that_is_said(tmp_path: Path, words: list[str]) -> None:
    stored_sweep.make(tmp_path, runs=2, planned=9)
    said = harness(tmp_path, "export", "--format", *words)
    assert "not finished: 3 of 9 runs are in it" in said


def test_taken_in_twice_it_changes_nothing(bundle: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    harness(there, "import", str(bundle))
    before = rows(there)
    assert "nothing was changed" in harness(there, "import", str(bundle))
    assert rows(there) == before
    # A later calibration of the same machine is none of the sweep's doing.
    later = stored_sweep.CALIBRATION | {"measured_at": "2027-01-01T00:00:00+00:00"}
    insert_calibration(open_store(there / "harness.db"), stored_sweep.FACTS, later)
    assert not take_in(bundle, there / "harness.db", there).is_new


@pytest.mark.parametrize("change", ["UPDATE runs SET agent_s = 1.0 WHERE position = 2", "DELETE FROM jobs"])
def test_the_same_id_with_other_content_is_refused(here: Path, bundle: Path, tmp_path: Path, change: str) -> None:
    there = tmp_path / "there"
    take_in(bundle, there / "harness.db", there)
    db = open_store(there / "harness.db")
    db.execute(change)
    db.conn.commit()
    db.close()
    before = rows(there)
    with pytest.raises(UserError, match=f"already, with other content \\(in {'runs' if 'runs' in change else 'jobs'}"):
        take_in(bundle, there / "harness.db", there)
    assert rows(there) == before
    assert {path.name for path in there.iterdir()} == {"harness.db", "harness.db.lock", SWEEP}


def test_another_calibration_under_the_same_key_is_refused_and_no_row_stays(bundle: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    insert_calibration(open_store(there / "harness.db"), stored_sweep.FACTS, stored_sweep.CALIBRATION | {"factor": 2.0})
    with pytest.raises(UserError, match="with other content"):
        take_in(bundle, there / "harness.db", there)
    assert rows(there)["runs"] == []
    assert not (there / SWEEP).exists()


@pytest.fixture
def newer_step() -> Iterator[str]:
    def m900_more(db: Any) -> None:
        db.execute("ALTER TABLE runs ADD COLUMN more TEXT")
        db.execute("CREATE TABLE deeds (run_id TEXT NOT NULL REFERENCES runs(run_id), what TEXT)")

    MIGRATIONS.append(m900_more)
    yield m900_more.__name__
    MIGRATIONS.remove(m900_more)


def test_a_bundle_of_an_older_harness_is_brought_up_to_date(bundle: Path, tmp_path: Path, newer_step: str) -> None:
    there = tmp_path / "there"
    take_in(bundle, there / "harness.db", there)
    assert len(rows(there)["runs"]) == 5
    assert open_store(there / "harness.db").table("runs").columns[-1].name == "more"


def test_a_table_that_a_later_schema_adds_travels_too(here: Path, tmp_path: Path, newer_step: str) -> None:
    db = open_store(here / "harness.db")
    db.table("deeds").insert_all([{"run_id": f"{SWEEP}-0002", "what": "x"}, {"run_id": f"{OTHER}-0001", "what": "y"}])
    db.close()
    pack(here / "harness.db", here, SWEEP, tmp_path / "x.tar.gz")
    there = tmp_path / "there"
    take_in(tmp_path / "x.tar.gz", there / "harness.db", there)
    assert open_store(there / "harness.db").execute("SELECT * FROM deeds").fetchall() == [(f"{SWEEP}-0002", "x")]


def test_nothing_is_written_while_a_sweep_writes(bundle: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    with (
        writer_lock(there / "harness.db", "sweep x"),
        pytest.raises(UserError, match="is being written by sweep x"),
    ):
        take_in(bundle, there / "harness.db", there)


def test_a_sweep_that_another_one_writes_is_packed_as_of_one_moment(here: Path, tmp_path: Path) -> None:
    writer = sqlite3.connect(here / "harness.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM calls")
    try:
        pack(here / "harness.db", here, SWEEP, tmp_path / "x.tar.gz")
    finally:
        writer.execute("ROLLBACK")
    take_in(tmp_path / "x.tar.gz", tmp_path / "there" / "harness.db", tmp_path / "there")
    assert rows(tmp_path / "there") == rows(here)
