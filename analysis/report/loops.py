"""What loops cost, how runs ended, and what a guard would have saved."""

from __future__ import annotations

from harness.analysis import failures
from harness.analysis.loops.counterfactual import curve
from harness.analysis.loops.summary import Waste, kinds, recorded, wastes
from harness.analysis.report import plots
from harness.analysis.report.data import ALL_LEFT_OUT, Cell, Data
from harness.analysis.report.document import Block, Note, Number, Paragraph, Plot, Section, Table, Value
from harness.analysis.report.tables import counted, listed, reasons

LOOPS = (
    "SELECT runs.agent, runs.engine, runs.model, runs.task, runs.repetition, histories.*, loops.kind, loops.onset, "
    "loops.end, loops.plain_at, loops.recovered FROM histories JOIN runs USING (run_id) LEFT JOIN loops USING (run_id) "
    "WHERE sweep_id = ? ORDER BY runs.position, loops.number"
)
ENDINGS = (
    "SELECT agent, engine, model, ended_by, verdict, outcome, COUNT(*) AS runs FROM runs_summary WHERE sweep_id = ? "
    "GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, runs DESC"
)


def endings(data: Data) -> Section:
    """One class of failure for each run."""
    counts: dict[str, dict[str, int]] = {}
    for cell in data.cells:
        for of_cell in failures.by_cell(cell.all_runs).values():
            counts[cell.name] = of_cell
    if not counts:
        return Section("endings", "How runs ended", [Note("There is no run.")])
    order = {rule.name: number for number, rule in enumerate(failures.RULES)}
    names = sorted(
        {name for of_cell in counts.values() for name in of_cell},
        key=lambda name: (order[name.partition(":")[0]], name),
    )
    shares = {
        cell: {name: of_cell.get(name, 0) / sum(of_cell.values()) for name in names}
        for cell, of_cell in counts.items()
    }  # fmt: skip
    total = sum(sum(of_cell.values()) for of_cell in counts.values())
    return Section(
        "endings",
        "How runs ended",
        [
            Plot(
                "failures",
                f"Classes of endings by agent and model, share of the runs; n = {total:,}, one class a run, by the "
                "first rule that holds (docs/loops.md).",
                "Bars of shares, one for each agent and model, made of classes",
                lambda: plots.stacked(shares, "share of the runs", percent=True),
                ENDINGS,
            ),
            Table(
                "failures-table",
                "Runs of each class.",
                ["agent × model", "runs", *names],
                [
                    [cell, sum(found.values()), *(found.get(name, 0) for name in names)]
                    for cell, found in counts.items()
                ],
                ENDINGS,
            ),
        ],
    )


def section(data: Data) -> Section:
    """From the onset of the first loop that a run never recovered from."""
    rows: list[list[Value]] = []
    shares: dict[str, dict[str, float]] = {}
    why: list[tuple[str, str | None]] = []
    for cell in data.with_models:
        found = wastes(cell.all_runs)
        if not found:
            continue
        [waste] = found[:1]
        quartiles = waste.quartiles or (None,) * 5
        rows.append(
            [cell.name, waste.runs - waste.unanalysable, waste.looping, waste.stuck,
             Number(waste.calls_share.value, percent=True), Number(waste.tokens_share.value, percent=True),
             Number(quartiles[2], quartiles[1], quartiles[3], True),
             waste.tokens.value, waste.seconds.value, waste.joules.value]
        )  # fmt: skip
        if waste.tokens_share.value is not None:
            share = waste.tokens_share.value
            shares[cell.name] = {"before any loop that it stayed in": 1 - share, "from there on": share}
        why += _missing(cell, waste)
    runs = [run for cell in data.with_models for run in cell.all_runs]
    unknown = [run.run["run_id"] for run in runs if run.unanalysable]
    if not rows:
        nothing = Note("No run has calls that can be analysed: what loops cost is unknown.")
        return Section("loops", "Loops", [nothing, *_unknown(unknown)])
    blocks: list[Block] = [
        Paragraph(
            "Wasted is what a run spent from the onset of the first loop that it never recovered from: after it "
            "nothing changed a file, read anything new or brought a new result. Loops are told from the calls alone, "
            "alike for every framework (docs/loops.md)."
        ),
        Table(
            "waste",
            "Spent from the onset of the first loop that a run never recovered from, summed over the valid runs whose "
            "calls can be read; seconds and joules leave out those that a flag leaves out of them.",
            ["agent × model", "runs", "with loops", "never recovered", "share of calls", "share of tokens",
             "a run's share: median (quartiles)", "tokens", "seconds", "energy J"],
            rows,
            LOOPS,
        ),
    ]  # fmt: skip
    if shares:
        blocks.append(
            Plot(
                "waste-after-onset",
                "Tokens before and after the onset of the first loop that a run never recovered from; "
                f"n = {sum(run.told and bool(run.run['counts']) for run in runs):,} runs.",
                "Bars of shares of tokens, one for each agent and model, in two parts",
                lambda: plots.stacked(shares, "share of all tokens", percent=True),
                LOOPS,
            )
        )
    blocks += [Note(f"Not told: {line}.") for line in reasons(why)]
    if len(data.sweeps) > 1:
        blocks.append(Note("Loops by kind, and what a guard would have saved, are told of one sweep at a time."))
        return Section("loops", "Loops", [*blocks, *_unknown(unknown)])
    if found_kinds := kinds(runs):
        blocks.append(
            Table(
                "loop-kinds",
                "Loops by kind; dead ends are the first loops that runs never recovered from.",
                ["kind", "loops", "in runs", "dead ends", "tokens from there on"],
                [[kind.kind, kind.loops, kind.runs, kind.dead_ends, kind.wasted_tokens] for kind in found_kinds],
                LOOPS,
            )
        )
    return Section("loops", "Loops", [*blocks, *_guard(runs), *_unknown(unknown)])


def _missing(cell: Cell, waste: Waste) -> list[tuple[str, str | None]]:
    figures = (("energy", waste.joules), ("tokens", waste.tokens), ("seconds", waste.seconds))
    left_out = None if cell.fit else ALL_LEFT_OUT
    return [
        (f"{name} of {cell.name}", figure.why if name == "tokens" else left_out or figure.why)
        for name, figure in figures
        if figure.value is None
    ]


def _guard(runs: list[failures.Seen]) -> list[Block]:
    points = curve(recorded(runs))
    if not any(point.stopped for point in points):
        return [Paragraph("A guard that stops loops would have stopped none of these runs.")]
    return [
        Table(
            "guard",
            "Had a guard stopped each loop after so many steps (--guard stop --guard-patience), from these records "
            "alone; runs that a guard had a hand in are not in it.",
            ["patience", "runs stopped", "tokens saved in runs that never recovered", "of all their tokens",
             "resolved runs lost", "of resolved runs", "share lost"],
            [
                [point.patience, point.stopped, point.saved_tokens, Number(point.share, point.low, point.high, True),
                 point.lost, point.resolved,
                 Number(point.lost_share, point.lost_low if point.lost else 0.0, point.lost_high, True)
                 if point.lost_share is not None else None]
                for point in points
            ],
            LOOPS,
        )
    ]  # fmt: skip


def _unknown(run_ids: list[str]) -> list[Block]:
    if not run_ids:
        return []
    return [
        Note(
            f"Loops of {counted(len(run_ids), 'run')} are unknown, since their journals can't be read: "
            f"{listed(run_ids)} (harness loops RUN says why)."
        )
    ]
