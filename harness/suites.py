"""Suites and tasks: folders in Harbor's layout, read and checked before anything runs."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness import paths
from harness.errors import UserError, nearest
from harness.spec import expected

NETWORK_COMMANDS = re.compile(
    r"^[^#\n]*?\b(apt-get|apt install|pip3? install|uvx?|npm (?:install|ci)|wget"
    r"|curl\s[^\n]*?https?://(?!localhost|127\.)\S*)(?=\s|$)",
    re.MULTILINE,
)
EXPECTED = {"environment.workdir": 'an absolute path such as "/testbed"'}
COMPOSE = ("docker-compose.yaml", "docker-compose.yml", "compose.yaml", "compose.yml")


class _Open(BaseModel):
    """Harbor has more fields than a run needs; those that would change what a run means are refused below."""

    model_config = ConfigDict(extra="allow")


class _Verifier(_Open):
    timeout_sec: float = Field(default=600.0, gt=0, allow_inf_nan=False)
    env: dict[str, str] = {}


class _Environment(_Open):
    cpus: float | None = Field(default=None, ge=0.01, allow_inf_nan=False)
    memory_mb: int | None = Field(default=None, gt=0)
    storage_mb: int | None = Field(default=None, gt=0)
    workdir: str | None = Field(default=None, pattern=r"^/[^\n]+$")


class _Solution(_Open):
    env: dict[str, str] = {}


class _Toml(_Open):
    metadata: dict[str, Any] = {}
    agent: dict[str, Any] = {}
    verifier: _Verifier = _Verifier()
    environment: _Environment = _Environment()
    solution: _Solution = _Solution()


@dataclass(frozen=True)
class Task:
    """One issue to resolve. `folder` holds Harbor's layout."""

    suite: str
    name: str
    folder: Path
    instruction: str
    test_timeout_s: float
    test_env: dict[str, str]
    solution_env: dict[str, str]
    cpus: float | None
    memory_bytes: int | None
    storage_bytes: int | None
    workdir: str | None  # None: the image's own
    metadata: dict[str, Any]

    @property
    def tests(self) -> Path:
        return self.folder / "tests"

    @property
    def solution(self) -> Path:
        return self.folder / "solution"

    @property
    def environment(self) -> Path:
        return self.folder / "environment"


@dataclass(frozen=True)
class Suite:
    name: str
    folder: Path
    tasks: tuple[Task, ...]

    @property
    def hash(self) -> str:
        """A hash of every task's content, in order."""
        digest = hashlib.sha256()
        for task in self.tasks:
            digest.update(f"{task.name} {folder_hash(task.folder)}\n".encode())
        return digest.hexdigest()[:16]


def folder_hash(folder: Path) -> str:
    """A hash of the names and contents of all files below a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(folder)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def builtin_suites() -> list[str]:
    return sorted(folder.name for folder in paths.builtin("tasks").iterdir() if is_suite(folder))


def is_suite(folder: Path) -> bool:
    return folder.is_dir() and any((child / "task.toml").is_file() for child in folder.iterdir())


def load_suite(name: str) -> Suite:
    """A suite by name, or any folder of task folders by path.

    Raises UserError: unknown suite (nearest names), an empty folder, or the first task that is malformed.
    """
    known = builtin_suites()
    try:
        if name in known:
            return _load_folder(paths.builtin("tasks") / name)
        folder = Path(name).expanduser()
        if folder.is_dir():
            return _load_folder(folder.resolve())
        if folder.exists():
            raise UserError(f"{name!r} is a file: a suite is a folder of task folders (see tasks/README.md)")
    except OSError as error:
        raise UserError(f"{error.filename or name}: can't be read: {error.strerror}") from error
    except RuntimeError as error:  # the home of somebody who is not known
        raise UserError(f"{name!r}: {error}") from error
    raise UserError(f"unknown suite {name!r}: {nearest(name, known)} (or the path of a folder of task folders)")


def _load_folder(folder: Path) -> Suite:
    if (folder / "task.toml").is_file():
        return Suite(folder.parent.name, folder.parent, (load_task(folder, folder.parent.name),))
    if not is_suite(folder):
        raise UserError(f"{folder} holds no task: a task is a folder with a task.toml (see tasks/README.md)")
    tasks = [load_task(child, folder.name) for child in sorted(folder.iterdir()) if (child / "task.toml").is_file()]
    return Suite(folder.name, folder, tuple(tasks))


def choose(suite: Suite, names: Sequence[str], limit: int | None) -> Suite:
    """The named tasks of a suite (all when none is named), in its order, at most `limit`.

    Raises UserError for a name that the suite does not have.
    """
    known = {task.name for task in suite.tasks}
    for name in names:
        if name not in known:
            raise UserError(f"suite {suite.name} has no task {name!r}: {nearest(name, known)}")
    tasks = [task for task in suite.tasks if not names or task.name in names]
    return Suite(suite.name, suite.folder, tuple(tasks[:limit]))


def load_task(folder: Path, suite: str) -> Task:
    """Read one task folder. Raises UserError that names file, field and what was expected."""
    file = folder / "task.toml"
    if not folder.name.isprintable():
        raise UserError(f"{str(folder)!r}: a task's folder is its name in tables and files: rename it")
    try:
        raw = tomllib.loads(_text(file))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file}: not valid TOML: {error}") from error
    try:
        toml = _Toml.model_validate(raw)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"])
        what = EXPECTED.get(field) or expected(problem)
        raise UserError(f"{file}: {field}: expected {what}, found {problem['input']!r}") from error
    for needed in ("instruction.md", "tests/test.sh", "solution/solve.sh", "environment/Dockerfile"):
        if not (folder / needed).is_file():
            raise UserError(f"{folder}: {needed} is missing (see tasks/README.md for the layout)")
    instruction = _text(folder / "instruction.md")
    if not instruction.strip():
        raise UserError(f"{folder / 'instruction.md'}: expected the issue to resolve, found nothing")
    _refuse(folder, raw)
    mb = 1 << 20
    environment = toml.environment
    return Task(
        suite=suite,
        name=folder.name,
        folder=folder,
        instruction=instruction,
        test_timeout_s=toml.verifier.timeout_sec,
        test_env=toml.verifier.env,
        solution_env=toml.solution.env,
        cpus=environment.cpus,
        memory_bytes=environment.memory_mb * mb if environment.memory_mb else None,
        storage_bytes=environment.storage_mb * mb if environment.storage_mb else None,
        workdir=environment.workdir,
        metadata=toml.metadata,
    )


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: expected UTF-8, found another encoding at byte {error.start}") from error


def _refuse(folder: Path, raw: dict[str, Any]) -> None:
    """Refuse, by name, what a run of ours can't honour."""

    def refuse(what: str, why: str) -> None:
        raise UserError(f"{folder}: {what} is not supported: {why}")

    for name in COMPOSE:
        if (folder / "environment" / name).exists():
            refuse(f"a compose file (environment/{name})", "a run has one container")
    if raw.get("steps") or (folder / "steps").is_dir():
        refuse("a task of several steps", "a run has one instruction and one verdict")
    environment, verifier = raw.get("environment", {}), raw.get("verifier", {})
    for table, name in (
        (environment, "environment"),
        (verifier, "verifier"),
        (raw.get("agent", {}), "agent"),
    ):
        if table.get("allow_internet") or table.get("network_mode") in ("public", "allowlist"):
            refuse(f"network access ([{name}])", "sandbox and grading have none")
    for field in ("memory", "storage"):
        if field in environment:
            refuse(f"environment.{field}", f"write environment.{field}_mb, in MB")
    for field in ("healthcheck", "mcp_servers", "gpus", "tpu"):
        if environment.get(field):
            refuse(f"environment.{field}", "the sandbox is one plain container")
    if verifier.get("environment") or verifier.get("collect"):
        refuse("a verifier environment of its own", "grading uses the task's image")
    if raw.get("artifacts"):
        refuse("state outside the work directory (artifacts)", "only the work directory's difference is graded")
    for name, table in (("agent", raw.get("agent", {})), ("verifier", verifier)):
        if table.get("user") not in (None, "root", 0, "0"):
            refuse(f"{name}.user", "the container's root runs everything")
    found = NETWORK_COMMANDS.search((folder / "tests" / "test.sh").read_text(encoding="utf-8", errors="replace"))
    if found:
        refuse(
            f"network in tests ({found[1].strip()!r} in tests/test.sh)",
            "install it in the Dockerfile instead",
        )
