"""What a check of the doctor is made of: what it is asked, what it finds, how it fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import docker

from harness.errors import HarnessError, MachineError
from harness.sandbox.daemon import DockerFault, connect

State = Literal["ok", "look", "missing"]
DOCKER_S = 5.0  # for an answer; the other checks do not wait again


@dataclass(frozen=True)
class Finding:
    """`mend` is a command, empty where none is needed or known; `fixed` says what --fix has done."""

    check: str
    state: State
    found: str
    why: str
    mend: str = ""
    fixed: str = ""


class Trouble(Exception):
    """A check failed. `fix` mends it safely, returning what it did."""

    def __init__(self, found: str, mend: str = "", fix: Callable[[], str] | None = None) -> None:
        super().__init__(found)
        self.found, self.mend, self.fix = found, mend, fix


@dataclass(frozen=True)
class Check:
    name: str
    why: str
    needed: bool
    look: Callable[[Place], str]
    """What was found. Raises Trouble, or any HarnessError."""
    mend: str = ""
    """The command, where what it raised names none."""


@dataclass(frozen=True)
class Place:
    """What is looked at."""

    database: Path
    runs_dir: Path
    suite: str

    @cached_property
    def reached(self) -> docker.DockerClient | HarnessError:
        """Docker, or why there is none: asked once."""
        try:
            return connect(DOCKER_S)
        except HarnessError as error:
            return error

    @property
    def client(self) -> docker.DockerClient:
        if isinstance(self.reached, HarnessError):
            raise MachineError("unknown, since Docker does not answer")
        return self.reached


def look_at(check: Check, place: Place) -> tuple[Finding, Callable[[], str] | None]:
    failed: State = "missing" if check.needed else "look"
    try:
        return Finding(check.name, "ok", check.look(place), check.why), None
    except Trouble as trouble:
        return Finding(check.name, failed, trouble.found, check.why, trouble.mend or check.mend), trouble.fix
    except HarnessError as error:
        return Finding(check.name, failed, str(error), check.why, check.mend), None
    except DockerFault as error:
        return Finding(check.name, failed, f"Docker said: {error}", check.why), None
