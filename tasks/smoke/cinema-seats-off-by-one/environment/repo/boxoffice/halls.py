"""The halls, and which of their seats are taken."""

import json
from pathlib import Path

HALLS_FILE = Path(__file__).resolve().parent.parent / "data" / "halls.json"


class AlreadyBooked(ValueError):
    """Somebody else has this seat."""


class Hall:
    def __init__(self, name, rows):
        self.name = name
        self.seats_in_row = dict(rows)
        self._taken = set()

    @property
    def rows(self):
        """The row letters, front to back."""
        return list(self.seats_in_row)

    def book(self, row, numbers):
        """Take these seats, all of them or none."""
        wanted = {(row, number) for number in numbers}
        for _, number in wanted:
            if not 1 <= number <= self.seats_in_row[row]:
                raise ValueError(f"row {row} has no seat {number}")
        if wanted & self._taken:
            raise AlreadyBooked(f"row {row}: {sorted(n for _, n in wanted & self._taken)}")
        self._taken |= wanted

    def is_free(self, row, number):
        return (row, number) not in self._taken


def load_hall(name, path=HALLS_FILE):
    halls = json.loads(Path(path).read_text(encoding="utf-8"))
    return Hall(name, halls[name]["rows"])
