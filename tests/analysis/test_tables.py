"""Parquet files hold what the store holds: the same rows, typed, with what every column means."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import stored_sweep
from sqlite_utils import Database

from harness.analysis import tables
from harness.analysis.loops.kept import digests
from harness.analysis.tables import write_tables
from harness.store.belonging import tables as tables_of_sweeps
from harness.store.columns import COLUMNS
from harness.store.db import open_store


@pytest.fixture
def db(tmp_path: Path) -> Database:
    stored_sweep.make(tmp_path, sweep_id="20250101-000000-ffff", runs=2)
    db = open_store(stored_sweep.make(tmp_path))
    digests(db, tmp_path, stored_sweep.SWEEP)
    return db


def read(folder: Path, table: str) -> Any:
    return pq.read_table(folder / f"{table}.parquet")


def test_every_row_and_value_of_the_sweep_is_there_and_none_of_another(db: Database, tmp_path: Path) -> None:
    files = write_tables(db, stored_sweep.SWEEP, tmp_path / "out", "1.2.3")
    assert {Path(file["file"]).stem for file in files} == {table.name for table in tables_of_sweeps(db)}
    for table in tables_of_sweeps(db):
        found = read(tmp_path / "out", table.name)
        rows = list(db.query(f"SELECT * FROM {table.name} WHERE {table.where}", {"sweep": stored_sweep.SWEEP}))
        assert found.select(list(table.columns)).to_pylist() == rows, table.name
        assert rows, f"{table.name} is empty, so nothing was tried"


def test_types_are_the_columns_own_with_unknown_as_null(db: Database, tmp_path: Path) -> None:
    write_tables(db, stored_sweep.SWEEP, tmp_path / "out", "1.2.3")
    calls = read(tmp_path / "out", "calls").schema
    assert [calls.field(name).type for name in ("input_tokens", "duration_s", "status", "sent", "truncated")] == [
        pa.int64(), pa.float64(), pa.string(), pa.bool_(), pa.bool_()
    ]  # fmt: skip
    runs = read(tmp_path / "out", "runs")
    assert runs.column("cached_tokens").null_count == runs.num_rows
    assert runs.schema.field("cached_tokens").type == pa.int64()
    assert runs.column("net_energy_j").null_count == runs.num_rows
    assert runs.column("counts").to_pylist() == [True] * runs.num_rows
    assert runs.column("outcome").to_pylist() == ["unresolved"] * runs.num_rows
    assert runs.column("energy_j").to_pylist() == [240.0, 241.0, 242.0, 243.0, 244.0]


def test_every_column_says_what_it_means_and_every_file_what_made_it(db: Database, tmp_path: Path) -> None:
    for file in write_tables(db, stored_sweep.SWEEP, tmp_path / "out", "1.2.3"):
        schema = pq.read_schema(file["file"])
        for field in schema:
            assert field.metadata[b"description"], f"{file['file']}: {field.name}"
        assert schema.metadata[b"harness_version"] == b"1.2.3"
        assert json.loads(schema.metadata[b"sweep"])["machine_id"] == stored_sweep.MACHINE
    calls = pq.read_schema(tmp_path / "out" / "calls.parquet")
    assert calls.field("prefill_s").metadata[b"description"].decode() == COLUMNS["calls"]["prefill_s"]


def test_a_large_table_is_written_in_groups(db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROWS", 7)
    write_tables(db, stored_sweep.SWEEP, tmp_path / "out", "1")
    file = pq.ParquetFile(tmp_path / "out" / "calls.parquet")
    expected = db.execute("SELECT COUNT(*) FROM calls WHERE run_id LIKE ?", [f"{stored_sweep.SWEEP}%"]).fetchone()[0]
    assert file.metadata.num_rows == expected
    assert file.metadata.num_row_groups == -(-expected // 7)


def test_the_same_sweep_gives_the_same_bytes(db: Database, tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_tables(db, stored_sweep.SWEEP, tmp_path / name, "1")
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "other" / file.name).read_bytes()


def test_without_pyarrow_one_sentence_names_the_extra(db: Database, tmp_path: Path) -> None:
    code = "import sys; sys.modules['pyarrow'] = None; from harness.cli import main; main()"
    words = ["export", "--format", "parquet", "--runs-dir", str(tmp_path), "-o", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "harness: --format parquet needs the package pyarrow: `pip install 'agent-energy-harness[report]'`\n"
    )
    assert list((tmp_path / "out" / "parquet").iterdir()) == []
