"""That the invariant sees what is broken: each thing it looks at is broken once, by hand."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest
from invariant import broken, processes
from small_sweep import words

pytestmark = [pytest.mark.docker, pytest.mark.network]


def test_a_sweep_that_nobody_disturbs_keeps_the_invariant_and_each_break_of_it_is_seen(harness) -> None:
    done = harness(*words(harness))
    assert done.code == 0, done.err
    assert broken(harness) == []

    [sweep] = [path for path in harness.runs.iterdir() if path.name.startswith("20")]
    artefact = next(sweep.rglob("agent.log.gz"))
    content = artefact.read_bytes()
    for damage, said in ((content[:-1], "is not the file"), (b"", "is not the file"), (None, "is gone")):
        artefact.unlink() if damage is None else artefact.write_bytes(damage)
        [problem] = broken(harness)
        assert said in problem
    artefact.write_bytes(content)

    for stray in (sweep / f"{sweep.name}-0099", artefact.with_name("x.part"), harness.runs / ".probe-1"):
        stray.mkdir()
        [problem] = broken(harness)
        assert stray.name in problem
        stray.rmdir()

    for statement, said in (
        ("DELETE FROM runs WHERE position = 1", "3 were planned"),
        ("DELETE FROM calls WHERE call_index = 2", "calls"),
        ("DELETE FROM energy WHERE component = 'total'", "no figure of its energy"),
        ("UPDATE energy SET joules = NULL", "no figure of its energy"),
        ("PRAGMA foreign_keys = OFF; UPDATE grades SET run_id = 'x' WHERE rowid = 1", "foreign key"),
    ):
        backup = (harness.runs / "harness.db").read_bytes()
        with contextlib.closing(sqlite3.connect(harness.runs / "harness.db")) as db:
            db.executescript(statement)
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        problems = broken(harness)
        assert any(said in problem for problem in problems), (statement, problems)
        (harness.runs / "harness.db").write_bytes(backup)

    temporary = Path(harness.env["TMPDIR"], "hg-1-2-x")
    temporary.mkdir()
    assert broken(harness) == ["temporary: hg-1-2-x"]
    temporary.rmdir()
    with subprocess.Popen(["sleep", "60"], env=dict(harness.env)) as sleeper:
        time.sleep(0.1)
        assert processes(harness) == [(sleeper.pid, "sleep 60")]
        sleeper.kill()
    assert broken(harness) == []
