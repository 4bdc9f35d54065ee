"""Which runs of a sweep a page is about: read from the URL, as SQL, and back into a URL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from sqlite_utils import Database

PAGE = 50  # runs
MODEL = "CASE WHEN runs.engine IN ('ollama', 'none') THEN runs.model ELSE runs.engine || '/' || runs.model END"
"""A model as it is named on the command line: harness.analysis.names.label."""

JOINED = {
    "outcome": " JOIN outcomes USING (ended_by, verdict)",
    "energy": " LEFT JOIN energy AS gross ON gross.run_id = runs.run_id AND gross.source = runs.energy_source"
    " AND gross.layer = 'gross' AND gross.phase = 'agent' AND gross.component = 'total'",
}
"""What an order needs beside the table of runs. Nothing is joined for conditions: over 100,000 runs that would take
longer than a page may."""

MOST_BY_ENERGY = 5_000  # runs that are put in the order of a figure that stands in another table

CHOICES: dict[str, str] = {
    "agent": "runs.agent",
    "model": MODEL,
    "task": "runs.task",
    "repetition": "runs.repetition",
    "ended_by": "runs.ended_by",
    "verdict": "runs.verdict",
    "guard": "runs.guard",
}
"""What can be chosen, by its name in the URL; beside it `outcome`, which follows from two columns."""

ORDERS: dict[str, str] = {
    "run": "runs.position",
    "task": "runs.task",
    "agent": "runs.agent",
    "model": MODEL,
    "rep": "runs.repetition",
    "outcome": "outcomes.outcome",
    "ended_by": "runs.ended_by",
    "calls": "runs.calls",
    "input_tokens": "runs.input_tokens",
    "output_tokens": "runs.output_tokens",
    "agent_s": "runs.agent_s",
    "energy": "gross.joules",
}
"""What a list can be in the order of, by its name in the URL; with a minus before it the other way round."""

FIGURES = frozenset({"calls", "input_tokens", "output_tokens", "agent_s", "energy"})
"""That may be unknown, and then come last either way."""


@dataclass(frozen=True)
class Filters:
    """What a URL asks for. Empty: no condition."""

    agent: str = ""
    model: str = ""
    task: str = ""
    repetition: str = ""
    outcome: str = ""
    ended_by: str = ""
    verdict: str = ""
    guard: str = ""
    q: str = ""
    sort: str = ""
    page: int = 1

    @property
    def order(self) -> str:
        return self.sort.removeprefix("-") or "run"

    @property
    def turned(self) -> bool:
        return self.sort.startswith("-")

    @property
    def narrowed(self) -> bool:
        """Whether it leaves runs out."""
        return any(getattr(self, name) for name in (*CHOICES, "outcome", "q"))

    def url(self, **changes: Any) -> str:
        """The query of a URL that asks for this with changes, "?" included; empty for what every page begins with."""
        fields = vars(self) | changes
        said = {name: value for name, value in fields.items() if value and (name, value) != ("page", 1)}
        return f"?{urlencode(said)}" if said else ""

    def sorted_by(self, name: str) -> str:
        """The URL of a click on a column's heading: in its order, or turned round where it is so already."""
        turned = self.order == name and not self.turned
        word = f"-{name}" if turned else name
        return self.url(sort="" if word == "run" else word, page=1)


def from_query(query: Mapping[str, str]) -> Filters:
    """The filters of a URL. What it names and there is not, is left out."""
    chosen = {name: query.get(name, "").strip() for name in (*CHOICES, "outcome", "q")}
    sort = query.get("sort", "")
    page = query.get("page", "1")
    return Filters(
        **chosen,
        sort=sort if sort.removeprefix("-") in ORDERS else "",
        page=min(max(int(page), 1), 1_000_000) if page.isascii() and page.isdigit() and len(page) < 8 else 1,
    )


def condition(sweep_id: str, filters: Filters) -> tuple[str, list[Any]]:
    """WHERE and its values."""
    parts, values = ["runs.sweep_id = ?"], [sweep_id]
    for name, column in CHOICES.items():
        if value := getattr(filters, name):
            parts.append(f"{column} = ?")
            values.append(value)
    if filters.outcome:
        parts.append("(runs.ended_by, runs.verdict) IN (SELECT ended_by, verdict FROM outcomes WHERE outcome = ?)")
        values.append(filters.outcome)
    for word in filters.q.split():
        pattern = "%" + word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        within = ("runs.task", "runs.run_id", "runs.ended_by", "runs.verdict")
        parts.append("(" + " OR ".join(f"{column} LIKE ? ESCAPE '\\'" for column in within) + ")")
        values += [pattern] * len(within)
    return "WHERE " + " AND ".join(parts), values


def count(db: Database, sweep_id: str, filters: Filters) -> int:
    where, values = condition(sweep_id, filters)
    return int(db.execute(f"SELECT COUNT(*) FROM runs {where}", values).fetchone()[0])


def in_order(filters: Filters, matching: int) -> Filters:
    """The same, in the order of the runs where so many can't be put into the one that it asks for."""
    return replace(filters, sort="") if filters.order == "energy" and matching > MOST_BY_ENERGY else filters


def rows(db: Database, sweep_id: str, filters: Filters) -> list[dict[str, Any]]:
    """The runs of one page of the list, as rows of `runs_summary` with `position`."""
    where, values = condition(sweep_id, filters)
    found = db.execute(
        f"SELECT runs.run_id, runs.position {_from(filters)} {where} ORDER BY {_order(filters)} LIMIT ? OFFSET ?",
        [*values, PAGE, (filters.page - 1) * PAGE],
    ).fetchall()
    marks = ",".join("?" * len(found))
    summaries = {
        row["run_id"]: row
        for row in db.query(f"SELECT * FROM runs_summary WHERE run_id IN ({marks})", [run_id for run_id, _ in found])
    }
    return [summaries[run_id] | {"position": position} for run_id, position in found]


def neighbours(db: Database, sweep_id: str, run_id: str, filters: Filters) -> tuple[str | None, str | None]:
    """The runs before and after one in the filtered list."""
    own = db.execute(
        f"SELECT {_value(filters)}, runs.position {_from(filters)} WHERE runs.run_id = ?", [run_id]
    ).fetchone()
    where, values = condition(sweep_id, filters)
    found: list[str | None] = []
    for backwards in (True, False):
        sign = "<" if backwards != filters.turned else ">"
        order = _order(filters, turned=backwards != filters.turned)
        place, beyond = f"({_value(filters)}, runs.position)", own
        if filters.order == "run":
            place, beyond = "runs.position", own[1:]
        row = db.execute(
            f"SELECT runs.run_id {_from(filters)} {where} AND {place} {sign} "
            f"({', '.join('?' * len(beyond))}) ORDER BY {order} LIMIT 1",
            [*values, *beyond],
        ).fetchone()
        found.append(row[0] if row else None)
    return found[0], found[1]


def _from(filters: Filters) -> str:
    return "FROM runs" + JOINED.get(filters.order, "")


def _value(filters: Filters) -> str:
    """What the list is in the order of. An unknown figure comes last, whichever way."""
    column = ORDERS[filters.order]
    if filters.order not in FIGURES:
        return column
    return f"IFNULL({column}, {'-1e300' if filters.turned else '1e300'})"


def _order(filters: Filters, turned: bool | None = None) -> str:
    way = "DESC" if (filters.turned if turned is None else turned) else "ASC"
    place = f"runs.position {way}"
    return place if filters.order == "run" else f"{_value(filters)} {way}, {place}"
