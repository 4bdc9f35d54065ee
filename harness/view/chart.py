"""A run's power over time as figures to be drawn: phases, calls, loops and the curve, in parts of the chart's width.

The drawing itself is a template. Across, all is in thousandths of the agent stage; down, in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from harness.analysis.loops.watch import History
from harness.meter.over_time import Power, Recorded
from harness.meter.phases import PHASES, Phase, cut

WIDTH = 1000.0
PLOT = 150.0  # height of the plot
LOOP_LANES = 4  # rows of bars for loops that overlap; those beyond share the last one
LEAST_LOOP = 3.0  # width of a bar that can still be seen
APART = 4.5  # percent of the width between two numbers of calls, so that they can be read
CLOCK = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200)  # seconds between two ticks


@dataclass(frozen=True)
class Bar:
    """A stretch of the stage. `name` says of what: a phase, or a kind of loops."""

    name: str
    x: float
    width: float
    lane: int = 0
    call: int | None = None
    title: str = ""
    solid: bool = False


@dataclass(frozen=True)
class Tick:
    at: float
    """In percent of the width, or in pixels from the plot's top."""
    text: str


@dataclass(frozen=True)
class Chart:
    phases: list[Bar]
    lanes: list[str]
    calls: list[Bar]
    loops: list[Bar]
    loop_lanes: int
    lost: Bar | None
    """What comes after the onset of the loop that the run never recovered from."""
    line: str
    area: str
    watts: list[Tick]
    seconds: list[Tick]
    numbers: list[Tick]


@dataclass(frozen=True)
class _Timed:
    """A row of `calls` as the phases are cut by."""

    index: int
    sent: bool
    offset_s: float
    duration_s: float
    first_token_s: float | None
    load_s: float | None


def chart(
    run: Mapping[str, Any],
    calls: Sequence[Mapping[str, Any]],
    history: History | None,
    recording: Recorded | None,
    power: Power | None,
) -> Chart | None:
    """None where the agent stage has no length. Without a recording, calls are placed by the clock of the day, to a
    tenth of a second or so."""
    length_s = recording.end_s - recording.begin_s if recording else float(run["agent_s"])
    if length_s <= 0:
        return None
    opened_s = recording.opened_s - recording.begin_s if recording else _opened(run, calls)
    timed = [
        _Timed(
            int(call["call_index"]),
            bool(call["sent"]),
            float(call["offset_s"]),
            float(call["duration_s"]),
            call["first_token_s"],
            call["load_s"],
        )
        for call in calls
    ]
    stretches = cut(0.0, length_s, opened_s, timed)
    lanes = [name for name in PHASES if any(phase.name == name for phase in stretches)]
    scale = WIDTH / length_s

    def bar(phase: Phase) -> Bar:
        what = phase.name.replace("_", " ") + (f" of call {phase.call}" if phase.call is not None else "")
        return Bar(
            phase.name, _cut(phase.begin_s * scale), _cut(phase.duration_s * scale), lanes.index(phase.name),
            phase.call, f"{what}: {phase.duration_s:.2f} s",
        )  # fmt: skip

    spans = {call.index: (opened_s + call.offset_s, call.duration_s) for call in timed if call.sent}
    rows = {int(call["call_index"]): call for call in calls}
    bars = [
        Bar(
            "call", _cut(begin_s * scale), _cut(max(took_s * scale, 1.0)), call=number,
            title=_said(rows[number], power, begin_s, took_s),
        )
        for number, (begin_s, took_s) in spans.items()
    ]  # fmt: skip
    loops = _loops(history, spans, scale) if history else []
    top_w = _round_up(max((watts for watts in power.watts if watts is not None), default=0.0)) if power else 0.0
    line, area = _line(power, top_w) if power and top_w > 0 else ("", "")
    return Chart(
        phases=[bar(phase) for phase in stretches],
        lanes=[name.replace("_", " ") for name in lanes],
        calls=bars,
        loops=loops,
        loop_lanes=1 + max((found.lane for found in loops), default=-1),
        lost=next((Bar("lost", found.x, _cut(WIDTH - found.x)) for found in loops if found.solid), None),
        line=line,
        area=area,
        watts=[Tick(PLOT * (1 - watts / top_w), f"{watts:g}") for watts in _steps(top_w, 4)] if line else [],
        seconds=[Tick(100 * seconds / length_s, _clock(seconds, length_s)) for seconds in _moments(length_s)],
        numbers=_numbers(bars),
    )


def _opened(run: Mapping[str, Any], calls: Sequence[Mapping[str, Any]]) -> float:
    """Seconds from the beginning of the agent stage to the moment that offsets count from, by the clock of the day."""
    if not calls:
        return 0.0
    began = datetime.fromisoformat(run["started_at"]).timestamp() + float(run["setup_s"])
    first = calls[0]
    return datetime.fromisoformat(first["started_at"]).timestamp() - began - float(first["offset_s"])


def _said(call: Mapping[str, Any], power: Power | None, begin_s: float, took_s: float) -> str:
    said = f"call {call['call_index']}: {took_s:.1f} s"
    if call["input_tokens"] is not None and call["output_tokens"] is not None:
        said += f", {call['input_tokens']:,} tokens in, {call['output_tokens']:,} out"
    if power:
        first, last = int(begin_s / power.point_s), int((begin_s + took_s) / power.point_s)
        seen = [watts for watts in power.watts[max(first, 0) : last + 1] if watts is not None]
        if seen:
            said += f", up to {max(seen):.0f} W"
    return said if call["status"] == "ok" else f"{said}, {call['status']}"


def _loops(history: History, spans: Mapping[int, tuple[float, float]], scale: float) -> list[Bar]:
    """A bar for each loop, those that overlap in lanes below each other."""
    found: list[Bar] = []
    ends = [0.0] * LOOP_LANES
    for loop in history.loops:
        if loop.onset not in spans or loop.end not in spans:
            continue
        begin_s, (last_s, took_s) = spans[loop.onset][0], spans[loop.end]
        x, width = _cut(begin_s * scale), _cut(max((last_s + took_s - begin_s) * scale, LEAST_LOOP))
        lane = next((lane for lane, end in enumerate(ends) if end <= x), LOOP_LANES - 1)
        ends[lane] = x + width
        dead_end = loop == history.dead_end
        title = f"{loop.kind}: calls {loop.onset} to {loop.end}" + (", never recovered" if dead_end else "")
        found.append(Bar(loop.kind, x, width, lane, loop.onset, title, dead_end))
    return found


def _numbers(calls: Sequence[Bar]) -> list[Tick]:
    """The numbers of as many calls as there is room for."""
    found: list[Tick] = []
    for call in calls:
        at = (call.x + call.width / 2) / WIDTH * 100
        if not found or at - found[-1].at >= APART:
            found.append(Tick(at, str(call.call)))
    return found


def _line(power: Power, top_w: float) -> tuple[str, str]:
    """The curve and the area below it, as steps: each value is the mean of its stretch. Broken where it is unknown."""
    step = WIDTH / len(power.watts)
    line, area = [], []
    begun: float | None = None
    for number, watts in enumerate(power.watts):
        left, right = _cut(number * step), _cut((number + 1) * step)
        if watts is None:
            if begun is not None:
                area.append(f"V{PLOT:g}H{begun:g}Z")
            begun = None
            continue
        y = _cut(PLOT * (1 - max(watts, 0.0) / top_w))
        if begun is None:
            begun = left
            line.append(f"M{left:g} {y:g}H{right:g}")
            area.append(f"M{left:g} {PLOT:g}V{y:g}H{right:g}")
        else:
            line.append(f"V{y:g}H{right:g}")
            area.append(f"V{y:g}H{right:g}")
    if begun is not None:
        area.append(f"V{PLOT:g}H{begun:g}Z")
    return "".join(line), "".join(area)


def _round_up(watts: float) -> float:
    """The end of the axis: the next round number."""
    if watts <= 0:
        return 0.0
    unit = 10.0 ** math.floor(math.log10(watts))
    return next(unit * factor for factor in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if unit * factor >= watts)


def _steps(end: float, most: int) -> list[float]:
    """Round numbers from 0 to `end`, at most so many and one."""
    if end <= 0:
        return []
    rough = end / most
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough)
    return [number * step for number in range(math.floor(end / step + 1e-9) + 1)]


def _moments(length_s: float) -> list[float]:
    """Moments that a clock's face would have, for the axis of time."""
    step = next((step for step in CLOCK if 5 * step >= length_s), CLOCK[-1])
    return [step * number for number in range(int(length_s / step) + 1)] if length_s >= 5 else _steps(length_s, 4)


def _clock(seconds: float, length_s: float) -> str:
    if length_s < 120:
        return f"{seconds:g} s"
    return f"{round(seconds) // 60}:{round(seconds) % 60:02d}"


def _cut(value: float) -> float:
    return round(value, 2)
