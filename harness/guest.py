"""The harness's side of the contract in agents/README.md: what an agent finds in its sandbox, and how it is started."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker.types import Mount

from harness import paths
from harness.images import unrooted
from harness.images.bundle import Bundle
from harness.manifests import NOT_THE_AGENT
from harness.plan import Plan, PlannedRun
from harness.sandbox.command import Running, SandboxError
from harness.sandbox.container import Container, tar_of
from harness.sandbox.doors import SOCKET_DIR
from harness.sandbox.relay import Relay, attach
from harness.suites.base import TarEntry

HOME = "/opt/harness"
PID = f"{HOME}/pid"
AGENT = f"{HOME}/agent"
OUT = f"{HOME}/out"
RESULT_NAME = "result.json"
ENDPOINT = "http://127.0.0.1:11434"
FORWARDER_START_S = 20.0
FORWARDER_SAYS_BYTES = 64 << 10  # of which more is not kept
FORWARDER_LOOK_S = 0.1
READY = re.compile(rb"^ready \d+(?: unwatched: (.*))?\n", re.MULTILINE)

MESSAGE_CHARACTERS, DETAILS_CHARACTERS = 1_000, 10_000  # what a row of the database keeps; out.tar has all of it

STATUSES = ("submitted", "gave_up", "format_failure", "limit", "error")

# The process group's number is written down, so that a signal reaches what the runner started as well.
WRAPPER = f'echo $$ > {PID}; exec "$@"'
TERMINATE = f'kill -s TERM -- "-$(cat {PID})"'  # dash knows no other way to name a group


@dataclass(frozen=True)
class Way:
    """An agent's way to its model, once it is open. To be closed."""

    unwatched: str | None  # why the work directory can't be watched, if so
    relay: Relay | None
    forwarder: Running | None  # where there is no relay

    @property
    def ended(self) -> str | None:
        """Why it is known to be gone by the sandbox's own doing."""
        if self.forwarder:
            return "its forwarder was ended" if self.forwarder.wait(0) else None
        return self.relay.ended if self.relay else None

    def close(self) -> None:
        if self.relay:
            self.relay.close()


@functools.cache
def forwarders_files() -> Mapping[str, bytes]:
    """What the forwarder is made of, by name; to lie in one folder of a sandbox.

    Read once: the harness may be updated while a sweep of days goes on, and the rest of it is in memory.
    """
    return {
        name: (paths.PACKAGE / "sandbox" / name).read_bytes() for name in ("forward.py", "multiplex.py", "watch.py")
    }


@dataclass(frozen=True)
class Visit:
    """One agent's stay in one sandbox. `key` opens the gateway; None for an agent that calls no model."""

    planned: PlannedRun
    plan: Plan
    workdir: str
    bundle: Bundle | None
    key: str | None

    @property
    def uid(self) -> int:
        """Whom all of the sandbox runs as."""
        return unrooted.UID if self.plan.spec.sandbox_user == "agent" else 0

    def files(self) -> bytes:
        """A tar, to be unpacked at /, of everything the contract promises."""
        task = self.planned.task
        entries: dict[str, TarEntry] = {
            OUT: None,
            PID: b"",
            f"{HOME}/task.json": json.dumps(self._task_json(), indent=2).encode(),
            f"{HOME}/instruction.md": task.instruction.encode(),
            AGENT: self.planned.agent.folder,
        }
        if self.key is not None:
            entries |= {f"{HOME}/{name}": content for name, content in forwarders_files().items()}
        if self.planned.agent.is_oracle:
            entries |= task.solution_files(f"{HOME}/solution")
            entries |= task.solution_files("/solution")  # where Harbor's own solutions expect themselves
        return tar_of(
            entries, without=[f"{AGENT}/{name}" for name in NOT_THE_AGENT], owned={OUT: self.uid, PID: self.uid}
        )

    def mounts(self, socket_dir: str | None) -> list[Mount]:
        """The framework and the gateway's socket, both read-only."""
        mounts = []
        if self.bundle:
            mounts.append(Mount("/opt/agent", self.bundle.volume, type="volume", read_only=True))
        if socket_dir:
            mounts.append(Mount(SOCKET_DIR, socket_dir, type="bind", read_only=True))
        return mounts

    def start_forwarder(
        self, container: Container, relay_to: Path | None = None, fault: Callable[[str], None] = lambda _: None
    ) -> Way:
        """Start the loopback port that leads to the gateway and wait until it listens.

        It leads through the mounted socket, or where `relay_to` is the socket's path here through a relay: `fault` is
        told when that breaks by no doing of the sandbox's. Raises SandboxError.
        """
        assert self.bundle is not None
        ready, output = threading.Event(), bytearray()
        argv = [self.bundle.python, f"{HOME}/forward.py", self.workdir]

        def hear(chunk: bytes) -> None:
            if ready.is_set() or len(output) > FORWARDER_SAYS_BYTES:
                return  # it is the agent's word by now: there is no end to what it may say
            output.extend(chunk)
            if READY.search(output):
                ready.set()

        relay = forwarder = None
        if relay_to is not None:
            relay = Relay(attach(container, [*argv, "relay"]), relay_to, hear, fault, ready.set)
        else:
            forwarder = container.begin(argv, sink=hear)
        began_s = time.monotonic()
        while not ready.wait(FORWARDER_LOOK_S) and not (forwarder and forwarder.wait(0)):
            # What Docker takes to start it is not held against it.
            if (forwarder.ran_s() if forwarder else time.monotonic() - began_s) > FORWARDER_START_S:
                break
        word = READY.search(output)
        if word is None:
            if relay:
                relay.close()
            said = output.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
            raise SandboxError(f"the way to the gateway can't be opened in the sandbox: {said[0]}")
        return Way(word[1].decode(errors="replace") if word[1] else None, relay, forwarder)

    def begin(self, container: Container, sink: Callable[[bytes], None]) -> Running:
        """Start the agent, its output to `sink`."""
        command = self.planned.agent.command(AGENT, self.bundle.python if self.bundle else None)
        return container.begin(
            ["sh", "-c", WRAPPER, "sh", *command], workdir=self.workdir, env=self._environment(), sink=sink
        )

    def terminate(self, container: Container) -> None:
        """Ask the runner and what it started to end. Nobody waits for the shell that asks: by now it is the agent's. It
        may have been replaced, or get no turn among a thousand processes."""
        with contextlib.suppress(SandboxError):  # it has ended meanwhile
            container.begin(["sh", "-c", TERMINATE])

    def _task_json(self) -> dict[str, Any]:
        spec, model = self.plan.spec, self.planned.model
        return {
            "task": self.planned.task.name,
            "instruction_file": f"{HOME}/instruction.md",
            "workdir": self.workdir,
            "model": self.planned.model_name,
            "protocol": self.planned.protocol,
            "base_url": f"{ENDPOINT}/v1" if model else None,
            "ollama_url": ENDPOINT if model else None,
            "api_key": self.key,
            "result_file": f"{OUT}/{RESULT_NAME}",
            "out_dir": OUT,
            "limits": {
                "max_calls": spec.max_calls,
                "time_s": spec.time_limit_s,
                "num_ctx": model.num_ctx if model else None,
                "num_predict": spec.num_predict,
            },
            "sampling": {
                "temperature": self.plan.temperature,
                "top_p": self.plan.top_p,
                "seed": self.planned.seed,
            },
        }

    def _environment(self) -> dict[str, str]:
        spec, model = self.plan.spec, self.planned.model
        env = {
            "HARNESS_TASK_FILE": f"{HOME}/task.json",
            "HARNESS_INSTRUCTION_FILE": f"{HOME}/instruction.md",
            "HARNESS_WORKDIR": self.workdir,
            "HARNESS_RESULT_FILE": f"{OUT}/{RESULT_NAME}",
            "HARNESS_OUT_DIR": OUT,
            "HARNESS_TIME_LIMIT_S": f"{spec.time_limit_s:g}",
            "HOME": unrooted.HOME if self.uid else "/root",
        }
        if model:
            env |= {
                "HARNESS_MODEL": model.info.name,
                "HARNESS_PROTOCOL": self.planned.protocol or "",
                "HARNESS_MAX_CALLS": str(spec.max_calls),
                "HARNESS_NUM_CTX": str(model.num_ctx),
                "HARNESS_NUM_PREDICT": str(spec.num_predict),
                "HARNESS_TEMPERATURE": f"{self.plan.temperature:g}",
                "HARNESS_SEED": str(self.planned.seed),
                "OPENAI_BASE_URL": f"{ENDPOINT}/v1",
                "OPENAI_API_KEY": self.key or "",
                "OLLAMA_HOST": ENDPOINT,
            }
        if self.planned.agent.is_oracle:
            env |= self.planned.task.solution_env
        return env


@dataclass(frozen=True)
class Claim:
    """What a result file says. Nothing of it is measured."""

    status: str  # one of STATUSES, or "unreadable"
    message: str | None = None
    details: str | None = None  # JSON


def claim(content: bytes) -> Claim:
    """Anything may stand in a result file: an agent wrote it."""
    try:
        said = json.loads(content)
        status = said["status"]
        if status not in STATUSES:
            return Claim("unreadable")
        message, details = said.get("message"), said.get("details")
        return Claim(
            status,
            _storable(message)[:MESSAGE_CHARACTERS] if message is not None else None,
            text if details is not None and len(text := _json(details)) <= DETAILS_CHARACTERS else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Claim("unreadable")


def _storable(message: object) -> str:
    """Half a surrogate pair can't be stored; models and cut outputs make them."""
    return str(message).encode("utf-8", "replace").decode()


def _json(details: object) -> str:
    """Raises ValueError for numbers that JSON does not have."""
    return json.dumps(details, allow_nan=False)
