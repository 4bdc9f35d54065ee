"""The teams of an evening."""

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Team:
    name: str
    points: int
    finished: int  # minutes after the start


def load(path):
    with open(path, encoding="utf-8") as file:
        return [Team(entry["name"], entry["points"], entry["finished"]) for entry in json.load(file)]
