"""Agents as folders: what an `agent.toml` may say, and where such folders are found.

The harness never imports an agent. It reads the manifest, copies the folder into the sandbox and starts the
runner there; agents/README.md is the contract.
"""

from __future__ import annotations

import importlib.util
import os
import re
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from harness import paths
from harness.errors import UserError, nearest

MANIFEST = "agent.toml"
LOCK = "requirements.lock"

PLAYS, RECORD, RECORD_PAGE = "plays", "conformance.json", "CONFORMANCE.md"
NOT_THE_AGENT = (PLAYS, RECORD, RECORD_PAGE)
"""What lies in an agent's folder about it. It goes into no sandbox, and changes of it make no other agent."""

INDEX_OPTIONS = ("--index-url", "--extra-index-url", "--find-links", "--only-binary", "--no-binary")
"""Lines of a lock file that say where packages are from, and bring none."""
STRONG_HASH = re.compile(r"\s--hash=sha(256|384|512):[0-9a-f]+")
HOW_TO_LOCK = f"write the file with `uv pip compile --generate-hashes --universal requirements.in -o {LOCK}`"

PYTHON_RANGE = re.compile(r">=\s*3\.(\d+)(?:\s*,\s*<\s*3\.(\d+))?")


def _agent_name(text: str) -> str:
    # "all" and "none" mean something else on the command line.
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,60}", text) or text in ("all", "none"):
        raise ValueError
    return text


def _matching(pattern: str) -> AfterValidator:
    """All of the text has to match."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError
        return text

    return AfterValidator(check)


def _python_range(text: str) -> str:
    found = PYTHON_RANGE.fullmatch(text)
    if not found or (found[2] and int(found[1]) >= int(found[2])):
        raise ValueError
    return text


Line = Annotated[str, Field(min_length=1, pattern=r"^[^\n]*$")]
FileName = Annotated[str, _matching(r"\w[\w.-]*")]
# A dash in front would be an option to git.
GitAddress = Annotated[str, _matching(r"\w[^\s\x00-\x1f\x7f]{0,500}")]
Commit = Annotated[str, _matching(r"[0-9a-f]{40}")]


def _inner_path(text: str) -> str:
    if not re.fullmatch(r"\w[\w./-]*", text) or ".." in text:
        raise ValueError
    return text


class Source(BaseModel):
    """A framework that is published in git alone. It is installed as a checkout at one commit."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    repository: GitAddress
    """For git, whose own settings (`url.….insteadOf`) may lead to a mirror."""
    commit: Commit
    paths: Annotated[list[Annotated[str, AfterValidator(_inner_path)]], Field(min_length=1)]
    """The files and folders that it needs: repositories hold results and films as well."""

    @property
    def name(self) -> str:
        """The repository's name with its owner's, for people and for the cache."""
        return "/".join(self.repository.removesuffix(".git").rstrip("/").split("/")[-2:])


class Manifest(BaseModel):
    """The fields of an `agent.toml`; any other is refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: Annotated[str, AfterValidator(_agent_name)]
    """The word for it on the command line and in the database."""
    group: Literal["framework", "control", "example"]
    """`--agents all` means every framework."""
    summary: Line
    version: Line
    """Of the framework, pinned; for an agent of one's own, its own."""
    upstream: Line | None = None
    """Where the framework comes from: an address, or a package's name."""
    licence: Line | None = None
    python: Annotated[str, AfterValidator(_python_range)] = ">=3.11"
    """The Python versions that it runs on, by minor version."""
    requirements: FileName | None = None
    """The lock file with hashes. Not given: `requirements.lock` if the folder has one, else no packages."""
    source: Source | None = None
    """For a framework that no package index has; its packages are in the lock file all the same."""
    protocols: Annotated[list[Literal["text", "tools"]], Field(min_length=1)] = ["text"]
    non_root: bool = False
    """Whether it works as a user who is not root: `harness agents check` then tries that too."""
    calls_model: bool = True
    """False for an agent that needs neither model nor gateway."""
    runner: FileName = "run.py"
    behaviour: dict[Literal["format_errors", "loops", "timeouts"], Line] = {}
    """Its own rules, as its source has them at this version."""
    weaknesses: list[Line] = []
    """What a reader of its results should know."""
    overrides: dict[str, Line] = {}
    """What the adapter changes in the framework, each with the reason. Empty: it runs unmodified."""


EXPECTED = {
    "name": 'lower-case letters, digits, ".", "_" and "-" (a letter or digit first), and neither "all" nor "none"',
    "group": '"framework", "control" or "example"',
    "python": 'a range such as ">=3.12,<3.14"',
    "source": 'a table with "repository", "commit" and "paths"',
    "source.repository": "the address of a git repository",
    "source.paths": "a list of files and folders of the repository",
    "source.commit": "a commit's 40 hexadecimal digits",
    "protocols": 'a list of "text", "tools" or both',
    "non_root": "true or false",
    "calls_model": "true or false",
    "requirements": "the name of a file in the agent's folder",
    "runner": "the name of a file in the agent's folder",
    "weaknesses": "a list of sentences, each on one line",
    "behaviour": 'a table of "format_errors", "loops" and "timeouts", each a sentence on one line',
    "overrides": "a table of name = reason, each on one line",
}
"""What a field should hold. The fields that are not named here are a text on one line."""


def check_name(name: str) -> None:
    """Raises UserError for a name that no agent can have."""
    try:
        _agent_name(name)
    except ValueError:
        raise UserError(f"{name!r} can't be an agent's name: expected {EXPECTED['name']}") from None


@dataclass(frozen=True)
class Agent:
    """A usable agent: its manifest, its folder, and how it was found."""

    manifest: Manifest
    folder: Path  # absolute
    origin: str  # "built in", "path", "user folder" or "package X"

    @property
    def name(self) -> str:
        return self.manifest.name

    def named_in(self, names: Collection[str]) -> bool:
        """Whether the user asked for this very agent, and not only for "all"."""
        return self.origin == "path" or self.name in names

    @property
    def is_oracle(self) -> bool:
        """Whether it is given the solution: by being the folder that ships with the harness, never by what a
        manifest says."""
        return self.folder == (paths.builtin("agents") / "oracle").resolve()

    @property
    def lock(self) -> Path | None:
        """The lock file of its packages, or None when it has none."""
        lock = self.folder / (self.manifest.requirements or LOCK)
        return lock if lock.is_file() else None

    @property
    def needs_python(self) -> bool:
        """Whether it needs a bundle. An agent that calls a model does, were it only for the forwarder."""
        manifest = self.manifest
        return (
            manifest.calls_model
            or self.lock is not None
            or manifest.source is not None
            or manifest.runner.endswith(".py")
        )

    def command(self, folder: str, python: str | None) -> list[str]:
        """How to start the runner, when the agent's folder lies at `folder` and its Python at `python`.

        Scripts are started by their interpreter: an executable bit does not survive every
        way that a folder travels.
        """
        runner = str(PurePosixPath(folder) / self.manifest.runner)
        if runner.endswith(".py"):
            if python is None:
                raise ValueError(f"{self.name} needs a Python")
            return [python, runner]
        return ["sh", runner] if runner.endswith(".sh") else [runner]


@dataclass(frozen=True)
class Unusable:
    """An agent that was found but can't be used."""

    name: str  # of its folder, or of its entry point
    origin: str
    reason: str


def load_agent(folder: Path, origin: str = "path") -> Agent:
    """Read one agent's folder. Raises UserError: one sentence with file, field and what was expected."""
    folder = folder.resolve()
    file = folder / MANIFEST
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; an agent is a folder with an {MANIFEST}")
    if not file.is_file():  # a pipe would be waited for
        raise UserError(f"{folder}: has no {MANIFEST}, so it is not an agent")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: can't be read: {error}") from error
    try:
        manifest = Manifest.model_validate(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UserError(f"{file}: not valid TOML: {error}") from error
    except ValidationError as error:
        raise UserError(f"{file}: {_first_problem(error)}") from error

    if not (folder / manifest.runner).is_file():
        raise UserError(f"{file}: runner: there is no file {manifest.runner} in the folder")
    if not manifest.runner.endswith((".py", ".sh")) and not os.access(folder / manifest.runner, os.X_OK):
        raise UserError(f"{file}: runner: {manifest.runner} can't be executed: `chmod +x {folder / manifest.runner}`")
    if manifest.requirements and not (folder / manifest.requirements).is_file():
        raise UserError(f"{file}: requirements: there is no file {manifest.requirements} in the folder")
    agent = Agent(manifest, folder, origin)
    if agent.lock is None and (folder / "requirements.in").is_file():
        raise UserError(f"{folder}: requirements.in is not locked: {HOW_TO_LOCK}")
    if agent.lock:
        _check_hashes(agent.lock)
    return agent


def find_agents() -> tuple[list[Agent], list[Unusable]]:
    """Every agent that needs no path: built in, in the user's folder, announced by packages.

    Sorted by name. One that is broken does not hide the others.
    """
    agents: list[Agent] = []
    unusable: list[Unusable] = []
    for root, origin in ((paths.builtin("agents"), "built in"), (paths.config() / "agents", "user folder")):
        for file in root.glob(f"*/{MANIFEST}"):
            _add(file.parent, file.parent.name, origin, agents, unusable)
    for entry in metadata.entry_points(group="harness.agents"):
        origin = f"package {entry.dist.name}" if entry.dist else f"package {entry.module}"
        try:
            folder = _announced_folder(entry)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's module may raise anything
            reason = f"its entry point {entry.value} failed: {type(error).__name__}: {error}"
            unusable.append(Unusable(entry.name, origin, reason))
        else:
            _add(folder, entry.name, origin, agents, unusable)
    return sorted(agents, key=lambda agent: agent.name), sorted(unusable, key=lambda broken: broken.name)


def select_agents(names: Sequence[str]) -> tuple[list[Agent], list[Unusable]]:
    """The agents that a command line asks for, in its order, and what "all" had to leave out.

    A name with a slash is a path to a folder; "all" is every usable framework. Raises UserError for an
    unknown or broken one, and for two agents of one name, since results are filed under the name.
    """
    found, unusable = find_agents()
    chosen: list[Agent] = []
    for name in names:
        if os.sep in name or name in (".", ".."):
            try:
                chosen.append(load_agent(Path(name).expanduser()))
            except (OSError, RuntimeError) as error:  # a name that is too long; ~ of nobody
                raise UserError(f"{name[:80]!r} is no folder of an agent: {error}") from error
        elif name == "all":
            chosen += [agent for agent in found if agent.manifest.group == "framework"]
        elif matching := [agent for agent in found if agent.name == name]:
            chosen += matching
        elif broken := next((broken for broken in unusable if broken.name == name), None):
            raise UserError(f"agent {name} ({broken.origin}) can't be used: {broken.reason}")
        else:
            known = [agent.name for agent in found]
            raise UserError(f"unknown agent {name!r}: {nearest(name, known)} (a folder needs a slash: ./{name})")

    by_name: dict[str, Agent] = {}
    for agent in chosen:
        for other in [agent, *found]:
            first = by_name.setdefault(agent.name, agent)
            if other.name == agent.name and first.folder != other.folder:
                raise UserError(
                    f"two agents are named {agent.name}, {first.folder} ({first.origin}) and {other.folder} "
                    f"({other.origin}): rename one in its {MANIFEST}, since results are filed under the name"
                )
    return list(by_name.values()), unusable if "all" in names else []


def _add(folder: Path, name: str, origin: str, agents: list[Agent], unusable: list[Unusable]) -> None:
    try:
        agents.append(load_agent(folder, origin))
    except UserError as error:
        unusable.append(Unusable(name, origin, str(error)))


def _announced_folder(entry: metadata.EntryPoint) -> Path:
    """An entry point of the group `harness.agents` is a module beside its agent.toml, a path, or a function
    that returns a path. A module is only looked up: what lies beside a manifest may be the runner itself."""
    if not entry.attr:
        spec = importlib.util.find_spec(entry.module)
        if spec is None or spec.origin is None:
            raise ValueError(f"there is no module {entry.module} with a folder of its own")
        return Path(spec.origin).parent
    target = entry.load()
    return Path(target() if callable(target) else target)


def _first_problem(error: ValidationError) -> str:
    """The first of pydantic's complaints as "field: what was expected, what was found"."""
    problem = error.errors(include_url=False)[0]
    # Of a list, the list; of the table, its field.
    inside = len(problem["loc"]) > 1 and problem["loc"][0] == "source"
    field = ".".join(map(str, problem["loc"][: 2 if inside else 1]))
    known = [f"source.{name}" for name in Source.model_fields] if inside else list(Manifest.model_fields)
    if problem["type"] == "extra_forbidden":
        return f"{field}: no such field; {nearest(field, known)}"
    expected = EXPECTED.get(field, "a text on one line")
    if problem["type"] == "missing":
        return f"{field}: missing, expected {expected}"
    return f"{field}: expected {expected}, found {problem['input']!r}"


def _check_hashes(lock: Path) -> None:
    """Raises UserError for a requirement without a hash. uv would refuse it too, but half a build later."""
    try:
        text = lock.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{lock}: can't be read: {error}") from error
    logical_lines = text.replace("\\\n", " ").splitlines()
    for line in logical_lines:
        requirement = re.sub(r"(^|\s)#.*", "", line).strip()
        if not requirement or requirement.startswith(INDEX_OPTIONS):
            continue
        name = requirement.split()[0]
        if name.startswith("-"):
            raise UserError(
                f"{lock}: {name} names what has no hash: a lock file holds every requirement itself; {HOW_TO_LOCK}"
            )
        if not STRONG_HASH.search(requirement):
            raise UserError(f"{lock}: {name} has no hash; {HOW_TO_LOCK}")
