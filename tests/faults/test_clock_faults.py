"""The clock of the day is set forth and back in the middle of a sweep: what is a duration stays one, and the runs that
it hit are flagged."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from at_work import WAIT_S, at_work, stored
from command_line import Harness
from invariant import broken
from moments import until
from tiny_task import words

from harness.sandbox.daemon import connect

pytestmark = [pytest.mark.docker, pytest.mark.faketime]


def test_a_clock_that_is_set_forth_and_back_changes_no_duration(harness: Harness, tmp_path: Path) -> None:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    faked = replace(
        harness,
        env={
            **harness.env, "LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
        },
    )  # fmt: skip
    process = faked.popen(*words(harness, "sleep 4", repeats=3))
    with contextlib.closing(connect()) as client:
        for done, offset in ((1, "+7200"), (2, "-7200")):
            until(lambda done=done: stored(harness) == done, WAIT_S)
            at_work(harness, "run", client)
            clock.write_text(f"{offset}\n")
    out, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, out + err
    rows = harness.rows("SELECT * FROM runs ORDER BY rowid")
    assert [row["position"] for row in rows] == [0, 1, 2]
    assert harness.rows("SELECT * FROM attempts") == []
    for row, jump in zip(rows, (0, 7200, -14400), strict=True):
        assert (row["ended_by"], row["verdict"], row["attempt"]) == ("submitted", "resolved", 1)
        assert 4 <= row["agent_s"] < 4 + WAIT_S
        assert row["setup_s"] + row["agent_s"] + row["grading_s"] <= row["duration_s"] < 10 + WAIT_S
        flags = [flag for flag in json.loads(row["flags"]) if flag.startswith("clock_jump")]
        assert len(flags) == bool(jump), flags
        by_the_clock_s = (
            datetime.fromisoformat(row["ended_at"]) - datetime.fromisoformat(row["started_at"])
        ).total_seconds()
        assert abs(by_the_clock_s - jump - row["duration_s"]) < 1
        if jump:
            assert abs(float(flags[0].split()[1]) - jump) < 1
    assert broken(harness) == []
    again = harness("sweep", "--resume")
    assert "nothing is outstanding" in again.out, again.err
