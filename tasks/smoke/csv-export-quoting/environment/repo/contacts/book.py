"""The address book's own file."""

import json

from contacts import COLUMNS


def load(path):
    """A list of {column: text}; columns that a contact lacks are empty."""
    with open(path, encoding="utf-8") as file:
        entries = json.load(file)
    return [{column: entry.get(column, "") for column in COLUMNS} for entry in entries]


def save(path, people):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(people, file, ensure_ascii=False, indent=2)
        file.write("\n")
