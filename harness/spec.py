"""What a sweep is: every flag of `harness sweep`, as a file and as a value.

A TOML file holds the same names with underscores; what is given on the command line wins.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from harness.errors import UserError, nearest


class Spec(BaseModel):
    """The rules of an experiment. None means "decided when the sweep is resolved"; what it came to is stored."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    agents: Annotated[list[str], Field(min_length=1)]
    """Names, paths of agent folders, or "all" (every usable framework)."""
    models: list[str] = []
    """[engine/]name; needed as soon as one agent calls a model."""
    tasks: str = "smoke"
    """A suite's name, or the path of a folder of task folders."""
    only: list[str] = []
    """Names of tasks; empty means all of the suite."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """At most this many tasks, in the suite's order."""
    repeats: Annotated[int, Field(ge=1)] = 1
    seed: Annotated[int, Field(ge=0)] = 0
    """Every random choice follows from it: the order of the runs, the seed of each call."""
    order: Literal["shuffled", "listed"] = "shuffled"
    """Order of the runs of one model. Models are never interleaved, for each change loads a model anew."""
    rest_s: Annotated[float, Field(ge=0)] = 0.0
    """Pause between runs, for the machine to cool down."""
    retries: Annotated[int, Field(ge=0)] = 1
    """Further tries of a run that ended by a fault that was not the agent's."""
    time_limit_s: Annotated[float, Field(gt=0)] = 1800.0
    """Of the agent stage."""
    max_calls: Annotated[int, Field(ge=1)] = 50
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Input and output together."""
    num_ctx: Annotated[int, Field(ge=256)] | None = None
    """Window in tokens. Unset: 16,384, or the model's own where that is smaller."""
    num_predict: Annotated[int, Field(ge=1)] = 2048
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Unset: 0.0, or 0.7 with repeats, since equal repeats would measure nothing."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Unset: not sent, or 0.95 with repeats."""
    think: bool = False
    protocol: Literal["auto", "text", "tools"] = "auto"
    """auto: tools where model and agent both have them, else text."""
    cpus: Annotated[float, Field(gt=0)] | None = None
    """Cores of a sandbox. Unset, as the two below: 2, 4,096 and 10,240, or what a task asks for beyond."""
    memory_mb: Annotated[int, Field(ge=64)] | None = None
    disk_mb: Annotated[int, Field(ge=16)] | None = None

    @field_validator("rest_s", "time_limit_s", "temperature", "top_p", "cpus", mode="before")
    @classmethod
    def _whole_numbers_are_numbers(cls, value: object) -> object:
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


DEFAULT_NUM_CTX = 16384


def read_spec(file: Path | None, flags: Mapping[str, Any]) -> Spec:
    """A spec file with the flags that were given laid over it.

    Raises UserError with file (or flag), field and what was expected.
    """
    content: dict[str, Any] = {}
    if file is not None:
        try:
            content = tomllib.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"there is no spec file {file}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise UserError(f"{file}: not a readable TOML file: {error}") from error
        for name in content:
            if name not in Spec.model_fields:
                raise UserError(f"{file}: {name}: no such field; {nearest(name, Spec.model_fields)}")
    merged = content | {name: value for name, value in flags.items() if value is not None}
    try:
        return Spec.model_validate(merged)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        flag = f"--{name.replace('_', '-')}"
        where = flag if flags.get(name) is not None or file is None else f"{file}: {name}"
        if first["type"] == "missing":
            raise UserError(f"{flag} is missing: name what should run, or give a --spec file") from error
        message = first["msg"][0].lower() + first["msg"][1:]
        raise UserError(f"{where}: {message}, got {first['input']!r}") from error
