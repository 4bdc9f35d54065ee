"""Figures of the parts of runs: joules of a phase, of a token, tokens a second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.analysis.figures import NO_RUN, Figure, Sample, mean_of, pool, unlike
from harness.analysis.metrics.runs import MeteredRun
from harness.analysis.metrics.whole import NO_IDLE

PHASES = ("load", "prefill", "decode", "between_calls", "tail")
NO_PHASES = "the energy was not recorded by phase"
NO_SUCH_PHASE = "no run has this phase"
ENGINE_AWAY = "the engine is on another machine, and its energy is not in this figure"


def _by_phase(run: MeteredRun, layer: str) -> Mapping[str, Mapping[str, Any]] | None:
    """The run's phases in a layer; None unless all are known, so that the parts of a mean add up to its whole."""
    gross = {phase: row for phase in PHASES if (row := run.row("total", "gross", phase))}
    rows = {phase: row for phase in PHASES if (row := run.row("total", layer, phase))}
    complete = bool(gross) and rows.keys() == gross.keys() and all(row["joules"] is not None for row in rows.values())
    return rows if complete else None


def _phase_sample(run: MeteredRun, phase: str, layer: str) -> Sample:
    rows = _by_phase(run, layer)
    if rows is None:
        gross = _by_phase(run, "gross")
        of_it = [run.row("total", layer, name) for name in PHASES]
        detail = next((row["detail"] for row in of_it if row and row["joules"] is None and row["detail"]), None)
        return run.sample_of({}, detail or (NO_PHASES if layer == "gross" or gross is None else NO_IDLE))
    if phase not in rows:
        return run.without_energy(0.0)  # no second of the stage was spent in it
    return run.sample_of(rows[phase], NO_PHASES)


def of_phase(kept: Sequence[MeteredRun], phase: str, layer: str) -> Figure:
    """Joules of one phase a run, in a layer; a run that never was in it counts as nothing."""
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


def per_token(kept: Sequence[MeteredRun], phase: str) -> Figure:
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


def tokens_s(kept: Sequence[MeteredRun], phase: str) -> Figure:
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
