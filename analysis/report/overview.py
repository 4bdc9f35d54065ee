"""What came out, by agent and model; and each figure with its spread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from harness.analysis.metrics.phases import PHASES
from harness.analysis.records import differences
from harness.analysis.report.data import ALL_LEFT_OUT, Cell, Data
from harness.analysis.report.document import Block, Note, Number, Paragraph, Section, Table, Value
from harness.analysis.report.tables import NAMES, RUNS, counted, listed, number, reasons, scale
from harness.analysis.statistics import estimates
from harness.analysis.statistics.estimates import Values
from harness.analysis.statistics.sweeps import CLOCKED, ENERGY

DESCRIBED = (
    "energy_j", "net_energy_j", "agent_s", "input_tokens", "output_tokens", "calls", "sandbox_peak_anon_bytes",
    "engine_peak_bytes",
)  # fmt: skip
MOST_DIFFERENCES = 12  # lines of two records that are printed
SPREAD = (
    "runs", "tasks", "mean over tasks (95 %)", "mean", "sd", "median (quartiles)", "least", "most",
)  # fmt: skip
PHASES_QUERY = (
    "SELECT agent, engine, model, task, layer, phase, joules, energy.kind, energy.coverage FROM energy JOIN runs "
    "USING (run_id) WHERE sweep_id = ? AND energy.source = runs.energy_source AND component = 'total' "
    "ORDER BY agent, model, task, layer, phase"
)


def overview(data: Data) -> Section:
    blocks: list[Block] = [Paragraph(_what(data))]
    blocks += [Note(text) for text in _warnings(data)]
    rows: list[Sequence[Value]] = []
    for cell in data.cells:
        energy = None if cell.unlike else estimates.mean(cell.values("energy_j"))
        rows.append(
            [cell.name, len({run.run["task"] for run in cell.valid}), len(cell.valid),
             number(estimates.rate(cell.runs.resolved), 1, True),
             number(energy), number(estimates.mean(cell.values("agent_s"))),
             number(estimates.mean(cell.values("tokens"))), number(estimates.mean(cell.values("calls"))),
             number(estimates.mean(cell.values("engine_peak_bytes")), 1e-6)]
        )  # fmt: skip
    blocks.append(
        Table(
            "overview",
            "By agent and model: means over tasks, with intervals of 95 % (over tasks). Runs are those that count. "
            f"Energy is gross, of the agent stage: {data.energy_is}.",
            ["agent × model", "tasks", "runs", "resolved", "energy J", "seconds", "tokens", "calls", "engine MB"],
            rows,
            RUNS,
        )
    )
    return Section("overview", "What came out", blocks)


def _what(data: Data) -> str:
    said = []
    for sweep in data.sweeps:
        suite = sweep.resolved.get("suite", {})
        tasks = len(suite.get("tasks", ()))
        said.append(
            f"Sweep {sweep.sweep_id}: {counted(sweep.runs, 'run')} of {sweep.row['planned_runs']:,} planned, on "
            f"{counted(tasks, 'task')} of {suite.get('name')} (hash {suite.get('hash')}), "
            f"begun {sweep.row['created_at']}."
        )
    return " ".join(said)


def _warnings(data: Data) -> list[str]:
    found = []
    for sweep in data.sweeps:
        if not sweep.runs:
            found.append(f"Sweep {sweep.sweep_id} has no run yet: there is nothing to show of it.")
        elif sweep.missing > 0:
            found.append(
                f"Sweep {sweep.sweep_id} is unfinished: {counted(sweep.missing, 'run')} outstanding "
                f"(harness sweep --resume {sweep.sweep_id}). What stands here is of the runs that there are."
            )
    if data.cells and not any(cell.valid for cell in data.cells):
        found.append("No run counts: all were spoilt by the machine. See how runs ended.")
    if data.cells and (reason := data.no_comparison(data.with_models or data.cells)):
        found.append(f"Energies are not compared, ranked or split here: {reason}.")
    elif len(data.cells) == 1:
        found.append("There is one agent with one model: nothing can be compared.")
    if (reason := data.machines(data.cells)) and data.cells:
        found.append(f"{reason[0].upper()}{reason[1:]}. Each cell stands for itself.")
    found += _differences(data)
    for what, counts in (
        ("have no energy", [sum(run.run["energy_j"] is None for run in cell.fit) for cell in data.cells]),
        ("were not graded", [sum(run.run["outcome"] == "ungraded" for run in cell.valid) for cell in data.cells]),
    ):
        if any(counts):
            said = ", ".join(
                f"{count} of {len(cell.valid)} of {cell.name}"
                for cell, count in zip(data.cells, counts, strict=True) if count
            )  # fmt: skip
            found.append(f"Runs that {what}, and are in no figure of it: {said}.")
    left = Counter(
        (cell.name, flag)
        for cell in data.cells
        for run in cell.valid
        for flag in sorted(set((run.run["left_out"] or "").split(", ")) - {""})
    )
    if left:
        said = ", ".join(f"{count} of {name} ({flag})" for (name, flag), count in left.items())
        found.append(f"Left out of seconds and joules by their flags: {said}.")
    spoilt = [(cell.name, len(cell.all_runs) - len(cell.valid)) for cell in data.cells]
    if any(count for _, count in spoilt):
        said = ", ".join(f"{count} of {name}" for name, count in spoilt if count)
        found.append(f"Runs that count for nothing, since the machine spoilt them: {said}.")
    return found


def _differences(data: Data) -> list[str]:
    """What differs between the records of several sweeps: their cells stand beside each other all the same."""
    first, *others = data.sweeps
    found = []
    for other in others:
        lines = [
            f"{name}: {before} -> {after}"
            for name, before, after in differences(
                *({key: value for key, value in sweep.resolved.items() if key != "runs"} for sweep in (first, other))
            )
        ]
        if lines:
            found.append(
                f"Sweep {other.sweep_id} was made by other rules than {first.sweep_id}, so a difference between their "
                f"cells may be the rules': {listed(lines, MOST_DIFFERENCES)}."
            )
    return found


def descriptions(data: Data) -> Section:
    blocks: list[Block] = [
        Paragraph(
            "Of runs: mean, standard deviation, median, quartiles, least and most. The interval is of the mean over "
            "tasks, since runs of one task are alike; it is left out where there are too few tasks."
        )
    ]
    for metric in DESCRIBED:
        rows, why = [], []
        for cell in data.cells:
            if metric in ENERGY and cell.unlike:
                why.append((cell.name, cell.unlike))
                continue
            row = _described(cell, metric)
            if row is None:
                why.append((cell.name, _unknown(metric, cell)))
                continue
            rows.append(row)
        name, unit = NAMES[metric]
        said = f" ({data.energy_is})" if metric in ENERGY else ""
        if rows:
            blocks.append(
                Table(
                    f"described-{metric.replace('_', '-')}",
                    f"{name[0].upper()}{name[1:]} of a run, {unit}{said}.",
                    ["agent × model", *SPREAD],
                    rows,
                    RUNS,
                )
            )  # fmt: skip
        blocks += [Note(f"{name} is not told of {line}.") for line in reasons(why)]
    blocks += _phases(data)
    return Section("descriptions", "Each figure by agent and model", blocks)


def _described(cell: Cell, metric: str) -> list[Value] | None:
    found = _spread(cell.values(metric), scale(metric))
    return found and [cell.name, *found]


def _spread(values: Values, factor: float = 1.0) -> list[Value] | None:
    """The columns of `SPREAD`; None where there is no value."""
    found = estimates.describe([value * factor for task in values.values() for value in task])
    if found is None:
        return None
    return [
        found.n, len(values), number(estimates.mean(values), factor), found.mean, found.sd,
        Number(found.median, found.lower_quartile, found.upper_quartile), found.least, found.most,
    ]  # fmt: skip


def _unknown(metric: str, cell: Cell) -> str:
    if not cell.valid:
        return "no run counts"
    if metric in CLOCKED and not cell.fit:
        return ALL_LEFT_OUT
    if metric in ENERGY:
        return "no source told it, or idle power was not measured" if metric == "net_energy_j" else "no source told it"
    if metric in ("calls", "input_tokens", "output_tokens", "engine_peak_bytes") and cell.model == "none":
        return "it calls no model"
    return "it was not recorded"


def _phases(data: Data) -> list[Block]:
    """Joules by phase; a clock has none, and says so above."""
    names = [phase for phase in PHASES if any(phase in cell.had_phases for cell in data.cells)]
    if not names or data.no_comparison(data.with_models):
        return []
    blocks: list[Block] = []
    for layer in ("gross", "net"):
        rows: list[list[Value]] = [
            [cell.name, phase.replace("_", " "), *found]
            for cell in data.with_models
            for phase in names
            if (found := _spread(cell.phases.get((layer, phase), {})))
        ]
        if rows:
            blocks.append(
                Table(
                    f"phases-{layer}",
                    f"Energy of a run by phase, {layer}, J ({data.energy_is}).",
                    ["agent × model", "phase", *SPREAD],
                    rows,
                    PHASES_QUERY,
                )
            )
    return blocks
