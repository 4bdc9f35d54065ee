"""Task folders in Harbor's layout, read and checked before anything runs."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.errors import UserError
from harness.spec import expected
from harness.suites.base import CommonTask, TarEntry

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
class HarborTask(CommonTask):
    """A task folder. `metadata` is whatever its author wrote there."""

    folder: Path
    test_env: Mapping[str, str]

    @property
    def tests(self) -> Path:
        return self.folder / "tests"

    @property
    def environment(self) -> Path:
        return self.folder / "environment"

    @property
    def content_hash(self) -> str:
        return folder_hash(self.folder)

    def solution_files(self, folder: str) -> dict[str, TarEntry]:
        """What `oracle` is handed, to lie in `folder`."""
        return {folder: self.folder / "solution"}


NEEDED = ("instruction.md", "tests/test.sh", "solution/solve.sh", "environment/Dockerfile")
READ = ("task.toml", *NEEDED, "tests", "solution", "environment")


def folder_hash(folder: Path, without: Collection[str] = ()) -> str:
    """A hash of the names and contents of all files below a folder, but for what is named at its top."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if "__pycache__" in path.parts or inner.parts[0] in without:
            continue
        if path.is_symlink():
            digest.update(f"link {inner}\0{path.readlink()}\0".encode())
        elif path.is_file():
            digest.update(f"{inner}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def is_suite(folder: Path) -> bool:
    return folder.is_dir() and any((child / "task.toml").is_file() for child in folder.iterdir())


def load(folder: Path) -> tuple[HarborTask, ...]:
    """The tasks below a folder, or the one that it is. Raises UserError for the first that is malformed."""
    try:
        if (folder / "task.toml").is_file():
            return (load_task(folder, folder.parent.name),)
        if not is_suite(folder):
            raise UserError(f"{folder} holds no task: a task is a folder with a task.toml (see tasks/README.md)")
        found = [child for child in sorted(folder.iterdir()) if (child / "task.toml").is_file()]
        return tuple(load_task(child, folder.name) for child in found)
    except OSError as error:
        raise UserError(f"{error.filename or folder}: can't be read: {error.strerror}") from error


def load_task(folder: Path, suite: str) -> HarborTask:
    """Read one task folder. Raises UserError that names file, field and what was expected."""
    file = folder / "task.toml"
    if not folder.name.isprintable():
        raise UserError(f"{str(folder)!r}: a task's folder is its name in tables and files: rename it")
    for read in READ:
        if not (folder / read).resolve().is_relative_to(folder.resolve()):
            raise UserError(
                f"{folder}: {read} is a link that leads out of the task's folder: put the file itself there"
            )
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
    for needed in NEEDED:
        if not (folder / needed).is_file():
            raise UserError(f"{folder}: {needed} is missing (see tasks/README.md for the layout)")
    instruction = _text(folder / "instruction.md")
    if not instruction.strip():
        raise UserError(f"{folder / 'instruction.md'}: expected the issue to resolve, found nothing")
    _refuse(folder, raw)
    mb = 1 << 20
    environment = toml.environment
    return HarborTask(
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
