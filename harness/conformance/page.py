"""An agent's record for people, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from harness.agent_record import ModelRow, Record


def page(record: Record) -> str:
    pin = record.pin
    commit = f", commit `{pin.commit}`" if pin.commit else ""
    good = sum(not row.problems for row in record.scenarios)
    lines = [
        f"# {record.agent} {pin.version}: what was tried",
        "",
        "Written by `harness agents check --record` and `harness agents record`; not to be edited.",
        "",
        f"Version {pin.version}{commit}; lock `{pin.lock}`, runner `{pin.runner}`; Python {record.python or 'none'}; "
        f"harness {record.harness_version}.",
        "",
        "## Against a scripted model",
        "",
        f"On {record.scenarios_on}, {record.machine}: {good} of {len(record.scenarios)} scenarios came out as they "
        "should.",
        "",
        "| scenario | protocol | ended by | its own word | verdict | calls | seconds | |",
        "|---|---|---|---|---|---:|---:|---|",
        *(
            f"| {row.scenario}: {row.shows} | {row.protocol or '–'} | {row.ended_by} | {_cell(row.says)} | "
            f"{row.verdict} | {_cell(row.calls)} | {row.agent_s:.1f} | "
            f"{_cell('; '.join(row.problems) or 'as it should be')} |"
            for row in record.scenarios
        ),
    ]
    if record.not_tried:
        lines += ["", "Not tried: " + "; ".join(record.not_tried) + "."]
    lines += ["", "## With real models", ""]
    when = f"Put here on {record.models_on}; {record.models_machine}."
    lines += [when if record.models else "No run is on record.", ""]
    for (engine, version, model, suite, protocol, num_ctx), rows in _grouped(record.models).items():
        valid = [row for row in rows if row.counts]
        resolved = sum(row.verdict == "resolved" for row in valid)
        lines += [
            f"### {model} on {engine}{' ' + version if version else ''}, {protocol}, window {num_ctx:,}, suite {suite}",
            "",
            f"{len(rows)} runs, {len(valid)} of them valid, {resolved} resolved. Means over valid runs with a known "
            f"value: {_mean([row.calls for row in valid])} calls, {_mean([row.input_tokens for row in valid])} tokens "
            f"in, {_mean([row.output_tokens for row in valid])} out, {_mean([row.agent_s for row in valid])} s.",
            "",
            "| task | image | ended by | its own word | verdict | calls | tokens in | out | seconds | first request |",
            "|---|---|---|---|---|---:|---:|---:|---:|---:|",
            *(
                f"| {row.task} | {row.image_source} | {row.ended_by} | {_cell(row.says)} | {row.verdict} | "
                f"{row.calls} | {_cell(row.input_tokens)} | {_cell(row.output_tokens)} | {row.agent_s:.1f} | "
                f"{_cell(row.first_request_tokens)} |"
                for row in rows
            ),
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


Group = tuple[str, str | None, str, str, str, int]


def _grouped(rows: Sequence[ModelRow]) -> dict[Group, list[ModelRow]]:
    """Rows that may be averaged together."""
    groups: dict[Group, list[ModelRow]] = {}
    for row in rows:
        key = (row.engine, row.engine_version, row.model, row.suite, row.protocol, row.num_ctx)
        groups.setdefault(key, []).append(row)
    return groups


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{fmean(known):,.1f} (n = {len(known)})" if known else "unknown"


def _cell(value: object) -> str:
    """A cell of a Markdown table; unknown is a dash."""
    return "–" if value is None else str(value)[:120].replace("|", "\\|").replace("\n", " ")
