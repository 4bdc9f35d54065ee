"""What energy comes to: figures by agent and model, each with its unit, kind and coverage, or the reason why there is
none. Reads the store and nothing else.

Figures of different kind, coverage or machine are never added, averaged or compared. Definitions: docs/metrics.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from sqlite_utils import Database

from harness.analysis.figures import (
    CONSTANT,
    NO_ENERGY,
    NO_RUN,
    Figure,
    Sample,
    inverse,
    mean_of,
    not_comparable,
    pool,
    scaled,
    unlike,
)
from harness.analysis.loops.digest import Digest
from harness.analysis.names import label

JOULES_PER_WH = 3600.0
JOULES_PER_KWH = 3.6e6

PHASES = ("load", "prefill", "decode", "between_calls", "tail")
LAYERS = ("gross", "idle", "net")
CPU_SOURCES = ("rapl", "codecarbon")
CPU_USERS = ("sandbox", "engine", "harness", "rest")
BETWEEN_CALLS = ("framework", "tools")

NONE_GRADED = "no run that is left was graded"
NO_IDLE = "idle power was not measured"
NO_PHASES = "the energy was not recorded by phase"
NO_SUCH_PHASE = "no run has this phase"
NO_SPLIT = "the energy was not split by CPU time"
NO_STEPS = "no run has calls by which its last useful step could be told"
NO_COUNTRY = "no country was given (--country), so the grid's CO2 is unknown"
NO_BANDWIDTH = "the sweep does not name the memory's bandwidth (--memory-bandwidth)"
ENGINE_AWAY = "the engine is on another machine, and its energy is not in this figure"


@dataclass(frozen=True)
class Budget:
    """The share of runs that were resolved with at most so many joules, as steps (joules, share) from 0 to `limit`.

    `area` is the area under the steps divided by the limit: the mean share over all budgets up to it.
    """

    limit: Figure
    points: tuple[tuple[float, float], ...] | None
    area: Figure


@dataclass(frozen=True)
class Cell:
    """One agent with one model. Figures are of the runs that are kept: valid, and without a flag that leaves out."""

    agent: str
    model: str
    runs: int
    left_out: dict[str, int]
    """Runs by the flag that leaves them out; `invalid`: those that count for nothing. A run may have several flags."""
    kept: int
    graded: int
    """Of the kept runs, as `resolved`."""
    resolved: int
    agent_s: Figure
    gross_j: Figure
    net_j: Figure
    idle_w: Figure
    mean_w: Figure
    peak_w: Figure
    wh: Figure
    co2e_g: Figure
    edp: Figure
    failed_j: Figure
    failed_share: Figure
    per_resolved_j: Figure
    budget: Budget
    phases: dict[str, dict[str, Figure]]
    """By phase and layer, joules a run."""
    cpu_users: dict[str, Figure]
    """The dynamic energy of the processor by share of CPU time, joules a run."""
    between_calls: dict[str, Figure]
    """The gross energy of that phase by the framework's own process and what it started, joules a run."""
    per_input_token_j: Figure
    per_output_token_j: Figure
    input_tokens_per_j: Figure
    output_tokens_per_j: Figure
    prefill_tokens_s: Figure
    decode_tokens_s: Figure
    decode_per_bandwidth: Figure
    after_last_useful_step: Figure


@dataclass(frozen=True)
class Source:
    """One source beside the one that runs are told by. `ratio` is its joules for each joule of that one."""

    source: str
    is_headline: bool
    gross_j: Figure
    ratio: Figure
    headline_kind: str | None
    headline_coverage: str | None


@dataclass(frozen=True)
class Ranking:
    """Cells from the lowest to the highest figure; None where they can't be compared."""

    order: tuple[str, ...] | None
    why: str | None = None


@dataclass(frozen=True)
class _Run:
    run_id: str
    agent: str
    model: str
    outcome: str
    left_out: tuple[str, ...]
    agent_s: float
    machine: str
    source: str | None
    kind: str
    coverage: str | None
    gross_j: float | None
    peak_w: float | None
    session: int | None
    energy: Mapping[tuple[str, str, str, str], Mapping[str, Any]]
    """By source, component, layer and phase."""
    calls: Sequence[Mapping[str, Any]]

    @property
    def graded(self) -> bool:
        return self.outcome not in ("ungraded", "invalid")

    @property
    def resolved(self) -> bool:
        return self.outcome == "resolved"

    def row(self, component: str, layer: str, phase: str = "agent") -> Mapping[str, Any]:
        """A figure of the source that the run is told by; an empty one when there is none."""
        key = (component, layer, phase)
        return self.energy.get((self.source or "none", *key)) or self.energy.get(("none", *key)) or {}

    def cpu_user(self, who: str) -> Mapping[str, Any]:
        """Who used the processor is told by the processor's own source, whatever tells the run."""
        rows = (self.energy.get((source, who, "net", "agent")) for source in CPU_SOURCES)
        return next((row for row in rows if row), {})

    def sample(self, value: float | None, missing: str | None = None) -> Sample:
        """Something that is made of the run's total."""
        return Sample(
            value, self.kind, self.coverage, self.machine, missing or self.row("total", "gross").get("detail")
        )

    def sample_of(self, row: Mapping[str, Any], missing: str) -> Sample:
        """What a row tells. Where there is none, the run's kind still matters when it is a clock."""
        if not row:
            kind = self.kind if self.kind == CONSTANT else "unavailable"
            return Sample(None, kind, self.coverage, self.machine, missing)
        return Sample(row["joules"], row["kind"], row["coverage"], self.machine, row["detail"] or missing)

    def without_energy(self, value: float | None) -> Sample:
        return Sample(value, None, None, self.machine)


def cells(
    db: Database,
    sweep_id: str,
    *,
    edp_exponent: float = 1.0,
    budget_j: float | None = None,
    analysed: Sequence[Digest] = (),
) -> list[Cell]:
    """Every agent with every model of a sweep.

    `edp_exponent` is the w of joules times seconds to the w. `budget_j` is the highest budget of the curves; None: the
    energy of the sweep's most expensive run, so that the areas of all cells are over the same range. `analysed` are the
    sweep's runs with their histories, which only the share after the last useful step needs.
    """
    runs = _runs(db, sweep_id)
    [(spec,)] = db.execute("SELECT spec FROM sweeps WHERE sweep_id = ?", [sweep_id]).fetchall()
    bandwidth_gb_s = json.loads(spec).get("memory_bandwidth_gb_s")
    sessions = db.execute("SELECT session, carbon_g_per_kwh FROM sessions WHERE sweep_id = ?", [sweep_id])
    carbon = dict(sessions.fetchall())
    limit = _budget_limit(runs, budget_j)
    groups: dict[tuple[str, str], list[_Run]] = {}
    for run in runs:
        groups.setdefault((run.agent, run.model), []).append(run)
    steps = {run.run["run_id"]: run for run in analysed}
    return [_cell(group, edp_exponent, limit, bandwidth_gb_s, carbon, steps) for group in groups.values()]


def figures_of(cell: Cell) -> Iterator[tuple[str, Figure]]:
    """Every figure of a cell with its name; those of a part as `phases.decode.net`."""

    def walk(name: str, value: Any) -> Iterator[tuple[str, Figure]]:
        if isinstance(value, Figure):
            yield name, value
        elif isinstance(value, Budget):
            yield f"{name}.limit", value.limit
            yield f"{name}.area", value.area
        elif isinstance(value, dict):
            for inner, of_it in value.items():
                yield from walk(f"{name}.{inner}", of_it)

    for one in fields(cell):
        yield from walk(one.name, getattr(cell, one.name))


def ranking(rows: Sequence[Cell], name: str = "gross_j") -> Ranking:
    """The cells by one of their figures, lowest first. A difference in it is no test of significance."""
    figures = {f"{cell.agent} × {cell.model}": getattr(cell, name) for cell in rows}
    if reason := not_comparable(list(figures.values())):
        return Ranking(None, reason)
    empty = [who for who, figure in figures.items() if figure.value is None]
    if empty:
        reasons = "; ".join(dict.fromkeys(figures[who].why for who in empty))
        return Ranking(None, f"{', '.join(empty)} without a figure: {reasons}")
    if len(figures) < 2:
        return Ranking(None, "there are not two cells")
    return Ranking(tuple(sorted(figures, key=lambda who: figures[who].value)))


def sources(db: Database, sweep_id: str) -> list[Source]:
    """The total of every source over the kept runs, and its ratio to the source that the runs are told by.

    A cross-check: a source of another coverage can't give the same joules, so its ratio is information, not an error.
    """
    kept = [run for run in _runs(db, sweep_id) if not run.left_out]
    headlines = {run.source for run in kept if run.kind != "unavailable"}
    names = sorted(
        {row["source"] for run in kept for row in run.energy.values() if _is_total(row) and row["source"] != "none"},
        key=lambda name: (name not in headlines, name),
    )
    found = []
    for name in names:
        pairs = [(run, row) for run in kept for row in run.energy.values() if _is_total(row) and row["source"] == name]
        gross_j = mean_of([run.sample_of(row, NO_ENERGY) for run, row in pairs], "J")
        told = mean_of(
            [run.sample(run.gross_j) for run, _ in pairs if run.source != name]
            or [run.sample(run.gross_j) for run, _ in pairs],
            "J",
        )
        found.append(Source(name, name in headlines, gross_j, _ratio(name, pairs, told), told.kind, told.coverage))
    return found


def _runs(db: Database, sweep_id: str) -> list[_Run]:
    energy: dict[str, dict[tuple[str, str, str, str], dict[str, Any]]] = {}
    for row in db.query("SELECT energy.* FROM energy JOIN runs USING (run_id) WHERE sweep_id = ?", [sweep_id]):
        key = (row["source"], row["component"], row["layer"], row["phase"])
        energy.setdefault(row["run_id"], {})[key] = row
    calls: dict[str, list[dict[str, Any]]] = {}
    for row in db.query(
        "SELECT calls.run_id, calls.prefill_s, calls.decode_s, calls.input_tokens, calls.cached_tokens, "
        "calls.output_tokens FROM calls JOIN runs USING (run_id) WHERE sweep_id = ? AND sent",
        [sweep_id],
    ):
        calls.setdefault(row["run_id"], []).append(row)
    return [
        _Run(
            row["run_id"], row["agent"], label(row["engine"], row["model"]), row["outcome"],
            # A flag may stand there twice, with two reasons.
            tuple(dict.fromkeys(row["left_out"].split(", "))) if row["counts"] and row["left_out"]
            else () if row["counts"] else ("invalid",),
            row["agent_s"], row["machine_id"], row["energy_source"], row["energy_kind"], row["energy_coverage"],
            row["energy_j"], row["peak_w"], row["session"], energy.get(row["run_id"], {}), calls.get(row["run_id"], []),
        )
        for row in db.query(
            "SELECT runs_summary.*, runs.session FROM runs_summary JOIN runs USING (run_id) "
            "WHERE runs.sweep_id = ? ORDER BY runs.agent, runs.engine, runs.model, runs.position",
            [sweep_id],
        )
    ]  # fmt: skip


def _cell(
    group: Sequence[_Run],
    exponent: float,
    limit: Figure,
    bandwidth_gb_s: float | None,
    carbon: Mapping[int | None, float | None],
    steps: Mapping[str, Digest],
) -> Cell:
    kept = [run for run in group if not run.left_out]
    graded = [run for run in kept if run.graded]
    left_out: dict[str, int] = {}
    for run in group:
        for flag in run.left_out:
            left_out[flag] = left_out.get(flag, 0) + 1
    gross_j = mean_of([run.sample(run.gross_j) for run in kept], "J", unknown=NO_ENERGY)
    failed_j, failed_share = _failed(graded)
    input_j, output_j = _per_token(kept, "prefill"), _per_token(kept, "decode")
    decode_tokens_s = _tokens_s(kept, "decode")
    return Cell(
        agent=group[0].agent,
        model=group[0].model,
        runs=len(group),
        left_out=left_out,
        kept=len(kept),
        graded=len(graded),
        resolved=sum(run.resolved for run in graded),
        agent_s=mean_of([run.without_energy(run.agent_s) for run in kept], "s"),
        gross_j=gross_j,
        net_j=mean_of([_net(run) for run in kept], "J", beyond_seconds=True, unknown=NO_IDLE),
        idle_w=_watts(kept, "idle"),
        mean_w=_watts(kept, "gross"),
        peak_w=_peak(kept),
        wh=scaled(gross_j, 1 / JOULES_PER_WH, "Wh"),
        co2e_g=_co2e(kept, gross_j, carbon),
        edp=mean_of(
            [run.sample(None if run.gross_j is None else run.gross_j * run.agent_s**exponent) for run in kept],
            "J·s" if exponent == 1 else f"J·s^{exponent:g}",
            beyond_seconds=True,
            unknown=NO_ENERGY,
        ),
        failed_j=failed_j,
        failed_share=failed_share,
        per_resolved_j=_per_resolved(graded),
        budget=_budget(graded, limit),
        phases={phase: {layer: _phase(kept, phase, layer) for layer in LAYERS} for phase in PHASES},
        cpu_users={
            who: mean_of([run.sample_of(run.cpu_user(who), NO_SPLIT) for run in kept], "J", beyond_seconds=True)
            for who in CPU_USERS
        },
        between_calls={
            who: mean_of(
                [run.sample_of(run.row(who, "gross", "between_calls"), NO_SPLIT) for run in kept],
                "J",
                beyond_seconds=True,
            )
            for who in BETWEEN_CALLS
        },
        per_input_token_j=input_j,
        per_output_token_j=output_j,
        input_tokens_per_j=inverse(input_j),
        output_tokens_per_j=inverse(output_j),
        prefill_tokens_s=_tokens_s(kept, "prefill"),
        decode_tokens_s=decode_tokens_s,
        decode_per_bandwidth=(
            scaled(decode_tokens_s, 1 / bandwidth_gb_s, "tokens/s per GB/s")
            if bandwidth_gb_s
            else Figure(None, "tokens/s per GB/s", why=NO_BANDWIDTH)
        ),
        after_last_useful_step=_after_last_useful_step(kept, steps),
    )


# The whole run.


def _net(run: _Run) -> Sample:
    return run.sample_of(run.row("total", "net"), NO_ENERGY if run.gross_j is None else NO_IDLE)


def _watts(kept: Sequence[_Run], layer: str) -> Figure:
    """Joules of all runs over seconds of all runs: the mean power, in which a longer run weighs more."""
    missing = NO_IDLE if layer == "idle" else NO_ENERGY
    samples = [run.sample_of(run.row("total", layer), missing) for run in kept]
    values, figure = pool(samples, "W", unknown=missing)
    seconds = sum(run.agent_s for run, sample in zip(kept, samples, strict=True) if sample.value is not None)
    return replace(figure, value=sum(values) / seconds) if values and seconds > 0 else figure


def _peak(kept: Sequence[_Run]) -> Figure:
    missing = "no run has a second of it whose power is known"
    samples = [run.sample(run.peak_w, missing) for run in kept]
    values, figure = pool(samples, "W", beyond_seconds=True)
    return replace(figure, value=max(values)) if values else figure


def _co2e(kept: Sequence[_Run], gross_j: Figure, carbon: Mapping[int | None, float | None]) -> Figure:
    figure = replace(gross_j, unit="g CO2e")
    if figure.value is None:
        return figure
    grids = {carbon.get(run.session) for run in kept if run.gross_j is not None}
    if len(grids - {None}) > 1:
        return replace(figure, value=None, why="the sweep's sessions name grids of different CO2")
    grams_per_kwh = grids.pop() if len(grids) == 1 else None
    if grams_per_kwh is None:
        return replace(figure, value=None, why=NO_COUNTRY)
    # A grid's yearly mean is no measurement, whatever it is multiplied with.
    kind = "estimated" if figure.kind == "measured" else figure.kind
    return replace(figure, value=figure.value / JOULES_PER_KWH * grams_per_kwh, kind=kind)


def _failed(graded: Sequence[_Run]) -> tuple[Figure, Figure]:
    """Joules of the runs that were graded and not resolved, and their share of the joules of all that were graded."""
    values, figure = pool([run.sample(run.gross_j) for run in graded], "J", all_known=True, nobody=NONE_GRADED)
    share = replace(figure, unit="1")
    if not values:
        return figure, share
    failed_j = sum(value for run, value in zip(graded, values, strict=True) if not run.resolved)
    failed = replace(figure, value=failed_j, n=sum(not run.resolved for run in graded))
    if sum(values) <= 0:
        return failed, replace(share, why="no energy was spent")
    return failed, replace(share, value=failed_j / sum(values))


def _per_resolved(graded: Sequence[_Run]) -> Figure:
    unit = "J/resolved"
    resolved = sum(run.resolved for run in graded)
    values, figure = pool([run.sample(run.gross_j) for run in graded], unit, all_known=True, nobody=NONE_GRADED)
    if values and resolved:
        return replace(figure, value=sum(values) / resolved)
    if values:
        return replace(figure, why=f"undefined: 0 resolved, {sum(values):,.0f} J spent")
    return replace(figure, why=f"undefined: 0 resolved; {figure.why}") if graded and not resolved else figure


def _budget_limit(runs: Sequence[_Run], budget_j: float | None) -> Figure:
    graded = [run for run in runs if not run.left_out and run.graded]
    values, figure = pool([run.sample(run.gross_j) for run in graded], "J", beyond_seconds=True, nobody=NONE_GRADED)
    if not values:
        return figure
    limit_j = max(values) if budget_j is None else budget_j
    said = "the energy of the sweep's most expensive run" if budget_j is None else "as it was asked for"
    return replace(figure, value=limit_j, why=said) if limit_j > 0 else replace(figure, why="no energy was spent")


def _budget(graded: Sequence[_Run], limit: Figure) -> Budget:
    # A run that was not resolved is below the curve at every budget, whatever it used.
    told = [run for run in graded if run.resolved or run.gross_j is not None]
    values, area = pool(
        [run.sample(run.gross_j) for run in told],
        "1",
        beyond_seconds=True,
        all_known=True,
        nobody=NO_ENERGY if graded else NONE_GRADED,
    )
    if not values:
        return Budget(limit, None, area)
    if limit.value is None:
        return Budget(limit, None, replace(area, why=limit.why))
    most = limit.value
    used = sorted(value for run, value in zip(told, values, strict=True) if run.resolved and value <= most)
    points = [(0.0, 0.0), *((joules, number / len(graded)) for number, joules in enumerate(used, 1))]
    points.append((most, len(used) / len(graded)))
    mean = sum(1 - joules / most for joules in used) / len(graded)
    said = f"budgets from 0 to {most:,.0f} J, {limit.why}"
    return Budget(limit, tuple(dict.fromkeys(points)), replace(area, value=mean, n=len(graded), why=said))


def _after_last_useful_step(kept: Sequence[_Run], steps: Mapping[str, Digest]) -> Figure:
    """Joules after the last step that got a run any further, over all its joules, both summed over the runs."""
    told = [(run, steps[run.run_id]) for run in kept if run.run_id in steps and steps[run.run_id].told]
    if not told:
        return Figure(None, "1", why=NO_STEPS if kept else NO_RUN)
    samples, whole_j = [], 0.0
    for run, analysed in told:
        after = analysed.after_useful
        samples.append(Sample(after.joules, after.kind, after.coverage, run.machine, after.why))
        if after.joules is not None:
            whole_j += run.gross_j or 0.0
    values, figure = pool(samples, "1", beyond_seconds=True)
    if not values:
        return figure
    return replace(figure, value=sum(values) / whole_j) if whole_j > 0 else replace(figure, why="no energy was spent")


# Its parts.


def _by_phase(run: _Run, layer: str) -> Mapping[str, Mapping[str, Any]] | None:
    """The run's phases in a layer; None unless all are known, so that the parts of a mean add up to its whole."""
    gross = {phase: row for phase in PHASES if (row := run.row("total", "gross", phase))}
    rows = {phase: row for phase in PHASES if (row := run.row("total", layer, phase))}
    complete = bool(gross) and rows.keys() == gross.keys() and all(row["joules"] is not None for row in rows.values())
    return rows if complete else None


def _phase_sample(run: _Run, phase: str, layer: str) -> Sample:
    rows = _by_phase(run, layer)
    if rows is None:
        gross = _by_phase(run, "gross")
        of_it = [run.row("total", layer, name) for name in PHASES]
        detail = next((row["detail"] for row in of_it if row and row["joules"] is None and row["detail"]), None)
        return run.sample_of({}, detail or (NO_PHASES if layer == "gross" or gross is None else NO_IDLE))
    if phase not in rows:
        return run.without_energy(0.0)  # no second of the stage was spent in it
    return run.sample_of(rows[phase], NO_PHASES)


def _phase(kept: Sequence[_Run], phase: str, layer: str) -> Figure:
    samples = [_phase_sample(run, phase, layer) for run in kept]
    figure = mean_of(samples, "J", beyond_seconds=True, unknown=NO_PHASES)
    if figure.value is not None and all(sample.kind is None for sample in samples if sample.value is not None):
        return Figure(None, "J", n=figure.n, why=NO_SUCH_PHASE)
    return figure


def _read(call: Mapping[str, Any]) -> int | None:
    """Tokens of the prompt that the engine had to read. Unknown when it does not tell what came out of its cache."""
    if call["input_tokens"] is None or call["cached_tokens"] is None:
        return None
    return int(call["input_tokens"]) - int(call["cached_tokens"])


def _tokens(call: Mapping[str, Any], phase: str) -> int | None:
    if phase == "prefill":
        return _read(call)
    return None if call["output_tokens"] is None else int(call["output_tokens"])


def _missing_tokens(calls: Sequence[Mapping[str, Any]], phase: str) -> str:
    if phase == "prefill" and all(call["input_tokens"] is not None for call in calls):
        return "the engine does not tell how much of a prompt came out of its cache"
    return "the engine did not count the tokens of all calls"


def _per_token(kept: Sequence[_Run], phase: str) -> Figure:
    """Gross joules of a phase over its tokens, both summed over the runs of which both are wholly known."""
    unit = "J/token"
    if any((run.coverage or "").startswith("sandbox_host:") and run.kind != "unavailable" for run in kept):
        return Figure(None, unit, why=ENGINE_AWAY)
    samples, tokens = [], 0
    for run in kept:
        sample = _phase_sample(run, phase, "gross")
        counts = [_tokens(call, phase) for call in run.calls]
        if sample.value is not None and None in counts:
            sample = sample._replace(value=None, missing=_missing_tokens(run.calls, phase))
        if sample.value is not None:
            tokens += sum(count or 0 for count in counts)
        samples.append(sample)
    values, figure = pool(samples, unit, beyond_seconds=True, unknown=NO_PHASES)
    if not values:
        return figure
    if tokens <= 0:
        return replace(figure, why="no token was read" if phase == "prefill" else "no token was generated")
    return replace(figure, value=sum(values) / tokens)


def _tokens_s(kept: Sequence[_Run], phase: str) -> Figure:
    """Tokens of a phase over its seconds, by the engine's own clock, over the calls of which both are known."""
    unit, column = "tokens/s", f"{phase}_s"
    calls = [(run, call) for run in kept for call in run.calls]
    known = [(run, call) for run, call in calls if _tokens(call, phase) is not None and call[column] is not None]
    if not known:
        if not calls:
            return Figure(None, unit, why="no call was made" if kept else NO_RUN)
        timed = any(call[column] is not None for _, call in calls)
        why = _missing_tokens([call for _, call in calls], phase) if timed else "the engine does not time this phase"
        return Figure(None, unit, why=why)
    if reason := unlike([run.without_energy(1.0) for run, _ in known]):
        return Figure(None, unit, n=len(known), why=reason)
    seconds = sum(call[column] for _, call in known)
    figure = Figure(None, unit, n=len(known), machine=known[0][0].machine)
    if len(known) < len(calls):
        figure = replace(figure, why=f"{len(calls) - len(known)} of {len(calls)} calls are not in it: not all is known")
    if seconds <= 0:
        return replace(figure, why="no time was spent in this phase")
    return replace(figure, value=sum(_tokens(call, phase) or 0 for _, call in known) / seconds)


# Sources beside each other.


def _is_total(row: Mapping[str, Any]) -> bool:
    return (row["component"], row["layer"], row["phase"]) == ("total", "gross", "agent")


def _ratio(name: str, pairs: Sequence[tuple[_Run, Mapping[str, Any]]], told: Figure) -> Figure:
    others = [(run, row) for run, row in pairs if run.source != name]
    if not others:
        return Figure(None, "1", why="the runs' energy is told by this source")
    both = [(run, row) for run, row in others if run.gross_j is not None and row["joules"] is not None]
    if not both:
        return Figure(None, "1", why="no run has a figure of both sources")
    theirs = [run.sample_of(row, NO_ENERGY) for run, row in both]
    if reason := unlike(theirs) or unlike([run.sample(run.gross_j) for run, _ in both]):
        return Figure(None, "1", n=len(both), why=reason)
    whole_j = sum(run.gross_j or 0.0 for run, _ in both)
    kind, coverage = theirs[0].kind, theirs[0].coverage
    figure = Figure(None, "1", kind, coverage, len(both), machine=both[0][0].machine)
    if whole_j <= 0:
        return replace(figure, why="no energy was spent")
    if coverage == told.coverage:
        said = f"both cover {coverage}"
    else:
        said = f"different coverage ({coverage} beside {told.coverage}): information, not an error"
    if CONSTANT in (kind, told.kind):
        said += "; one of the two is a clock, so its distance says nothing of accuracy"
    return replace(figure, value=sum(row["joules"] for _, row in both) / whole_j, why=said)
