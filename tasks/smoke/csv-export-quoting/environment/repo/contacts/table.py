"""Contacts as CSV text, and back."""

from contacts import COLUMNS


class BadTable(ValueError):
    """The text is not a table of contacts."""


def to_csv(people):
    rows = [",".join(COLUMNS)]
    for person in people:
        rows.append(",".join(person[column] for column in COLUMNS))
    return "\n".join(rows) + "\n"


def from_csv(text):
    """The contacts of a table; empty lines are skipped."""
    lines = text.split("\n")
    if tuple(lines[0].split(",")) != COLUMNS:
        raise BadTable(f"line 1: expected the columns {','.join(COLUMNS)}")
    people = []
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        values = line.split(",")
        if len(values) != len(COLUMNS):
            raise BadTable(f"line {number}: expected {len(COLUMNS)} values, found {len(values)}")
        people.append(dict(zip(COLUMNS, values)))
    return people
