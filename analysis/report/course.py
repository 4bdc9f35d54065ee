"""The course of the experiment: whether the machine stayed the same while it went on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean, median

from scipy import stats
from sqlite_utils import Database

from harness.analysis import between_runs
from harness.analysis.report import plots
from harness.analysis.report.data import Data
from harness.analysis.report.document import Block, Note, Paragraph, Plot, Section, Table, Value
from harness.analysis.report.tables import RUNS, reasons, said
from harness.analysis.statistics.sweeps import value_of

READINGS = (
    "SELECT artefacts.* FROM artefacts JOIN runs USING (run_id) WHERE sweep_id = ? AND name = 'power.json' "
    "ORDER BY runs.position"
)
JOBS = "SELECT * FROM jobs WHERE sweep_id = ? ORDER BY number"
IDLE = "SELECT * FROM idle WHERE sweep_id = ? AND component = 'total' ORDER BY number, source"
WINDOWS = 60
"""Stretches of runs, of each of which a mean is drawn."""
LEAST_RUNS = 12
NEAR_THE_MIDDLE = 5  # runs that are tried for their power


PowerOf = Callable[[str], list[tuple[float, float]]]
"""Of a run, by its id: seconds of its agent stage and watts; empty where no readings were kept."""


def section(db: Database, data: Data, power_of: PowerOf) -> Section:
    blocks: list[Block] = [*_power(data, power_of), *_drift(data), *_controls(db, data), *_idle(db, data)]
    return Section("course", "Order and drift", blocks or [Note("There is nothing to tell of its course.")])


def _power(data: Data, power_of: PowerOf) -> list[Block]:
    """Of each cell the run whose energy is in the middle."""
    if reason := data.no_comparison(data.with_models):
        return [Note(f"Power over time of typical runs is left out: {reason}.")]
    curves: dict[str, list[tuple[float, float]]] = {}
    without = []
    for cell in data.with_models:
        told = sorted(
            (run for run in cell.fit if run.run["energy_j"] is not None), key=lambda run: float(run.run["energy_j"])
        )
        middle = len(told) // 2
        places = sorted(range(len(told)), key=lambda place, middle=middle: abs(place - middle))  # type: ignore[misc]
        # Of one or another no readings may have been kept.
        for run in (told[place] for place in places[:NEAR_THE_MIDDLE]):
            if points := power_of(run.run["run_id"]):
                curves[f"{cell.name}, {run.run['task']}"] = points
                break
        else:
            without.append(cell.name)
    if not curves:
        return [Note("Power over time is left out: no readings were kept with the runs.")]
    return [
        *([Note(f"No readings were kept with typical runs of {', '.join(without)}.")] if without else []),
        Plot(
            "power-over-time",
            "Power over the agent stage of typical runs: of each agent and model the one whose energy is in the middle "
            f"({data.energy_is}).",
            "Lines of watts over seconds, one for each agent and model",
            lambda: plots.lines(curves, "seconds of the agent stage", f"power, W ({data.energy_is})", steps=True),
            READINGS,
        ),
    ]


def _drift(data: Data) -> list[Block]:
    """Seconds, and joules where they are more than seconds, over the order of the runs, each against the median of its
    cell: what is left is the task, chance, and the machine."""
    metrics = ["agent_s"] + ([] if data.no_comparison(data.with_models) else ["energy_j"])
    names = {"agent_s": "seconds", "energy_j": "energy"}
    curves: dict[str, list[tuple[float, float]]] = {}
    rows: list[list[Value]] = []
    why: list[tuple[str, str | None]] = []
    for sweep in data.sweeps:
        for metric in metrics:
            points = sorted(_relative(data, sweep.sweep_id, metric))
            name = names[metric] + (f" [{sweep.sweep_id}]" if len(data.sweeps) > 1 else "")
            if len(points) < LEAST_RUNS:
                why.append((name, f"too few runs (n={len(points)})"))
                continue
            positions, values = zip(*points, strict=True)
            if len(set(values)) == 1:
                why.append((name, "all runs have the same value"))
                continue
            found = stats.spearmanr(positions, values)
            rows.append([name, len(points), float(found.statistic), said(float(found.pvalue))])
            curves[name] = list(_windows(points))
    if not rows:
        return [Note(f"Drift is not told of {line}.") for line in reasons(why)]
    return [
        Plot(
            "drift",
            "Seconds and energy of runs over the order of the sweep, each over the median of its agent and model; "
            f"means of up to {WINDOWS} stretches. A level line at one says that the machine stayed the same.",
            "Lines over the positions of runs, near one where nothing drifts",
            lambda: plots.lines(curves, "position of the run in the sweep", "over the median of its cell"),
            RUNS,
        ),
        Table(
            "drift-table",
            "Spearman's correlation of the position with seconds and energy, each over the median of its cell.",
            ["of", "runs", "rho", "p"],
            rows,
            RUNS,
        ),
        *(Note(f"Drift is not told of {line}.") for line in reasons(why)),
    ]


def _relative(data: Data, sweep_id: str, metric: str) -> Iterator[tuple[int, float]]:
    for cell in data.with_models:
        if cell.sweep_id != sweep_id:
            continue
        pairs = [(run.run["position"], value) for run in cell.fit if (value := value_of(run.run, metric)) is not None]
        middle = median(value for _, value in pairs) if pairs else 0.0
        if middle > 0:
            yield from ((position, value / middle) for position, value in pairs)


def _windows(points: Sequence[tuple[int, float]]) -> Iterator[tuple[float, float]]:
    width = max(1, len(points) // WINDOWS)
    for begin in range(0, len(points), width):
        some = points[begin : begin + width]
        yield fmean(position for position, _ in some), fmean(value for _, value in some)


def _controls(db: Database, data: Data) -> list[Block]:
    rows: list[list[Value]] = []
    for sweep in data.sweeps:
        for control in between_runs.controls(db, sweep.sweep_id):
            figures = (control.seconds, control.seconds_cv, control.joules, control.joules_cv)
            rows.append(
                [sweep.sweep_id, control.what, control.n, *(each.value for each in figures), control.joules.why]
            )
    if not rows:
        return [Paragraph("There was no control job (--control-every), so a drift can't be told from harder tasks.")]
    return [
        Table(
            "controls",
            "The control job: the same work each time, so its spread (standard deviation over mean) is the machine's.",
            ["sweep", "job", "times", "seconds", "their spread", "energy J", "its spread", "why not"],
            rows,
            JOBS,
        )
    ]


def _idle(db: Database, data: Data) -> list[Block]:
    rows: list[list[Value]] = []
    for sweep in data.sweeps:
        by_state: dict[tuple[str, str, str], list[between_runs.IdlePower]] = {}
        for idle in between_runs.idles(db, sweep.sweep_id):
            by_state.setdefault((idle.source, idle.state, idle.model or ""), []).append(idle)
        for (source, state, model), group in by_state.items():
            watts = [idle.watts.value for idle in group if idle.watts.value is not None]
            rows.append(
                [sweep.sweep_id, source, f"{model} {state}".strip(), len(group), fmean(watts) if watts else None,
                 min(watts, default=None), max(watts, default=None), group[0].watts.kind, group[0].watts.coverage]
            )  # fmt: skip
    if not rows:
        return [Paragraph("Idle power was not measured, so there is no net energy.")]
    return [
        Table(
            "idle",
            "Power at rest, W, measured before the first run and again between runs.",
            ["sweep", "source", "in memory", "times", "mean", "least", "most", "kind", "coverage"],
            rows,
            IDLE,
        )
    ]
