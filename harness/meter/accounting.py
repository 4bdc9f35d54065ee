"""From timestamped readings to the energy of a window. Pure: no clock, no file, no machine.

A counter's reading is true, but old: it says what the energy was at the counter's last update, at most `oldest_s`
before. With E(t) for the true energy up to t, a reading r at t therefore means E(t - oldest) <= r <= E(t), and because
E never falls, readings around a window give bounds that contain the truth, whatever the power did in between.

The figure itself needs more. When updates come regularly, the readings tell when (some intervals between two readings
must hold an update, some can't), which makes each reading a point of E. Between two points, power is taken to change
at the edge of the window and nowhere else: that is what edges of phases are.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from harness.meter.readings import Instrument, Readings

PERIODS_FOR_A_FIGURE = 20
SLOW_UPDATE_S = 0.01  # counters faster than this are as good as continuous beside a reading every tenth of a second
PHASE_STEPS = 100  # candidates for the moment of the updates within a period
PHASE_READINGS = 60  # on each side of an edge, from which that moment is told
GAP_PERIODS = 4.0  # this many periods without a sample of power are a gap


@dataclass(frozen=True)
class Amount:
    """Energy of a window, in joules. `joules` is None where readings don't give it; the bounds may still be known.

    `low` and `high` contain the truth as long as the counter is right; None: unknown. A window with a gap has a lower
    bound at most.
    """

    joules: float | None
    low: float | None
    high: float | None
    gap: str | None = None

    @property
    def short(self) -> bool:
        """Whether the window is too short for a figure, and nothing else is wrong with it."""
        return self.joules is None and self.gap is None


UNKNOWN = Amount(None, None, None, "no readings")


@dataclass(frozen=True)
class Gap:
    begin_s: float
    end_s: float
    reason: str


class Curve:
    """The energy that one instrument tells, as a function of time. Built once from all readings around the windows."""

    def __init__(self, instrument: Instrument, readings: Readings) -> None:
        self.instrument = instrument
        self.gaps: list[Gap] = []
        self._times: list[float] = []  # of readings that could be had
        self._joules: list[float] = []  # cumulated from the first
        self._points: list[tuple[float, float]] | None = None
        if instrument.form == "counter":
            self._unwrap(readings)
        elif instrument.form == "power":
            self._integrate(readings)
        else:
            self._follow(readings)
        self.interval_s = _median([later - earlier for earlier, later in pairwise(self._times)])

    @property
    def resolution_s(self) -> float:
        """What its readings can tell apart: the longer of the counter's period and the time between readings."""
        return max(self.instrument.period_s, self.interval_s or 0.0)

    @property
    def covers(self) -> tuple[float, float] | None:
        """The first and the last reading."""
        return (self._times[0], self._times[-1]) if self._times else None

    def energy(self, begin_s: float, end_s: float) -> Amount:
        """Joules between two moments."""
        if len(self._times) < 2:
            return UNKNOWN
        slack = 0.0 if self.instrument.form == "counter" else GAP_PERIODS * self.resolution_s
        first, last = self._times[0], self._times[-1]
        missing = None
        if begin_s < first - slack:
            missing = f"no reading in the first {first - begin_s:.1f} s"
        elif end_s > last + slack:
            missing = f"no reading in the last {end_s - last:.1f} s"
        else:
            for gap in self.gaps:
                if gap.begin_s < end_s and gap.end_s > begin_s:
                    missing = gap.reason
                    break
        if missing is not None:
            seen = self._at_least(min(end_s, last)) - self._at_most(max(begin_s, first))
            return Amount(None, max(0.0, seen), None, missing)
        if self.instrument.form != "counter":
            return Amount(self._interpolated(end_s) - self._interpolated(begin_s), None, None)
        low = max(0.0, self._at_least(end_s) - self._at_most(begin_s))
        high = max(low, self._at_most(end_s) - self._at_least(begin_s))
        if end_s - begin_s < PERIODS_FOR_A_FIGURE * self.resolution_s:
            return Amount(None, low, high)
        return Amount(max(0.0, self.at(end_s) - self.at(begin_s)), low, high)

    def at(self, moment_s: float) -> float:
        """The best estimate of E at a moment between the first and the last reading, within its bounds: so energies of
        windows that follow each other add up, and each lies within its own bounds."""
        if self.instrument.form != "counter":
            return self._interpolated(moment_s)
        return min(max(self._estimate(moment_s), self._at_least(moment_s)), self._at_most(moment_s))

    def _estimate(self, moment_s: float) -> float:
        points = self._updates()
        after = bisect.bisect_right(points, moment_s, key=lambda point: point[0])
        before_power = _power(points, after - 2) if after >= 2 else None
        after_power = _power(points, after) if after + 1 < len(points) else None
        if after == 0:
            time_s, joules = points[0]
            return joules - (time_s - moment_s) * (_power(points, 0) or 0.0)
        time_s, joules = points[after - 1]
        if after == len(points):
            return joules + (moment_s - time_s) * (before_power or 0.0)
        next_s, next_joules = points[after]
        between = (next_joules - joules) / (next_s - time_s)
        nearness = (moment_s - time_s) / (next_s - time_s)
        from_before = joules + (moment_s - time_s) * (between if before_power is None else before_power)
        from_after = next_joules - (next_s - moment_s) * (between if after_power is None else after_power)
        estimate = (1 - nearness) * from_before + nearness * from_after
        return min(max(estimate, joules), next_joules)

    def _unwrap(self, readings: Readings) -> None:
        spec = self.instrument
        total, before_t, before = 0.0, 0.0, None
        for time_s, value in zip(readings.times_s, readings.values, strict=True):
            if value is None:
                continue
            if before is not None:
                most = spec.most_w * (time_s - before_t + spec.oldest_s)
                step = value - before
                reason = None
                if spec.wraps_at_j is not None and most >= spec.wraps_at_j:
                    reason = f"not read for {time_s - before_t:.0f} s, in which it may have begun again more than once"
                elif step < 0 and spec.wraps_at_j is not None and step + spec.wraps_at_j <= most:
                    step += spec.wraps_at_j
                elif step < 0:
                    reason = "the counter jumped backwards"
                elif step > most:
                    reason = f"the counter jumped by {step:.0f} J in {time_s - before_t:.2f} s"
                if reason is not None:
                    self.gaps.append(Gap(before_t, time_s, reason))
                    step = 0.0
                total += step
            self._times.append(time_s)
            self._joules.append(total)
            before_t, before = time_s, value

    def _integrate(self, readings: Readings) -> None:
        good = [
            (time_s, value)
            for time_s, value in zip(readings.times_s, readings.values, strict=True)
            if value is not None and 0 <= value <= self.instrument.most_w
        ]
        # A meter may have a pace of its own, slower than it is asked.
        pace_s = _median([later - earlier for (earlier, _), (later, _) in pairwise(good)]) or 0.0
        longest = GAP_PERIODS * max(self.instrument.period_s, pace_s)
        total, before_t, before_w = 0.0, None, 0.0
        for time_s, value in good:
            if before_t is not None:
                if time_s - before_t > longest:
                    self.gaps.append(Gap(before_t, time_s, f"no reading for {time_s - before_t:.1f} s"))
                else:
                    total += (time_s - before_t) * (before_w + value) / 2
            self._times.append(time_s)
            self._joules.append(total)
            before_t, before_w = time_s, value

    def _follow(self, readings: Readings) -> None:
        longest = GAP_PERIODS * self.instrument.period_s
        for time_s, value in zip(readings.times_s, readings.values, strict=True):
            if value is None:
                continue
            if self._times and (time_s - self._times[-1] > longest or value < self._joules[-1]):
                self.gaps.append(Gap(self._times[-1], time_s, f"no reading for {time_s - self._times[-1]:.1f} s"))
            self._times.append(time_s)
            self._joules.append(value)

    def _interpolated(self, moment_s: float) -> float:
        times, joules = self._times, self._joules
        after = min(max(1, bisect.bisect_right(times, moment_s)), len(times) - 1)
        share = (moment_s - times[after - 1]) / (times[after] - times[after - 1] or 1.0)
        return joules[after - 1] + share * (joules[after] - joules[after - 1])

    def _at_least(self, moment_s: float) -> float:
        """A lower bound of E: an earlier reading, or the next one less what can have been drawn since."""
        index = bisect.bisect_right(self._times, moment_s)
        known = self._joules[index - 1] if index else -math.inf
        if index < len(self._times) and not self._jumps(index):
            known = max(known, self._joules[index] - self.instrument.most_w * (self._times[index] - moment_s))
        return known

    def _at_most(self, moment_s: float) -> float:
        """An upper bound of E: the first reading that can't be older than the moment, or one beside it plus what can
        have been drawn since."""
        age = self.instrument.oldest_s
        index = bisect.bisect_left(self._times, moment_s + age)
        known = self._joules[index] if index < len(self._times) else math.inf
        after = bisect.bisect_right(self._times, moment_s)
        for near in (after - 1, after):
            if 0 <= near < len(self._times) and not (near == after and self._jumps(near)):
                since = max(0.0, moment_s - (self._times[near] - age))
                known = min(known, self._joules[near] + self.instrument.most_w * since)
        return known

    def _jumps(self, index: int) -> bool:
        return any(gap.end_s == self._times[index] for gap in self.gaps)

    def _updates(self) -> list[tuple[float, float]]:
        """Readings as points of E, each at the moment at which the counter had that value."""
        if self._points is None:
            period = self.instrument.period_s
            if period < SLOW_UPDATE_S:
                moments = [time_s - period / 2 for time_s in self._times]
            else:
                moments = update_times(self._times, self._joules, period)
            points: dict[float, float] = {}
            for moment, joules in zip(moments, self._joules, strict=True):
                points[moment] = max(joules, points.get(moment, joules))
            self._points = sorted(points.items())
        return self._points


def peak_w(curves: Sequence[Curve], begin_s: float, end_s: float, over_s: float = 1.0) -> float | None:
    """The highest mean power over `over_s` of all these together; None when the window is shorter or has a gap."""
    steps = int((end_s - begin_s) / over_s)
    if steps < 1 or any(curve.energy(begin_s, end_s).gap is not None for curve in curves):
        return None
    edges = [sum(curve.at(begin_s + n * over_s) for curve in curves) for n in range(steps + 1)]
    return max(later - earlier for earlier, later in pairwise(edges)) / over_s


def update_times(times: Sequence[float], values: Sequence[float], period_s: float) -> list[float]:
    """When the counter had each of these values: the moment of its last update before the reading.

    The moment within the period at which updates fall is found anew along the series, as the one that contradicts the
    fewest pairs of neighbouring readings. Where the pairs don't tell it, a reading is taken to be half a period old.
    """
    moments: list[float] = []
    for begin in range(0, len(times), PHASE_READINGS):
        near = slice(max(0, begin - PHASE_READINGS), begin + 2 * PHASE_READINGS)
        offset = _update_offset(times[near], values[near], period_s)
        for time_s in times[begin : begin + PHASE_READINGS]:
            if offset is None:
                moments.append(time_s - period_s / 2)
            else:
                moments.append(time_s - (time_s - offset) % period_s)
    return moments


def _update_offset(times: Sequence[float], values: Sequence[float], period_s: float) -> float | None:
    # A pair of readings less than a period apart with an update between them puts the offset within an arc of the
    # period; one without puts it outside. Arcs are counted by where they begin and end.
    step = period_s / PHASE_STEPS
    changes = [0] * (PHASE_STEPS + 1)
    contradicted, pairs = 0, 0
    for (earlier_s, earlier), (later_s, later) in pairwise(zip(times, values, strict=True)):
        if later_s - earlier_s >= period_s:
            continue  # there was an update in any case
        pairs += 1
        updated = later != earlier
        weight = -1 if updated else 1
        contradicted += updated
        begin, end = round(earlier_s % period_s / step), round(later_s % period_s / step)
        arcs = [(begin, end)] if begin <= end else [(begin, PHASE_STEPS), (0, end)]
        for first, last in arcs:
            changes[first] += weight
            changes[last] -= weight
    contradictions, level = [], contradicted
    for change in changes[:PHASE_STEPS]:
        level += change
        contradictions.append(level)
    fewest = min(contradictions)
    best = [number for number in range(PHASE_STEPS) if contradictions[number] == fewest]
    if not pairs or fewest > pairs / 10 or len(best) > PHASE_STEPS / 4:
        return None
    # The middle of the best ones, on a circle.
    x = sum(math.cos(2 * math.pi * (number + 0.5) / PHASE_STEPS) for number in best)
    y = sum(math.sin(2 * math.pi * (number + 0.5) / PHASE_STEPS) for number in best)
    return (math.atan2(y, x) / (2 * math.pi) % 1.0) * period_s


def _power(points: Sequence[tuple[float, float]], index: int) -> float | None:
    (begin_s, begin), (end_s, end) = points[index], points[index + 1]
    return (end - begin) / (end_s - begin_s) if end_s > begin_s else None


def _median(values: Sequence[float]) -> float | None:
    return sorted(values)[len(values) // 2] if values else None
