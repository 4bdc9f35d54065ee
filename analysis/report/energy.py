"""Where the energy went: by agent and model, by phase, and what it goes with."""

from __future__ import annotations

from statistics import fmean

from harness.analysis.loops.digest import Digest
from harness.analysis.metrics.phases import PHASES
from harness.analysis.report import plots
from harness.analysis.report.data import ALL_LEFT_OUT, Cell, Data
from harness.analysis.report.document import Block, Note, Paragraph, Plot, Section, Table, Value
from harness.analysis.report.overview import PHASES_QUERY
from harness.analysis.report.tables import RUNS, number
from harness.analysis.statistics.factors import pearson, spearman
from harness.analysis.statistics.sweeps import value_of

AGAINST = {
    "agent_s": "seconds of the agent stage",
    "input_tokens": "tokens in",
    "output_tokens": "tokens out",
}


def section(data: Data) -> Section:
    blocks: list[Block] = []
    cells = data.with_models
    if not cells:
        return Section("energy", "Energy", [Note("No agent here calls a model: there is no energy to compare.")])
    seconds = {cell.name: _all(cell, "agent_s") for cell in cells}
    if reason := data.no_comparison(cells):
        blocks.append(Note(f"Plots of energy, joules by phase, correlations and rankings are left out: {reason}."))
    else:
        energies = {cell.name: _all(cell, "energy_j") for cell in cells}
        blocks += [
            Plot(
                "energy-by-cell",
                f"Energy of a run by agent and model, gross ({data.energy_is}). Boxes are quartiles, whiskers reach "
                f"1.5 times as far; {_points(energies)}.",
                "Boxes of joules, one for each agent and model",
                lambda: plots.boxes(energies, f"energy of a run, J ({data.energy_is})", log=_wide(energies)),
                RUNS,
            ),
            *_by_phase(data, cells),
            *_against(data, cells),
            *_correlations(data, cells),
        ]
    if not any(seconds.values()):
        blocks.append(Note(f"Seconds are not shown: {ALL_LEFT_OUT}."))
    elif not data.machines(cells):
        blocks.append(
            Plot(
                "seconds-by-cell",
                f"Seconds of the agent stage by agent and model; {_points(seconds)}.",
                "Boxes of seconds, one for each agent and model",
                lambda: plots.boxes(seconds, "seconds of the agent stage", log=_wide(seconds)),
                RUNS,
            )
        )
    return Section("energy", "Energy, time and memory", [*blocks, *_memory(cells)])


def _memory(cells: list[Cell]) -> list[Block]:
    blocks: list[Block] = []
    for who, metric in (("the sandbox (anonymous)", "sandbox_peak_anon_bytes"), ("the engine", "engine_peak_bytes")):
        groups = {cell.name: [value / 1e6 for value in _all(cell, metric)] for cell in cells}
        if any(groups.values()):
            blocks.append(
                Plot(
                    f"memory-{metric.partition('_')[0]}",
                    f"Highest memory of {who} in a run, MB; {_points(groups)}.",
                    "Boxes of megabytes, one for each agent and model",
                    lambda groups=groups, who=who: plots.boxes(groups, f"highest memory of {who}, MB"),  # type: ignore[misc]
                    RUNS,
                )
            )
    return blocks


def _all(cell: Cell, metric: str) -> list[float]:
    return [value for task in cell.values(metric).values() for value in task]


def _points(groups: dict[str, list[float]]) -> str:
    runs = f"n = {sum(map(len, groups.values())):,}"
    most = max((len(values) for values in groups.values()), default=0)
    return f"{runs}, of each box {plots.MOST_POINTS} drawn" if most > plots.MOST_POINTS else f"{runs}, all drawn"


def _wide(groups: dict[str, list[float]]) -> bool:
    return plots.is_wide([value for group in groups.values() for value in group])


def _by_phase(data: Data, cells: list[Cell]) -> list[Block]:
    means = {
        cell.name: {
            phase.replace("_", " "): fmean(value for task in by_task.values() for value in task)
            for phase in PHASES
            if phase in cell.had_phases and (by_task := cell.phases.get(("gross", phase)))
        }
        for cell in cells
    }
    if not any(means.values()):
        return [Note("The energy was not recorded by phase.")]
    return [
        Plot(
            "energy-by-phase",
            f"Energy of a run by what the machine was doing, gross, mean of the runs ({data.energy_is}).",
            "Bars of joules, one for each agent and model, made of phases",
            lambda: plots.stacked(means, f"energy of a run, J ({data.energy_is})"),
            PHASES_QUERY,
        )
    ]


def _pair(run: Digest, metric: str) -> tuple[float, float] | None:
    across, up = value_of(run.run, metric), value_of(run.run, "energy_j")
    return None if across is None or up is None else (across, up)


def _against(data: Data, cells: list[Cell]) -> list[Block]:
    blocks: list[Block] = []
    for metric, name in (("agent_s", AGAINST["agent_s"]), ("tokens", "tokens, in and out")):
        groups = {
            cell.name: [pair for run in cell.fit if (pair := _pair(run, metric))] for cell in cells
        }  # fmt: skip
        count = sum(map(len, groups.values()))
        if not count:
            continue
        drawn = sum(len(plots.of_cloud(group, len(groups))) for group in groups.values())
        blocks.append(
            Plot(
                f"energy-against-{'seconds' if metric == 'agent_s' else metric}",
                f"Energy of a run against {name} ({data.energy_is}); n = {count:,}"
                + (f", {drawn:,} of them drawn." if drawn < count else "."),
                f"A cloud of runs, {name} across and joules up",
                lambda groups=groups, name=name: plots.cloud(groups, name, f"energy, J ({data.energy_is})"),  # type: ignore[misc]
                RUNS,
            )
        )
    return blocks


def _correlations(data: Data, cells: list[Cell]) -> list[Block]:
    if len(data.sweeps) > 1:
        return [Note("Correlations are told of one sweep at a time.")]
    rows: list[list[Value]] = []
    notes = []
    for metric, name in AGAINST.items():
        pairs: dict[str, list[tuple[float, float]]] = {}
        for cell in cells:
            for run in cell.fit:
                if pair := _pair(run, metric):
                    pairs.setdefault(run.run["task"], []).append(pair)
        plain = pearson(pairs)
        rows.append([name, plain.runs, plain.tasks, number(plain), number(spearman(pairs))])
        if plain.why:
            notes.append(f"{name}: {plain.why}")
    return [
        Paragraph(
            "A high correlation with the seconds says that power hardly differs; it is no reason to leave energy out."
        ),
        Table(
            "correlations",
            f"Energy of a run and what it goes with, all cells together ({data.energy_is}); intervals of 95 %, by "
            "resampling tasks.",
            ["with", "runs", "tasks", "Pearson's r", "Spearman's rho"],
            rows,
            RUNS,
        ),
        *(Note(f"No interval of the correlation with {line}.") for line in notes),
    ]
