"""Images of SWE-bench instances as their authors publish them: found here, or pulled beforehand."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import docker
import requests
import urllib3
from docker.errors import APIError, DockerException, ImageNotFound
from rich.filesize import decimal

from harness.errors import MachineError, UserError
from harness.images.registry import Sizes, address
from harness.sandbox.daemon import root_folder
from harness.suites.swebench import SweBenchTask

ARCHITECTURES = {"amd64": "x86_64", "arm64": "arm64"}

NO_REGISTRY = re.compile(r"dial tcp|proxyconnect|while waiting for connection|x509:")
NO_IMAGE = re.compile(r"not found|manifest unknown|pull access denied|unauthorized", re.IGNORECASE)
NO_MORE = re.compile(r"toomanyrequests|too many requests|rate limit", re.IGNORECASE)
NO_FIT = re.compile(r"no matching manifest|does not match the specified platform")

Progress = Callable[[str, int, int | None], None]  # what is done, bytes so far, bytes of the layers that are known


class Stopped(MachineError):
    """No image can be pulled from here on: Docker has gone away, or the registry can't be reached."""


class NoRegistry(Stopped):
    """The registry can't be reached at all."""


@dataclass(frozen=True)
class Pulled:
    """A published image that is here."""

    image: str  # id
    digest: str | None  # the registry's; None for one that was loaded from a file
    size_bytes: int  # unpacked; layers that images share count in each


def image_name(task: SweBenchTask, architecture: str) -> str:
    """The name of a task's published image for an architecture as Docker calls it."""
    arch = ARCHITECTURES.get(architecture, architecture)
    name = task.published_image.replace("{arch}", arch).replace("{id}", task.name.replace("__", "_1776_").lower())
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def find(client: docker.DockerClient, task: SweBenchTask) -> Pulled | None:
    """The published image of a task, if it is here.

    Raises UserError for one of another architecture, and for a name that Docker does not take.
    """
    architecture = str(client.version()["Arch"])
    name = image_name(task, architecture)
    try:
        image = client.images.get(name)
    except ImageNotFound:
        return None
    except APIError as error:
        if error.status_code != 400:
            raise
        raise UserError(
            f"{task.name}: its image's name {name!r} is none that Docker takes: {error.explanation}"
        ) from error
    if image.attrs["Architecture"] != architecture:
        raise UserError(
            f"the image {name} is for {image.attrs['Architecture']}, and Docker runs on {architecture} here: "
            f"remove it (docker rmi {name}) and pull the right one, or build it with `harness tasks build`"
        )
    # An image that has several names has a digest for each.
    digests = dict(digest.split("@", 1) for digest in image.attrs.get("RepoDigests") or [])
    digest = digests.get(re.split(r"@|:[^:/]*$", name)[0]) or next(iter(digests.values()), None)
    return Pulled(str(image.id), digest, int(image.attrs["Size"]))


def refuse_leaky(architecture: str, leaky_arm64: bool, suite: str) -> None:
    """Raises UserError on arm64, unless the user wants the images as they are."""
    if architecture == "arm64" and not leaky_arm64:
        raise UserError(
            "the published images for arm64 were made before SWE-bench took later commits out of them (its issue 465), "
            "so an agent may read the fix in what their layers still hold: build the images here with "
            f"`harness tasks build {suite}`, or pull them all the same with --leaky-arm64"
        )


def check_space(client: docker.DockerClient, sizes: Sizes) -> None:
    """Raises MachineError when Docker's disk, if it can be seen from here, has no room for what will be pulled."""
    root = root_folder(client)
    if root is None:
        return
    free = shutil.disk_usage(root).free
    if sizes.disk_bytes is not None and free < sizes.disk_bytes:
        raise MachineError(
            f"the images take about {decimal(sizes.disk_bytes)} of disk (an estimate), and {root} has {decimal(free)} "
            "free: nothing was pulled; make room there, or pull fewer with --only or --limit"
        )


def pull(
    client: docker.DockerClient,
    task: SweBenchTask,
    architecture: str,
    layers: Mapping[str, int],
    progress: Progress | None = None,
) -> Pulled:
    """Pull a task's published image. `layers` are its sizes as far as they are known; Docker tells the others.

    Raises MachineError when it can't be pulled, Stopped when no other can either, UserError for an image of another
    architecture. Of an image that breaks off Docker keeps nothing.
    """
    name = image_name(task, architecture)
    known = _Layers(layers)
    try:
        for event in client.api.pull(name, stream=True, decode=True):
            if "error" in event:
                raise _fault(name, str(event["error"]))
            now = known.note(event)
            if progress is not None:
                progress(now, sum(known.done.values()), sum(known.total.values()) or None)
        pulled = find(client, task)
    except APIError as error:
        raise _fault(name, str(error.explanation or error)) from error
    except DockerException as error:
        raise MachineError(f"{name} can't be pulled: {_line(str(error))}") from error
    except (urllib3.exceptions.HTTPError, requests.exceptions.RequestException) as error:
        raise Stopped(f"Docker no longer answers: {_line(str(error))}") from error
    if pulled is None:
        raise MachineError(f"{name} was pulled, and Docker does not have it: was it removed at the same time?")
    return pulled


class _Layers:
    """How far a pull is, from what Docker says of each layer."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.total = {digest.partition(":")[2][:12]: size for digest, size in sizes.items()}
        self.done: dict[str, int] = {}

    def note(self, event: Mapping[str, Any]) -> str:
        """Take up what Docker says; returns what it is doing."""
        layer, status = str(event.get("id", "")), str(event.get("status", ""))
        detail = event.get("progressDetail") or {}
        if status == "Already exists":
            self.total.pop(layer, None)
        elif status == "Downloading" and "current" in detail:
            if detail.get("total", 0) > 0:
                self.total[layer] = detail["total"]
            self.done[layer] = detail["current"]
        elif status in ("Download complete", "Extracting", "Pull complete") and layer in self.total:
            self.done[layer] = self.total[layer]
        return "unpacking" if status == "Extracting" else "downloading"


def _fault(name: str, said: str) -> MachineError:
    """What Docker said of an image that it can't pull, as a sentence."""
    line, host = _line(said), address(name).host
    if NO_REGISTRY.search(line):
        return NoRegistry(f"the registry {host} can't be reached (Docker said: {line})")
    if NO_MORE.search(line):
        return MachineError(
            f"{name} can't be pulled: the registry {host} allows no more pulls for now; wait (Docker Hub counts over "
            "six hours) or `docker login`, then run the same again"
        )
    if NO_FIT.search(line):
        return MachineError(f"{name} can't be pulled: the registry {host} has none for this machine's architecture")
    if NO_IMAGE.search(line):
        return MachineError(f"{name} can't be pulled: the registry {host} does not have it, or not for everybody")
    return MachineError(f"{name} can't be pulled: Docker said: {line}")


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
