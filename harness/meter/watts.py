"""Where the watts stand in what a meter says: a number, a JSON answer, a Prometheus text."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from harness.secrets import hidden

MOST_W = 100_000.0

_METRIC = re.compile(r"([A-Za-z_:][\w:]*)\s*(?:\{(.*)\})?\s*", re.ASCII | re.DOTALL)
_LABEL = re.compile(r'\s*([A-Za-z_]\w*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(,|$)', re.ASCII | re.DOTALL)


class BadReading(Exception):
    """What the meter said is no number of watts. The message is a short reason, `answered` what it said beside that."""

    def __init__(self, reason: str, answered: str = "") -> None:
        super().__init__(hidden(reason))
        self.answered = hidden(answered)


def watts_of(text: str) -> float:
    """A number of watts. Raises BadReading."""
    text = text.strip()
    try:
        if not text.isascii() or "_" in text:  # Python's own liberties
            raise ValueError
        watts = float(text)
    except ValueError:
        raise BadReading(f"not a number: {text[:40]!r}") from None
    if not math.isfinite(watts):
        raise BadReading(f"not a finite number: {text[:40]}")
    if watts < 0:
        raise BadReading(f"negative: {text[:40]}")
    if watts > MOST_W:
        raise BadReading(f"more than {MOST_W:g} W, is it in watts? {text[:40]}")
    return watts


def find_watts(body: str, where: str) -> str:
    """What stands for the watts in an answer, as text. Raises BadReading."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return _in_prometheus(body, where) if where else body
    return _in_json(content, where) if where else _only_number(content)


def _in_json(content: Any, where: str) -> str:
    for step in where.split("."):
        try:
            if isinstance(content, list) and not step.isdecimal():
                raise KeyError(step)
            content = content[int(step)] if isinstance(content, list) else content[step]
        except (KeyError, IndexError, ValueError, TypeError):
            raise BadReading(f"the answer has no {where} (at {step!r})") from None
    if isinstance(content, bool) or not isinstance(content, int | float | str):
        raise BadReading(f"not a number at {where}: {json.dumps(content)[:40]}")
    return str(content)


def _only_number(content: Any) -> str:
    numbers: list[float] = []
    rest = [content]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            rest += value.values()
        elif isinstance(value, list):
            rest += value
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers.append(value)
    if len(numbers) != 1:
        found = len(numbers) or "no"
        raise BadReading(f"not a number at the top: the answer has {found} numbers, name one with #path")
    return str(numbers[0])


def metric(where: str) -> tuple[str, dict[str, str]]:
    """A metric's name and labels, of a selector as PromQL has it. Raises BadReading."""
    bad = BadReading(f'{where!r} is no metric: write name or name{{label="value"}}')
    match = _METRIC.fullmatch(where)
    if match is None:
        raise bad
    labels: dict[str, str] = {}
    text = (match[2] or "").strip()
    while text:
        label = _LABEL.match(text)
        if label is None or label[1] in labels:
            raise bad  # never a condition that is left out: another sample would pass for the one that was meant
        labels[label[1]] = re.sub(r"\\(.)", lambda escaped: "\n" if escaped[1] == "n" else escaped[1], label[2])
        text = text[label.end() :]
    return match[1], labels


def _in_prometheus(body: str, where: str) -> str:
    try:
        from prometheus_client.parser import text_string_to_metric_families
    except ImportError:
        raise BadReading(
            "a Prometheus text can't be read without prometheus-client (pip install 'agent-energy-harness[energy]')"
        ) from None
    name, labels = metric(where)
    # An exporter may tell thousands of samples, and to parse them all every second would be load on what is measured.
    told = re.compile(rf"\s*(?:#\s*TYPE\s+)?{re.escape(name)}(?![\w:])")
    lines = [line for line in body.split("\n") if told.match(line)]
    try:
        families = list(text_string_to_metric_families("\n".join(lines) + "\n"))
    except ValueError as error:
        raise BadReading(f"neither JSON nor Prometheus text: {error}") from None
    if any(family.type == "counter" for family in families):
        raise BadReading(f"{name} is a counter, and power is none: name a gauge of watts")
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    # As in PromQL, an empty value is a label that is not there.
    fitting = [sample for sample in samples if all(sample.labels.get(key, "") == labels[key] for key in labels)]
    if not fitting:
        raise BadReading(f"the answer has no samples of {where}")
    if len(fitting) > 1:
        raise BadReading(f"the answer has {len(fitting)} samples of {where}: name one by its labels")
    return str(fitting[0].value)
