"""Which Docker engine is meant, found the way the docker command finds it: DOCKER_HOST, else DOCKER_CONTEXT, else the
context that `docker context use` chose, else the socket of this machine."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.tls import TLSConfig
from docker.utils import kwargs_from_env

from harness.errors import UserError, nearest

DEFAULT_URL = "unix:///var/run/docker.sock"
REACHABLE = ("unix", "tcp", "http", "https")


class Proof(TLSConfig):  # type: ignore[misc]
    """What an engine and its user prove themselves with, whatever the environment says of the web's certificates:
    REQUESTS_CA_BUNDLE would stand in for the engine's own."""

    def configure_client(self, client: docker.APIClient) -> None:
        super().configure_client(client)
        client.trust_env = False


@dataclass(frozen=True)
class Endpoint:
    url: str
    said_by: str  # for people: what named it
    tls: Proof | None = None


def find(environment: Mapping[str, str] = os.environ) -> Endpoint:
    """Raises UserError for a context that is not there or can't be read, and for a way that is not gone here.
    Raises docker's TLSParameterError where the certificates of DOCKER_HOST are missing."""
    context = environment.get("DOCKER_CONTEXT", "")
    said_by = "DOCKER_CONTEXT"
    if environment.get("DOCKER_HOST"):
        context = ""
    elif not context:
        context, said_by = _current(_folder(environment)), "`docker context use`"
    if context in ("", "default"):
        given = kwargs_from_env(dict(environment))
        named = "DOCKER_HOST" if environment.get("DOCKER_HOST") else "nothing but Docker's default"
        tls = given.get("tls")
        proof = Proof(client_cert=tls.cert, ca_cert=tls.ca_cert, verify=tls.verify) if tls else None
        found = Endpoint(given.get("base_url", DEFAULT_URL), named, proof)
    else:
        found = _of_context(_folder(environment), context, said_by)
    way, separator, host = found.url.partition("://")
    if separator and way not in REACHABLE:
        mend = "name one of " + ", ".join(f"{each}://" for each in REACHABLE)
        if way == "ssh":
            mend = (
                f"forward its socket (`ssh -nNT -L /tmp/remote-docker.sock:/var/run/docker.sock {host}`) and set "
                "DOCKER_HOST=unix:///tmp/remote-docker.sock"
            )
        raise UserError(f"Docker at {found.url}, which {found.said_by} names, is not reached by {way} here: {mend}")
    return found


def _folder(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("DOCKER_CONFIG") or Path.home() / ".docker")


def _current(folder: Path) -> str:
    """The context that was chosen for all commands; empty where none was."""
    try:
        chosen = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("currentContext")
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{folder / 'config.json'}, which names Docker's context, can't be read: {error}") from error
    return str(chosen or "")


def _of_context(folder: Path, name: str, said_by: str) -> Endpoint:
    contexts = folder / "contexts"
    place = hashlib.sha256(name.encode()).hexdigest()
    file = contexts / "meta" / place / "meta.json"
    try:
        endpoint = _read(file)["Endpoints"]["docker"]
        url, unverified = str(endpoint["Host"]), bool(endpoint.get("SkipTLSVerify"))
    except FileNotFoundError:
        known = sorted(filter(None, map(_name, contexts.glob("meta/*/meta.json"))))
        raise UserError(
            f"there is no Docker context {name!r}, which {said_by} names; {nearest(name, ['default', *known])}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"the Docker context {name!r}, which {said_by} names, has no Docker engine in it ({file}: {error!r}): "
            "choose another with `docker context use`"
        ) from error
    return Endpoint(url, f"the context {name!r} ({said_by})", _tls(contexts / "tls" / place / "docker", unverified))


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _name(file: Path) -> str | None:
    try:
        return str(_read(file)["Name"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _tls(folder: Path, unverified: bool) -> Proof | None:
    """What a context has to prove who speaks, at either end; None where it speaks in the clear."""
    ca, cert, key = (folder / name for name in ("ca.pem", "cert.pem", "key.pem"))
    client = (str(cert), str(key)) if cert.exists() and key.exists() else None
    if not client and not ca.exists() and not unverified:
        return None
    return Proof(client_cert=client, ca_cert=str(ca) if ca.exists() else None, verify=not unverified)
