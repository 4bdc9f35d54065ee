"""Images of SWE-bench instances as their authors publish them: found here, or pulled beforehand.

Docker pulls; the registry itself is asked only how large the layers are, anonymously.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import docker
import httpx
import requests
import urllib3
from docker.errors import APIError, DockerException, ImageNotFound
from rich.filesize import decimal

from harness.errors import MachineError, UserError
from harness.suites.swebench import SweBenchTask

ARCHITECTURES = {"amd64": "x86_64", "arm64": "arm64"}

# A name without a host is Docker Hub's, whose registry has another name.
HUB, HUB_REGISTRY = ("docker.io", "index.docker.io"), "registry-1.docker.io"
LOOPBACK = re.compile(r"(localhost|127(\.\d+){3}|\[::1\])(:\d+)?")  # spoken to without TLS, as Docker does

MANIFEST_TYPES = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
)

# Bytes on disk for one of a compressed layer, about: what is asked for beforehand, not what is promised.
UNPACKED_PER_COMPRESSED = 3

ANSWER_LIMIT_S = 20.0

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


@dataclass(frozen=True)
class Sizes:
    """What the registry says of images: the layers of each by digest, with their compressed sizes."""

    layers: Mapping[str, Mapping[str, int]]
    unknown: Mapping[str, str]  # the other images, each with the reason

    @property
    def download_bytes(self) -> int | None:
        """Of all layers, once each; None when no image's are known."""
        if not self.layers:
            return None
        return sum({digest: size for layers in self.layers.values() for digest, size in layers.items()}.values())

    @property
    def disk_bytes(self) -> int | None:
        """What they take unpacked: an estimate."""
        return None if self.download_bytes is None else self.download_bytes * UNPACKED_PER_COMPRESSED


@dataclass(frozen=True)
class Address:
    """Where an image is in its registry."""

    host: str
    repository: str
    tag: str  # or a digest

    def manifest(self, digest: str | None = None) -> str:
        """The URL of its manifest, or of another one in its repository."""
        scheme = "http" if LOOPBACK.fullmatch(self.host) else "https"
        return f"{scheme}://{self.host}/v2/{self.repository}/manifests/{digest or self.tag}"


def image_name(task: SweBenchTask, architecture: str) -> str:
    """The name of a task's published image for an architecture as Docker calls it."""
    arch = ARCHITECTURES.get(architecture, architecture)
    name = task.published_image.replace("{arch}", arch).replace("{id}", task.name.replace("__", "_1776_").lower())
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def address(name: str) -> Address:
    """Where the image `name` (with a tag or a digest) is, by Docker's rules."""
    host, _, rest = name.partition("/")
    if not rest or not (host == "localhost" or "." in host or ":" in host):
        host, rest = HUB[0], name
    repository, _, tag = rest.partition("@") if "@" in rest else rest.rpartition(":")
    if host not in HUB:
        return Address(host, repository, tag)
    return Address(HUB_REGISTRY, repository if "/" in repository else f"library/{repository}", tag)


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


def ask_sizes(names: Sequence[str], architecture: str, asked: Callable[[int], None] = lambda number: None) -> Sizes:
    """Ask registries for the layers of images. `asked` is told how many are done. Raises nothing: unknown is unknown.

    Where the registry does not answer or counts what is asked as a pull and allows too few, no more is asked, and all
    sizes are unknown.
    """
    layers: dict[str, Mapping[str, int]] = {}
    unknown: dict[str, str] = {}
    # Docker uses no proxy for this machine's own registries.
    direct: Any = {"all://localhost": None, "all://127.0.0.1": None, "all://[::1]": None}
    with httpx.Client(follow_redirects=True, timeout=ANSWER_LIMIT_S, mounts=direct) as web:
        for number, name in enumerate(names):
            where = address(name)
            try:
                layers[name], allowed = _ask_layers(web, where, architecture)
            except ValueError as error:
                unknown[name] = f"the registry {where.host} {error}"
                allowed = None
            except (httpx.HTTPError, httpx.InvalidURL, _Enough) as error:
                said = str(error) or type(error).__name__
                return Sizes({}, dict.fromkeys(names, f"the registry {where.host} does not say ({said})"))
            asked(number + 1)
            # Docker Hub counts each manifest that is fetched, and the pulls are still to come.
            needed = len(names) - number - 1 + len(names)
            if allowed is not None and allowed < needed:
                why = f"the registry {where.host} allows {allowed} more pulls for now, and asking counts as one"
                return Sizes({}, dict.fromkeys(names, why))
        return Sizes(layers, unknown)


class _Enough(Exception):
    """The registry itself fails, or has had enough of questions."""


def _ask_layers(web: httpx.Client, where: Address, architecture: str) -> tuple[dict[str, int], int | None]:
    """The sizes of an image's layers by digest, and how many more pulls the registry allows, if it says.

    Raises ValueError for an image whose layers it does not tell (the end of a sentence), httpx's errors, _Enough.
    """
    headers = {"Accept": ", ".join(MANIFEST_TYPES)}
    manifest, allowed = _get(web, where.manifest(), headers)
    if "manifests" in manifest:
        digest = _choose(manifest["manifests"], architecture)
        manifest, allowed = _get(web, where.manifest(digest), headers)
    try:
        return {str(layer["digest"]): int(layer["size"]) for layer in manifest["layers"]}, allowed
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("has a manifest of it that names no sizes of layers") from error


def _choose(manifests: Any, architecture: str) -> str:
    """The digest of an architecture's manifest in an index. Raises ValueError."""
    try:
        for entry in manifests:
            if (entry["platform"]["os"], entry["platform"]["architecture"]) == ("linux", architecture):
                return str(entry["digest"])
    except (KeyError, TypeError) as error:
        raise ValueError("has an index of it that can't be read") from error
    raise ValueError(f"has none for {architecture}")


def _get(web: httpx.Client, url: str, headers: dict[str, str]) -> tuple[dict[str, Any], int | None]:
    """A manifest. A token that it takes is added to `headers`."""
    answer = web.get(url, headers=headers)
    if answer.status_code == 401:
        headers["Authorization"] = f"Bearer {_token(web, answer.headers.get('www-authenticate', ''))}"
        answer = web.get(url, headers=headers)
    if answer.status_code == 429 or answer.status_code >= 500:
        raise _Enough(f"HTTP {answer.status_code}")
    if answer.status_code != 200:
        raise ValueError(f"does not show it to everybody (HTTP {answer.status_code})")
    remaining = re.match(r"\d+", answer.headers.get("ratelimit-remaining", ""))
    return _object(answer), int(remaining[0]) if remaining else None


def _token(web: httpx.Client, challenge: str) -> str:
    """An anonymous token, from where the registry sends for it. Raises ValueError."""
    scheme, _, rest = challenge.partition(" ")
    fields = {name: quoted or plain for name, quoted, plain in re.findall(r'(\w+)=(?:"([^"]*)"|([^\s,]+))', rest)}
    if scheme.lower() != "bearer" or "realm" not in fields:
        raise ValueError("wants a login")
    wanted = {name: fields[name] for name in ("service", "scope") if name in fields}
    answer = web.get(httpx.URL(fields["realm"]).copy_merge_params(wanted))
    if answer.status_code != 200:
        raise ValueError(f"gives no token for it (HTTP {answer.status_code})")
    body = _object(answer)
    return str(body.get("token") or body.get("access_token"))


def _object(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise ValueError("answers with something that is no JSON object")
    return body


def check_space(client: docker.DockerClient, sizes: Sizes) -> None:
    """Raises MachineError when Docker's disk, if it can be seen from here, has no room for what will be pulled."""
    root = str(client.info()["DockerRootDir"])
    try:
        free = shutil.disk_usage(root).free
    except OSError:
        return
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
