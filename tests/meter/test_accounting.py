"""The accounting against machines whose watts are known to the last digit."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from harness.meter.accounting import PERIODS_FOR_A_FIGURE, Curve, peak_w
from harness.meter.readings import Instrument, Readings

RAPL = Instrument("rapl", "cpu", "counter", period_s=0.001, oldest_s=0.002, wraps_at_j=262_143.3, most_w=600)
NVML = Instrument("nvml", "gpu", "counter", period_s=0.1, oldest_s=0.11, most_w=1000)


class Truth:
    """A machine: power as steps, and its exact energy."""

    def __init__(self, steps: list[tuple[float, float]]) -> None:
        """`steps` are (from this second on, watts), the first at the beginning of time."""
        self.times = [time_s for time_s, _ in steps]
        self.watts = [watts for _, watts in steps]
        self.sums = [0.0]
        for (begin, watts), (end, _) in pairwise(steps):
            self.sums.append(self.sums[-1] + watts * (end - begin))

    def energy(self, moment_s: float) -> float:
        at = max(index for index, time_s in enumerate(self.times) if time_s <= moment_s)
        return self.sums[at] + self.watts[at] * (moment_s - self.times[at])

    def between(self, begin_s: float, end_s: float) -> float:
        return self.energy(end_s) - self.energy(begin_s)


def read(
    truth: Truth,
    instrument: Instrument,
    end_s: float,
    *,
    interval_s: float = 0.097,
    marks: tuple[float, ...] = (),
    jitter_s: float = 0.004,
    update_jitter_s: float = 0.0,
    starts_at_j: float = 0.0,
    rng: random.Random,
) -> Readings:
    """What a sampler reads of a counter: at a jittery pace and a moment after each mark, each value as old as the
    counter's last update."""
    ticks = [n * interval_s + rng.uniform(0, jitter_s) for n in range(int(end_s / interval_s))]
    moments = sorted([*ticks, *(mark + rng.uniform(0.0001, 0.0006) for mark in marks)])
    offset = rng.uniform(0, instrument.period_s)

    def counter(moment_s: float) -> float:
        number = math.floor((moment_s - offset) / instrument.period_s)
        updated = offset + number * instrument.period_s
        if update_jitter_s:
            late = updated + random.Random(number).uniform(0, update_jitter_s)
            updated = late if late <= moment_s else updated - instrument.period_s + random.Random(number - 1).uniform(
                0, update_jitter_s
            )  # fmt: skip
        value = starts_at_j + truth.energy(max(updated, truth.times[0]))
        value = round(value, 6)  # microjoules
        return value % instrument.wraps_at_j if instrument.wraps_at_j else value

    return Readings(moments, [counter(moment) for moment in moments])


def phases(rng: random.Random, duration_s: float, shortest_s: float, most_w: float) -> list[tuple[float, float]]:
    """Power that changes abruptly, as a machine's does between prefill, decode and the work in between."""
    steps, now = [(-10.0, rng.uniform(0, most_w))], 0.0
    while now < duration_s:
        now += rng.uniform(shortest_s, 4 * shortest_s)
        steps.append((now, rng.uniform(0, most_w)))
    return steps


@pytest.mark.parametrize("instrument", [RAPL, NVML], ids=["rapl", "nvml"])
@pytest.mark.parametrize("duration_s", [2.1, 7.0, 60.0, 600.0, 3600.0])
def test_known_joules_come_back_within_half_a_percent(instrument: Instrument, duration_s: float) -> None:
    rng = random.Random(f"{instrument.source}{duration_s}")
    interval_s = 0.097 if duration_s < 1000 else 0.49  # the longest one would take its time
    for _ in range(30 if duration_s < 100 else 3):
        begin = rng.uniform(3, 6)
        end = begin + duration_s
        steps = [(-10.0, 20.0), (begin, rng.uniform(20, 400)), (end, 20.0)]
        truth = Truth(steps)
        readings = read(truth, instrument, end + 3, marks=(begin, end), interval_s=interval_s, rng=rng)
        amount = Curve(instrument, readings).energy(begin, end)
        if duration_s < PERIODS_FOR_A_FIGURE * interval_s:
            assert amount.short
            continue
        expected = truth.between(begin, end)
        assert amount.joules == pytest.approx(expected, rel=0.005)
        assert amount.low is not None
        assert amount.high is not None
        assert amount.low <= expected <= amount.high


def test_power_that_changes_within_the_window_is_counted_in_full() -> None:
    rng = random.Random(4)
    for _ in range(40):
        truth = Truth(phases(rng, 80, shortest_s=2.5, most_w=300))
        begin, end = truth.times[2], truth.times[6]
        readings = read(truth, NVML, 100, marks=(begin, end), update_jitter_s=0.002, rng=rng)
        assert Curve(NVML, readings).energy(begin, end).joules == pytest.approx(truth.between(begin, end), rel=0.005)


def test_bounds_contain_the_truth_in_ten_thousand_short_windows() -> None:
    rng = random.Random(7)
    widths = []
    for trial in range(1000):
        instrument = RAPL if trial % 2 else NVML
        truth = Truth(phases(rng, 8, shortest_s=0.01, most_w=400))
        edges = tuple(sorted(rng.uniform(1, 7) for _ in range(11)))
        marks = edges if trial % 4 < 2 else ()
        readings = read(truth, instrument, 10, marks=marks, update_jitter_s=instrument.period_s / 20, rng=rng)
        curve = Curve(instrument, readings)
        for begin, end in pairwise(edges):
            amount = curve.energy(begin, end)
            expected = truth.between(begin, end)
            assert amount.low is not None
            assert amount.high is not None
            assert amount.low <= expected + 1e-5
            assert amount.high >= expected - 1e-5
            if end - begin < PERIODS_FOR_A_FIGURE * curve.resolution_s:
                assert amount.short
            if instrument is RAPL and marks:
                widths.append(amount.high - amount.low)
    # They say something, too: a fast counter that is read at the edges is known to what its part can draw in 4 ms.
    assert sum(widths) / len(widths) < 600 * 0.004


def test_a_counter_that_begins_again_is_followed() -> None:
    rng = random.Random(1)
    truth = Truth([(-10.0, 150.0)])
    readings = read(truth, RAPL, 60, starts_at_j=262_143.3 - 4000.0, rng=rng)
    values = [value for value in readings.values if value is not None]
    assert any(later < earlier for earlier, later in pairwise(values))
    assert Curve(RAPL, readings).energy(5, 55).joules == pytest.approx(150 * 50, rel=0.005)


def test_a_counter_that_was_reset_is_a_gap_and_no_number() -> None:
    readings = read(Truth([(-10.0, 150.0)]), RAPL, 60, rng=random.Random(1))
    values = [value if time_s < 30 else (value or 0) - 4000 for time_s, value in zip(
        readings.times_s, readings.values, strict=True)]  # fmt: skip
    curve = Curve(RAPL, Readings(readings.times_s, values))
    hit, before, after = curve.energy(5, 55), curve.energy(5, 25), curve.energy(35, 55)
    assert (hit.joules, hit.high, hit.gap) == (None, None, "the counter jumped backwards")
    assert hit.low is not None
    assert hit.low <= 150 * 50
    assert before.joules == pytest.approx(150 * 20, rel=0.005)
    assert after.joules == pytest.approx(150 * 20, rel=0.005)


def test_a_zone_that_vanishes_leaves_a_lower_bound() -> None:
    readings = read(Truth([(-10.0, 150.0)]), RAPL, 60, rng=random.Random(1))
    values = [value if time_s < 30 else None for time_s, value in zip(readings.times_s, readings.values, strict=True)]
    amount = Curve(RAPL, Readings(readings.times_s, values)).energy(5, 55)
    assert amount.joules is None
    assert amount.high is None
    assert amount.low == pytest.approx(150 * 25, rel=0.01)
    assert amount.gap == "no reading in the last 25.0 s"


def test_a_zone_that_comes_back_has_counted_on() -> None:
    """A counter does not need to be watched: what it counted meanwhile is in it."""
    readings = read(Truth([(-10.0, 150.0)]), RAPL, 60, rng=random.Random(1))
    values = [None if 20 < time_s < 30 else value for time_s, value in zip(
        readings.times_s, readings.values, strict=True)]  # fmt: skip
    assert Curve(RAPL, Readings(readings.times_s, values)).energy(5, 55).joules == pytest.approx(150 * 50, rel=0.005)


def test_too_long_unread_is_a_gap_since_it_may_have_wrapped_twice() -> None:
    times = [*(n * 0.1 for n in range(50)), *(3000 + n * 0.1 for n in range(50))]
    amount = Curve(RAPL, Readings(times, [150.0 * time_s % RAPL.wraps_at_j for time_s in times])).energy(1, 3004)
    assert amount.joules is None
    assert "more than once" in str(amount.gap)


def test_a_window_without_readings_is_unknown() -> None:
    amount = Curve(RAPL, Readings()).energy(0, 10)
    assert (amount.joules, amount.low, amount.high, amount.gap) == (None, None, None, "no readings")


METER = Instrument("meter", "wall", "power", period_s=1.0)


def sampled(watts: Callable[[float], float | None], end_s: float, interval_s: float = 1.0) -> Readings:
    times = [n * interval_s for n in range(int(end_s / interval_s) + 1)]
    return Readings(times, [watts(time_s) for time_s in times])


def test_samples_of_power_are_integrated() -> None:
    curve = Curve(METER, sampled(lambda t: 100 + t, 100))
    assert curve.energy(10, 90).joules == pytest.approx(80 * 150)
    assert curve.energy(10.25, 10.75).joules == pytest.approx(0.5 * 110.5)
    assert peak_w([curve], 10, 90) == pytest.approx(189.5)


@pytest.mark.parametrize("bad", [None, -5.0, 1e9, math.nan], ids=["silent", "negative", "absurd", "nan"])
def test_a_meter_that_stops_half_way_is_a_gap(bad: float | None) -> None:
    curve = Curve(METER, sampled(lambda t: 100.0 if not 40 < t < 50 else bad, 100))
    amount = curve.energy(10, 90)
    assert amount.joules is None
    assert amount.gap == "no reading for 10.0 s"
    assert amount.low == pytest.approx(100 * 70)
    assert curve.energy(55, 90).joules == pytest.approx(3500)


def test_a_meter_may_have_a_slower_pace_of_its_own() -> None:
    curve = Curve(METER, sampled(lambda t: 100.0, 600, interval_s=6.0))
    assert curve.energy(10, 590).joules == pytest.approx(58_000)


def test_a_lost_sample_or_two_is_none() -> None:
    curve = Curve(METER, sampled(lambda t: 100.0 if t not in (40, 41) else None, 100))
    assert curve.energy(10, 90).joules == pytest.approx(8000)


def test_parts_of_a_window_add_up() -> None:
    rng = random.Random(3)
    for _ in range(200):
        instrument = rng.choice([RAPL, NVML])
        truth = Truth(phases(rng, 60, shortest_s=0.3, most_w=300))
        curve = Curve(instrument, read(truth, instrument, 70, update_jitter_s=instrument.period_s / 50, rng=rng))
        edges = sorted(rng.uniform(2, 60) for _ in range(8))
        parts = sum(curve.at(end) - curve.at(begin) for begin, end in pairwise(edges))
        assert parts == pytest.approx(curve.at(edges[-1]) - curve.at(edges[0]))
