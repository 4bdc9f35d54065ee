"""The control job and idle power."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from energy_rows import COVERAGE, idle, job, open_sweep
from sqlite_utils import Database

from harness.analysis.between_runs import controls, idles
from harness.analysis.figures import CLOCK, Figure


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return open_sweep(tmp_path / "h.db")


def test_the_spread_of_the_control_job(db: Database) -> None:
    job(db, 1, 9.0, 90.0)
    job(db, 2, 500.0, 5000.0, job="warmup")
    [control] = controls(db, "s")
    assert (control.n, control.seconds.value, control.joules.value) == (1, 9.0, 90.0)
    assert (control.seconds_cv.value, control.seconds_cv.why) == (None, "one value has no spread")
    job(db, 3, 10.0, 100.0)
    job(db, 4, 11.0, None)
    [control] = controls(db, "s")
    assert (control.n, control.seconds.value) == (3, 10.0)
    assert control.seconds_cv.value == pytest.approx(0.1)
    assert (control.joules.value, control.joules.n) == (95.0, 2)
    assert control.joules_cv.value == pytest.approx(math.sqrt(50) / 95)
    job(db, 5, 1.0, 1.0, what="another")
    assert [(control.what, control.n) for control in controls(db, "s")] == [("hash", 3), ("another", 1)]


def test_the_spread_of_a_clock_is_that_of_its_seconds(db: Database) -> None:
    job(db, 1, 9.0, 90.0, "estimated_constant")
    job(db, 2, 11.0, 110.0, "estimated_constant")
    [control] = controls(db, "s")
    assert (control.joules.value, control.joules_cv.value, control.joules_cv.why) == (100.0, None, CLOCK)
    assert control.seconds_cv.value is not None


def test_idle_power_is_listed_by_measurement(db: Database) -> None:
    idle(db, 1)
    idle(db, 2, watts=None, kind="unavailable", detail="it was silent")
    first, second = idles(db, "s")
    assert (first.number, first.state, first.watts) == (1, "loaded", Figure(8.5, "W", "measured", COVERAGE, 1))
    assert (second.watts.value, second.watts.why) == (None, "it was silent")
