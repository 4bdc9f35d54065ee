"""The image that a task runs in. Nothing is fetched: what a sweep needs beforehand is said in a sentence."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import docker

from harness import paths
from harness.errors import MachineError, UserError
from harness.images import dockerfiles, published, rebuilt, recipes
from harness.images.bases import Say
from harness.images.prepare import Prepared, prepare
from harness.images.unrooted import unrooted
from harness.sandbox.daemon import DockerFault
from harness.spec import SandboxUser
from harness.suites import Suite, Task
from harness.suites.swebench import SweBenchTask

# What a published image's conda environment sets when it is activated, so that every shell has it.
CONDA = "/opt/miniconda3"
PUBLISHED_ENVIRONMENT = {"CONDA_DEFAULT_ENV": "testbed", "CONDA_PREFIX": f"{CONDA}/envs/testbed"}
PUBLISHED_PATH = f"{CONDA}/envs/testbed/bin:{CONDA}/condabin"


@dataclass(frozen=True)
class Located:
    """A task's image before its history is cut."""

    image: str  # id
    source: str  # dockerfile, published, rebuilt_from_archive or rebuilt_from_commit
    origin: str | None  # the published digest, or the archive or commit and the Python


def locate(client: docker.DockerClient, tasks: Sequence[Task], log_folder: Path, say: Say) -> dict[str, Located]:
    """The images of tasks by name. A task folder's Dockerfile is built now if need be.

    Raises UserError that names the commands when images of a data set's instances are not here.
    """
    located: dict[str, Located] = {}
    missing: list[SweBenchTask] = []
    try:
        for task in tasks:
            if isinstance(task, SweBenchTask):
                found = find(client, task)
                if found is None:
                    missing.append(task)
                else:
                    located[task.name] = found
                continue
            name = f"{task.suite}/{task.name}"
            image = dockerfiles.build(client, task.environment, name, log_folder / f"build-{name}.log", say)
            located[task.name] = Located(image, "dockerfile", None)
    except DockerFault as error:
        raise MachineError(f"the images can't be looked up: Docker said: {error}") from error
    if missing:
        raise UserError(_get_them(missing, len(tasks)))
    return located


def find(client: docker.DockerClient, task: SweBenchTask) -> Located | None:
    """The image of an instance that is here: the published one, else one made here."""
    pulled = published.find(client, task)
    if pulled is not None:
        return Located(pulled.image, "published", pulled.digest)
    made = rebuilt.find(client, task)
    if made is None:
        return None
    return Located(made.image, f"rebuilt_from_{made.source}", f"{made.origin}, Python {made.python}")


def leave_out_unbuildable(client: docker.DockerClient, suite: Suite, named: Collection[str]) -> Suite:
    """The suite without the instances that no release will do for and whose image is not here either.

    Where nothing can be pulled and there is no git server, they can't be had; anything else that is missing is an
    error of `locate`. Raises UserError when the user named such an instance.
    """
    known = recipes.read(suite.folder)
    reasons = {
        task.name: f"no image of it is here, and no release will do ({recipe.only_from_commit}): pull it, or build it "
        "from its commit (--from)"
        for task in suite.tasks
        if (recipe := known.get(task.name)) is not None
        and recipe.only_from_commit
        and isinstance(task, SweBenchTask)
        and find(client, task) is None
    }
    return suite.without(reasons, named)


def _get_them(missing: Sequence[SweBenchTask], count: int) -> str:
    """What to do about images that are not here; both commands skip those that are."""
    first = missing[0]
    which = first.name if len(missing) == 1 else f"{first.name} and {len(missing) - 1} more"
    builtin = paths.builtin("tasks") / first.suite
    suite = first.suite if builtin.is_dir() else f"FOLDER-OF-{first.suite}"
    build = f", else `harness tasks build {suite}`" if not builtin.is_dir() or recipes.read(builtin) else ""
    return (
        f"the images of {len(missing)} of {count} tasks are not here ({which}), and a sweep fetches none: "
        f"`harness tasks pull {suite}` where Docker Hub answers{build}"
    )


def prepare_all(
    client: docker.DockerClient, suite: Suite, log_folder: Path, say: Say, sandbox_user: SandboxUser = "root"
) -> dict[str, Prepared]:
    """The images of every task of a suite with its history cut, by the task's name."""
    located = locate(client, suite.tasks, log_folder, say)
    prepared = {task.name: prepare_one(client, task, located[task.name], say) for task in suite.tasks}
    if sandbox_user == "root":
        return prepared
    return {name: unrooted(client, each, f"{suite.name}/{name}", say) for name, each in prepared.items()}


def prepare_one(client: docker.DockerClient, task: Task, found: Located, say: Say) -> Prepared:
    """A task's image with its history cut, as it has to be for where it is from."""
    published = found.source == "published"
    return prepare(
        client, found.image, f"{task.suite}/{task.name}", task.workdir,
        say=say, source=found.source, origin=found.origin,
        everything=found.source.startswith("rebuilt"),
        environment=PUBLISHED_ENVIRONMENT if published else {},
        path=PUBLISHED_PATH if published else "",
    )  # fmt: skip
