"""Methods, limits and threats, written from the sweeps' own records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlite_utils import Database

from harness.analysis.report.data import Data, SweepRecord
from harness.analysis.report.document import Block, Bullets, Paragraph, Section, Table, Value
from harness.analysis.report.tables import counted

SWEEPS = "SELECT sweeps.*, machines.facts FROM sweeps JOIN machines USING (machine_id) WHERE sweep_id = ?"
VERSIONS = (
    "SELECT DISTINCT agent, agent_version, agent_commit, engine, engine_version, model, model_digest, num_ctx, "
    "protocol, harness_version FROM runs WHERE sweep_id = ? ORDER BY agent, engine, model"
)


def section(db: Database, data: Data) -> Section:
    blocks: list[Block] = []
    for sweep in data.sweeps:
        blocks += [Paragraph(text) for text in _text(sweep)]
    versions = [row for sweep in data.sweeps for row in db.query(VERSIONS, [sweep.sweep_id])]
    blocks.append(
        Table(
            "versions",
            "What ran.",
            ["agent", "version", "commit", "engine", "version", "model", "digest", "window", "protocol", "harness"],
            [
                [row["agent"], row["agent_version"], (row["agent_commit"] or "")[:12] or None, row["engine"],
                 row["engine_version"], row["model"], (row["model_digest"] or "")[:19] or None, row["num_ctx"],
                 row["protocol"], row["harness_version"]]
                for row in versions
            ],
            VERSIONS,
        )
    )  # fmt: skip
    blocks.append(_record(data))
    return Section("methods", "Methods", blocks)


def _text(sweep: SweepRecord) -> Iterator[str]:
    rules, sampling = sweep.resolved.get("rules", {}), sweep.resolved.get("sampling", {})
    machine, suite = sweep.machine, sweep.resolved.get("suite", {})
    memory = machine.get("memory_bytes")
    gpus = ", ".join(map(str, machine.get("gpus") or ())) or "no GPU"
    yield (
        f"Sweep {sweep.sweep_id} ran on machine {sweep.row['machine_id']}: {machine.get('cpu')}, "
        f"{machine.get('cores')} cores, {f'{memory / 2**30:.0f} GiB' if memory else 'memory unknown'}, {gpus}, "
        f"{machine.get('os')}, kernel {machine.get('kernel')}, Docker {machine.get('docker')}. Each run had a "
        "container of its own without a network; frameworks were run unmodified but for the replaced parts named below."
    )
    left_out = suite.get("left_out") or {}
    yield (
        f"Tasks: {counted(len(suite.get('tasks', ())), 'task')} of {suite.get('name')}, list hash {suite.get('hash')}"
        + (f"; {len(left_out)} left out, which could not be graded there" if left_out else "")
        + f". Repetitions: {rules.get('repeats')}; order: {_order(rules.get('order'))}; warm-up runs: "
        f"{rules.get('warmup')}; rest between runs: {_seconds(rules.get('rest_s'))}; control job: "
        f"{_every(rules.get('control_every'))}; idle power: {_idle(rules)}; engine: {rules.get('engine_state')} at the "
        f"start of each run; runs at once: {rules.get('slots')}."
    )
    yield (
        f"Sampling: temperature {sampling.get('temperature')}, top_p {sampling.get('top_p') or 'not set'}, base seed "
        f"{sampling.get('seed')}; seeds of calls are derived from it, the task, the repetition and the call, alike for "
        f"every framework. Limits: {_seconds(rules.get('time_limit_s'))}, {rules.get('max_calls')} calls, "
        f"{rules.get('num_predict')} tokens an answer, tokens {_limit(rules.get('max_tokens'))}, energy "
        f"{_limit(rules.get('max_energy_j'), ' J')}. Thinking {'on' if rules.get('think') else 'off'}; protocol "
        f"{rules.get('protocol')}; guard {rules.get('guard')}; user of the sandboxes: "
        f"{rules.get('sandbox_user', 'root')}."
    )
    yield f"Energy: {_instruments(sweep)} Tokens, calls and steps are counted at the harness's own gateway."
    if replaced := list(_replaced(sweep.resolved.get("agents", {}))):
        yield "Replaced parts of frameworks: " + "; ".join(replaced) + "."
    if len(sweep.sessions) > 1:
        yield f"The sweep was run in {len(sweep.sessions)} sessions; the machine's state at each is in the store."


def _order(order: object) -> str:
    said = {"blocks": "random within blocks of one task and repetition, so that no agent or model goes with time"}
    return said.get(str(order), str(order))


def _seconds(value: object) -> str:
    return "none" if not value else f"{value:g} s" if isinstance(value, int | float) else str(value)


def _every(value: object) -> str:
    return f"every {value} runs" if value else "none"


def _idle(rules: Mapping[str, Any]) -> str:
    if not rules.get("idle_s"):
        return "not measured"
    return f"{rules['idle_s']:g} s, before the first run and every {rules.get('idle_every')} runs"


def _limit(value: object, unit: str = "") -> str:
    return "not limited" if value is None else f"{value}{unit}"


def _instruments(sweep: SweepRecord) -> str:
    parts: dict[str, str] = {}
    for session in sweep.sessions:
        for source, units in (session["sources"].get("parts") or {}).items():
            kinds = sorted({f"{unit.get('component')} {unit.get('kind')}" for unit in units})
            parts[source] = ", ".join(kinds)
    if not parts:
        return "no source was to be had."
    said = "; ".join(f"{source} ({what})" for source, what in parts.items())
    return f"{said}; gross of the agent stage unless said otherwise, net is gross less idle power times seconds."


def _replaced(agents: Mapping[str, Any]) -> Iterator[str]:
    for name, agent in agents.items():
        for what, why in (agent.get("overrides") or {}).items():
            yield f"{name}: {what} ({why})"


def _record(data: Data) -> Table:
    rows: list[list[Value]] = []
    for sweep in data.sweeps:
        for group in ("sampling", "rules"):
            for name, value in sweep.resolved.get(group, {}).items():
                rows.append([sweep.sweep_id, group, name, None if value is None else str(value)])
        for name, value in sweep.machine.items():
            rows.append([sweep.sweep_id, "machine", name, None if value is None else str(value)])
        for name, value in (sweep.sessions[-1]["conditions"] if sweep.sessions else {}).items():
            rows.append([sweep.sweep_id, "conditions", name, None if value is None else str(value)])
    return Table("record", "The record of the experiment.", ["sweep", "part", "name", "value"], rows, SWEEPS)


def limits(data: Data) -> Section:
    said = [
        "Tasks are a fixed set, not a random sample: intervals say how sure the figures are for tasks like these.",
        "Runs of one task are alike; intervals and tests are over tasks, never over runs.",
        "Loops are told by rules from the calls alone; their precision and recall on labelled runs stand in "
        "docs/loops.md.",
        "A resolved run passes the task's own tests; that is no proof that its patch is right.",
        "p-values are of one sweep; a difference that was looked for after the fact needs another.",
    ]
    kinds = {kind for cell in data.cells for kind, _ in cell.runs.energies}
    if "estimated" in kinds:
        said.append(
            "Some energies are estimated: calculated from load, not measured. Ranks tend to hold, joules do not."
        )
    if "estimated_constant" in kinds:
        said.append("Some energies are mostly a constant times seconds: they say nothing that the seconds do not.")
    if "unavailable" in kinds or not kinds:
        said.append("Of some runs no source told the energy.")
    if any(sweep.missing > 0 for sweep in data.sweeps):
        said.append("The sweep is unfinished: what is missing is not missing at random if it was stopped for a reason.")
    if any(cell.runs.resolved and not any(map(any, cell.runs.resolved.values())) for cell in data.with_models):
        said.append("Cells that resolved nothing have no energy per resolved task: that ratio is undefined.")
    if len({cell.model for cell in data.with_models}) == 1:
        said.append("One model alone: differences between frameworks may be others with another model.")
    return Section("limits", "Limits and threats", [Bullets(said)])
