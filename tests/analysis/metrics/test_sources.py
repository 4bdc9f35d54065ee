"""Sources of energy beside each other."""

from __future__ import annotations

import pytest
from energy_rows import COVERAGE, add, clock, told
from sqlite_utils import Database

from harness.analysis.metrics.sources import sources


def test_sources_are_checked_against_the_one_that_tells(db: Database) -> None:
    for position, (counted, at_wall) in enumerate([(100.0, 150.0), (300.0, 410.0)]):
        other = {"source": "meter", "coverage": "wall"}
        same = {"source": "codecarbon", "coverage": COVERAGE, "kind": "estimated"}
        add(db, position, [told(counted), told(at_wall, **other), told(counted / 2, **same),
                           told(counted - 1, "cpu", source="rapl")])  # fmt: skip
    counters, codecarbon, meter = sources(db, "s")
    assert (counters.source, counters.is_headline, counters.gross_j.value) == ("counters", True, 200.0)
    assert counters.ratio.value is None
    assert (codecarbon.ratio.value, codecarbon.ratio.kind) == (0.5, "estimated")
    assert codecarbon.ratio.why == "both cover cpu+dram"
    assert (meter.gross_j.value, meter.ratio.value) == (280.0, 1.4)
    assert meter.ratio.why == "different coverage (wall beside cpu+dram): information, not an error"
    assert (meter.headline_kind, meter.headline_coverage) == ("measured", COVERAGE)


def test_a_ratio_is_of_the_runs_that_both_sources_tell(db: Database) -> None:
    add(db, 0, [told(100.0), told(120.0, source="meter")])
    add(db, 1, [told(900.0), told(None, source="meter", kind="unavailable", detail="it was silent")])
    meter = sources(db, "s")[1]
    assert (meter.ratio.value, meter.ratio.n) == (1.2, 1)
    assert meter.gross_j.why == "1 of 2 are not in it: it was silent"


def test_where_runs_are_told_by_different_sources_each_ratio_is_of_the_other_runs(db: Database) -> None:
    add(db, 0, [told(100.0), told(125.0, source="meter", coverage="wall")])
    add(db, 1, [told(200.0), told(300.0, source="meter", coverage="wall")], energy_source="meter")
    counters, meter = sources(db, "s")
    assert (counters.is_headline, meter.is_headline) == (True, True)
    assert (counters.gross_j.value, meter.gross_j.value) == (150.0, 212.5)
    assert counters.ratio.value == pytest.approx(2 / 3)
    assert counters.headline_coverage == "wall"
    assert (meter.ratio.value, meter.headline_coverage) == (1.25, COVERAGE)


def test_a_clock_beside_counters_proves_no_accuracy(db: Database) -> None:
    add(db, 0, [told(100.0), *clock(80.0)])
    codecarbon = sources(db, "s")[1]
    assert codecarbon.ratio.value == 0.8
    assert "one of the two is a clock" in (codecarbon.ratio.why or "")
