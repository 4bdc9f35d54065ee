"""What a sweep is: every flag of `harness sweep`, as a file and as a value.

A TOML file holds the same names with underscores, those of the experiment in a table `[experiment]`, those of energy in
`[energy]`; what is given on the command line wins.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.errors import UserError, nearest

MAX_INTEGER = 2**63 - 1  # what a column of the database holds

GuardMode = Literal["off", "observe", "nudge", "stop"]
SandboxUser = Literal["root", "agent"]
Name = Annotated[str, Field(min_length=1)]
Whole = Annotated[int, Field(le=MAX_INTEGER)]
Number = Annotated[float, Field(allow_inf_nan=False, le=1e9)]  # 30 years; more than that can't be waited for


class Spec(BaseModel):
    """The rules of an experiment. None means "decided when the sweep is resolved"; what it came to is stored."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    agents: Annotated[list[Name], Field(min_length=1)]
    """Names, paths of agent folders, or "all" (every usable framework)."""
    models: list[Name] = []
    """[engine/]name; needed as soon as one agent calls a model."""
    tasks: Name = "smoke"
    """A suite's name, or the path of a folder of task folders."""
    data: Name | None = None
    """A file of rows for a suite of a data set. Unset: HARNESS_DATA, else the hub or its cache."""
    only: list[Name] = []
    """Names of tasks; empty means all of the suite."""
    limit: Annotated[Whole, Field(ge=1)] | None = None
    """At most this many tasks, in the suite's order."""
    repeats: Annotated[Whole, Field(ge=1)] = 1
    seed: Annotated[Whole, Field(ge=0)] = 0
    """Every random choice follows from it: the order of the runs, the seed of each call."""
    order: Literal["blocks", "listed"] = "blocks"
    """blocks: a task in one repetition with all its agents and models, in random order. listed: as they were named."""
    warmup: Annotated[Whole, Field(ge=0)] = 0
    """Runs before the first that are made and not counted."""
    rest_s: Annotated[Number, Field(ge=0)] = 0.0
    """Pause between runs, for the machine to cool down."""
    rest_band_c: Annotated[Number, Field(gt=0)] | None = None
    """Rest until the processor is within so many degrees of idle, and power within a tenth."""
    control_every: Annotated[Whole, Field(ge=0)] = 0
    """A fixed control job before every so many runs; 0: none."""
    when_busy: Literal["warn", "wait", "refuse"] = "warn"
    """When other programs keep the machine busy."""
    idle_s: Annotated[Number, Field(ge=0)] | None = None
    """Of each measurement of idle power; 0: none. Unset: 60 where something measures energy, else 5."""
    idle_every: Annotated[Whole, Field(ge=0)] = 20
    """Idle power is measured again after so many runs; 0: only before the first."""
    engine_state: Literal["warm", "cold"] = "warm"
    """At the start of each run. warm: model loaded, prompt cache empty. cold: not loaded."""
    slots: Annotated[Whole, Field(ge=1, le=256)] = 1
    """Runs at the same time. Above 1 no run has an energy of its own."""
    require: Literal["measured"] | None = None
    """Refuse to start where no source measures energy."""
    meter: Name | None = None
    """An external meter: command:... or http://..."""
    meter_at: Literal["here", "engine"] = "here"
    """What the meter stands at: this machine, or that of a remote engine."""
    country: Annotated[str, Field(pattern="^[A-Z]{3}$")] | None = None
    """ISO 3166 code of three letters, for the grid's CO2."""
    memory_bandwidth_gb_s: Annotated[Number, Field(gt=0)] | None = None
    """Of the memory that the models lie in, for rates that are normalised by it."""
    retries: Annotated[Whole, Field(ge=0)] = 1
    """Further tries of a run that ended by a fault that was not the agent's."""
    time_limit_s: Annotated[Number, Field(gt=0)] = 1800.0
    """Of the agent stage."""
    max_calls: Annotated[Whole, Field(ge=1)] = 50
    max_tokens: Annotated[Whole, Field(ge=1)] | None = None
    """Input and output together."""
    num_ctx: Annotated[Whole, Field(ge=256)] | None = None
    """Window in tokens. Unset: 16,384, or the model's own where that is smaller."""
    num_predict: Annotated[Whole, Field(ge=1)] = 2048
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    """Unset: 0.0, or 0.7 with repeats, since equal repeats would measure nothing."""
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    """Unset: not sent, or 0.95 with repeats."""
    max_energy_j: Annotated[Number, Field(gt=0)] | None = None
    """Gross joules of the agent stage, by the source that the run's energy is told by."""
    guard: GuardMode = "off"
    """Against loops. observe: they are marked; nudge: the model is told, three times at most; stop: the run ends."""
    guard_patience: Annotated[Whole, Field(ge=1)] | None = None
    """Steps for which a guard that stops lets a loop go on. Unset: 20."""
    think: bool = False
    protocol: Literal["auto", "text", "tools"] = "auto"
    """auto: tools where model and agent both have them, else text."""
    door: Literal["auto", "socket", "relay"] = "auto"
    """The sandbox's way to its model: a socket that it shares with the harness, or a stream of Docker's own."""
    runtime: Name | None = None
    """Docker's name of what runs containers, as runsc; unset: Docker's default."""
    sandbox_user: SandboxUser = "root"
    """Whom agents run as. root: without capabilities, in what the image's root owns. agent: a user of its own."""
    cpus: Annotated[Number, Field(ge=0.01)] | None = None
    """Cores of a sandbox. Unset, as the two below: 2, 4,096 and 10,240, or what a task asks for beyond."""
    memory_mb: Annotated[int, Field(ge=64, le=1 << 30)] | None = None
    disk_mb: Annotated[int, Field(ge=16, le=1 << 30)] | None = None

    @property
    def patience(self) -> int | None:
        """That of a guard that stops; None for the others."""
        return (self.guard_patience or DEFAULT_GUARD_PATIENCE) if self.guard == "stop" else None


DEFAULT_NUM_CTX = 16384
DEFAULT_GUARD_PATIENCE = 20

FLAGS = {
    "rest_s": "--rest",
    "rest_band_c": "--rest-band",
    "idle_s": "--idle",
    "time_limit_s": "--time-limit",
    "max_energy_j": "--max-energy",
    "memory_bandwidth_gb_s": "--memory-bandwidth",
}
"""The flags that are not named as their field is."""


TABLES = {
    "experiment": (
        "repeats", "seed", "order", "warmup", "rest_s", "rest_band_c", "control_every", "when_busy", "idle_s",
        "idle_every", "engine_state", "slots",
    ),
    "energy": ("require", "meter", "meter_at", "country", "memory_bandwidth_gb_s"),
}  # fmt: skip
"""The tables of a spec file, and the fields that stand in them."""

_TABLE_OF = {field: table for table, fields in TABLES.items() for field in fields}


def flag_of(field: str) -> str:
    """The flag of `harness sweep` that sets a field."""
    return FLAGS.get(field, f"--{field.replace('_', '-')}")


def read_spec(file: Path | None, flags: Mapping[str, Any], stored: Mapping[str, Any] | None = None) -> Spec:
    """A spec file with the flags that were given laid over it. Without a file, what a sweep has stored stands for it.

    Raises UserError with file (or flag), field and what was expected.
    """
    content = dict(stored or {}) if file is None else _read(file)
    given = {name: value for name, value in flags.items() if value is not None}
    for name, value in given.items():
        if value == []:
            # An unset shell variable must not turn "these tasks" into "all tasks".
            raise UserError(f"{flag_of(name)} is empty: name at least one, or leave the flag out")
    try:
        return Spec.model_validate(content | given)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = str(problem["loc"][0])
        if problem["type"] == "missing":
            raise UserError(f"{flag_of(name)} is missing: name what should run, or give a --spec file") from error
        where = flag_of(name) if name in given else f"{file or 'the stored spec'}: {_place(name)}"
        raise UserError(f"{where}: expected {expected(problem)}, found {problem['input']!r}") from error


def absolute(spec: Spec) -> Spec:
    """The same spec with every path made absolute, so that it can be continued from another folder."""

    def path(text: str) -> str:
        return str(Path(text).expanduser().absolute())

    def model(text: str) -> str:
        engine, slash, rest = text.partition("/")
        is_file = engine == "scripted" or (engine == "llamacpp" and rest.endswith(".gguf"))
        return f"{engine}/{path(rest)}" if slash and is_file else text

    return spec.model_copy(
        update={
            "agents": [path(name) if os.sep in name or name in (".", "..") else name for name in spec.agents],
            "models": [model(name) for name in spec.models],
            "data": path(spec.data) if spec.data else None,
            "tasks": path(spec.tasks) if os.sep in spec.tasks or spec.tasks in (".", "..") else spec.tasks,
        }
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"there is no spec file {file}") from None
    except OSError as error:
        raise UserError(f"the spec file {file} can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not valid TOML: {error}") from error
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if name not in TABLES:
            flat[_known(file, name, None)] = value
            continue
        if not isinstance(value, dict):
            raise UserError(f"{file}: {name}: expected a table, found {value!r}")
        for inner, of_table in value.items():
            flat[_known(file, inner, name)] = of_table
    return flat


def _known(file: Path, name: str, table: str | None) -> str:
    """The name of a field that stands where it belongs. Raises UserError."""
    if name not in Spec.model_fields:
        where = f"[{table}] " if table else ""
        raise UserError(f"{file}: {where}{name!r}: no such field; {nearest(name, Spec.model_fields)}")
    if _TABLE_OF.get(name) != table:
        belongs = f"in the table [{_TABLE_OF[name]}]" if name in _TABLE_OF else "above all tables"
        raise UserError(f"{file}: {name} belongs {belongs}")
    return name


def _place(name: str) -> str:
    return f"[{_TABLE_OF[name]}] {name}" if name in _TABLE_OF else name


def shipped() -> dict[str, Path]:
    """The specs that come with the harness, by name."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "specs").glob("*.toml"))}


def find_spec(text: str) -> Path:
    """A spec file by its path, or by the name of one that comes with the harness. Raises UserError for neither."""
    path = Path(text)
    if path.suffix or os.sep in text or path.exists():
        return path
    known = shipped()
    if text not in known:
        raise UserError(f"--spec {text}: there is no such file, and no such spec comes with the harness; "
                        f"{nearest(text, known)}")  # fmt: skip
    return known[text]


def expected(problem: Mapping[str, Any]) -> str:
    """What a field should have held, from one of pydantic's complaints, in words a TOML file is written in."""
    limits = problem.get("ctx", {})
    match problem["type"].removesuffix("_type").removesuffix("_parsing"):
        case "list":
            return "a list"
        case "too_short":
            return "a list of at least one"
        case "string" | "string_unicode":
            return "a text"
        case "string_too_short":
            return "a text that is not empty"
        case "int" | "int_from_float" | "int_parsing_size":
            return "a whole number"
        case "float":
            return "a number"
        case "finite_number":
            return "a finite number"
        case "bool":
            return "true or false"
        case "dict" | "model":
            return "a table"
        case "greater_than":
            return f"more than {limits['gt']:g}"
        case "greater_than_equal":
            return f"{limits['ge']:g} or more"
        case "less_than_equal":
            most = limits["le"]
            return f"{most if isinstance(most, int) else format(most, 'g')} or less"
        case "extra_forbidden":
            return "no such field"
        case "string_pattern_mismatch":
            return f"a text that matches {limits['pattern']}"
        case "literal_error":
            return str(limits["expected"])
    return str(problem["msg"])
