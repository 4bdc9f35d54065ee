"""What a registry says of images before they are pulled: how large their layers are, asked anonymously."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

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


def address(name: str) -> Address:
    """Where the image `name` (with a tag or a digest) is, by Docker's rules."""
    host, _, rest = name.partition("/")
    if not rest or not (host == "localhost" or "." in host or ":" in host):
        host, rest = HUB[0], name
    repository, _, tag = rest.partition("@") if "@" in rest else rest.rpartition(":")
    if host not in HUB:
        return Address(host, repository, tag)
    return Address(HUB_REGISTRY, repository if "/" in repository else f"library/{repository}", tag)


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
