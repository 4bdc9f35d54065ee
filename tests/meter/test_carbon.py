"""CodeCarbon's totals as readings, and its table of grids."""

from __future__ import annotations

import time

import pytest

from harness.errors import UserError
from harness.meter.accounting import Curve
from harness.meter.carbon import CodeCarbon, carbon_intensity

pytest.importorskip("codecarbon", reason="codecarbon is not installed")


def test_its_totals_can_be_cut_into_windows() -> None:
    tracker = CodeCarbon()
    try:
        assert tracker.problem is None
        assert tracker.backend
        assert tracker.kinds["ram"] == "estimated_constant"
        time.sleep(1.5)
        begin = time.monotonic()
        time.sleep(4)
        end = time.monotonic()
        time.sleep(1.5)
        said = tracker.take()
        curve = Curve(tracker.instrument("ram"), said["ram"])
        whole, first, second = (
            curve.energy(*window).joules for window in ((begin, end), (begin, begin + 2), (begin + 2, end))
        )
        assert whole is not None
        assert whole > 0
        assert whole == pytest.approx((first or 0) + (second or 0))
        # Memory is a constant number of watts, so half of the time is half of the energy.
        assert first == pytest.approx(second, rel=0.2)
        assert set(tracker.take()) <= set(tracker.kinds)
    finally:
        tracker.stop()
        tracker.stop()


def test_the_carbon_of_a_country_comes_with_its_source() -> None:
    grams, source = carbon_intensity("NOR")
    more, _ = carbon_intensity("POL")
    assert 0 < grams < more
    assert "Norway" in source


@pytest.mark.parametrize("code", ["XXX", "DE"])
def test_an_unknown_country_is_refused(code: str) -> None:
    with pytest.raises(UserError, match="ISO 3166"):
        carbon_intensity(code)
