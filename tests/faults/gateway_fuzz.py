"""A seeded fuzz run against real doors over their Unix sockets, the gateway in a process of its own.

    python tests/faults/gateway_fuzz.py [--requests 100000] [--seed 1]

Doors follow each other as runs do, two at a time so that there is another run's key; a run ends after 20 refusals, so
a door serves a few dozen requests. It must hold: no exception and no traceback; valid requests among the others, and
the last one of each door, are answered right; every answer of 5xx and every refusal is on record; afterwards the
process has no more memory (10 MB), files, threads and tasks than after a tenth of the requests.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import json
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from gateway_attacks import ATTACKS, Attack, Broken, Client, valid

from harness.engines.base import ChatRequest, Delta, EngineError, Finish, ModelInfo
from harness.gateway import limits
from harness.gateway.policy import Policy
from harness.gateway.server import Gateway

LEAK_BYTES = 10 << 20
REFUSALS_A_DOOR = 16  # of the 20 that a run has
ATTACKS_A_DOOR = 60
STORMS = 0.02  # share of doors that are driven on until their run is over


class Backwards:
    """An engine that answers at once: the last message's text, backwards. What it has no text for, it refuses."""

    name = "backwards"

    async def chat(self, request: ChatRequest) -> AsyncIterator[Delta | Finish]:
        text = request.messages[-1].get("content")
        if not isinstance(text, str):
            raise EngineError("bad_request", "the last message has no text")
        json.dumps([list(request.messages), list(request.tools)], allow_nan=False).encode()  # as any engine sends it on
        said = text[::-1][: 1 << 20]
        yield Delta(said)
        yield Finish("stop", len(text), 0, 0, len(said), 0.0, 0.0, 0.0)


@dataclass
class Look:
    """The gateway's process at a moment."""

    memory_bytes: int
    files: int
    threads: int
    tasks: int


def serve() -> None:
    """The gateway's process: commands on stdin, one JSON object each on stdout."""
    limits.ENGINE_PAUSES_S = (0.0, 0.0)
    limits.BAD_REQUESTS = 1 << 30  # what the engine refuses is tried all the time here
    gateway = Gateway(Backwards())  # type: ignore[arg-type]
    doors: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="gf") as folder:
        for number, line in enumerate(sys.stdin):
            word, _, which = line.strip().partition(" ")
            if word == "open":
                name = str(number)
                policy = Policy("m", 4096, 64, 0.0, None, 7, False, "tools", None, None, 30.0, guard="observe")
                model = ModelInfo("m", "backwards", frozenset({"tools"}))
                doors[name] = gateway.open(Path(folder, name), policy, model, Path(folder, f"{name}j"))
                told: Any = {"name": name, "socket": str(Path(folder, name)), "key": doors[name].key}
            elif word == "close":
                door = doors.pop(which)
                records = [(record.status, record.http_status) for record in door.close()]
                told = {"records": records, "stopped": door.stop_reason, "detail": door.stop_detail}
                for name in ("calls.jsonl", "messages.jsonl"):
                    with Path(folder, f"{which}j", name).open() as lines:
                        for each in lines:
                            json.loads(each)
                    Path(folder, f"{which}j", name).unlink()
            else:
                told = asdict(_look(gateway))
            print(json.dumps(told), flush=True)
    gateway.close()


def _look(gateway: Gateway) -> Look:
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline and len(asyncio.all_tasks(gateway._loop)) > 0:
        time.sleep(0.05)  # the closed doors' servers take a moment to end
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what the C library keeps of a large request that is over is no leak
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return Look(
        resident,
        len(list(Path("/proc/self/fd").iterdir())),
        threading.active_count(),
        len(asyncio.all_tasks(gateway._loop)),
    )


@dataclass
class Opened:
    name: str
    client: Client


@dataclass
class Process:
    """The gateway's process, seen from outside."""

    popen: subprocess.Popen[str]

    def tell(self, command: str) -> Any:
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        self.popen.stdin.write(command + "\n")
        self.popen.stdin.flush()
        line = self.popen.stdout.readline()
        if not line:
            raise Broken("the gateway's process has ended")
        return json.loads(line)

    def open(self) -> Opened:
        told = self.tell("open")
        return Opened(told["name"], Client(Path(told["socket"]), told["key"], ""))

    def look(self) -> Look:
        return Look(**self.tell("look"))

    def peak_bytes(self) -> int:
        status = Path(f"/proc/{self.popen.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) << 10


@contextlib.contextmanager
def gateway_process() -> Iterator[Process]:
    """Its stderr must stay empty."""
    with tempfile.TemporaryFile("w+") as said:
        with subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True,
        ) as popen:  # fmt: skip
            try:
                yield Process(popen)
            finally:
                assert popen.stdin is not None
                popen.stdin.close()
                if popen.wait(30) != 0:
                    said.seek(0)
                    raise Broken(f"the gateway's process ended with {popen.returncode}: {said.read()[-3000:]}")
        said.seek(0)
        if text := said.read():
            raise Broken(f"the gateway complained: {text[-3000:]}")


@dataclass
class Fuzzed:
    requests: int = 0
    doors: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    warm: Look | None = None
    end: Look | None = None
    peak_bytes: int = 0
    duration_s: float = 0.0


def fuzz(requests: int, seed: int, say: Any = lambda _: None) -> Fuzzed:
    """Raises Broken, with what is needed to see it again."""
    done, began = Fuzzed(), time.monotonic()
    with gateway_process() as process:
        for attack, _, _ in ATTACKS * 2:  # the rare ones too are part of the warm-up
            _one_door(process, Random(f"{seed}:{attack.__name__}"), done, [attack])
        while done.requests < requests:
            _one_door(process, Random(f"{seed}:{done.doors}"), done)
            if done.warm is None and done.requests >= requests / 10:
                done.warm = process.look()
            if done.doors % 500 == 0:
                say(f"{done.requests} requests at {done.doors} doors: {process.look()}")
        done.end, done.peak_bytes = process.look(), process.peak_bytes()
    done.duration_s = time.monotonic() - began
    return done


def _one_door(process: Process, rng: Random, done: Fuzzed, attacks: Sequence[Attack] = ()) -> None:
    """A run, with these attacks or with some by the lot."""
    done.doors += 1
    door, beside = process.open(), process.open()
    client = door.client
    client.other_key = beside.client.key
    storm = not attacks and rng.random() < STORMS
    attack = valid
    try:
        for attack in attacks or _by_lot(rng, 1 << 30 if storm else REFUSALS_A_DOOR):
            done.requests += 1
            try:
                attack(client, rng)
            except Broken:
                if not storm:  # its run is over in the middle, and every answer says so
                    raise
        if not storm:
            attack = valid
            valid(client, rng)
        valid(beside.client, rng)
        done.requests += 2
        _check_records(process.tell(f"close {door.name}"), client.statuses, storm)
        _check_records(process.tell(f"close {beside.name}"), beside.client.statuses, False)
    except Broken as error:
        raise Broken(f"door {done.doors}, request {done.requests}, {attack.__name__}: {error}") from error
    done.statuses.update(client.statuses + beside.client.statuses)


def _by_lot(rng: Random, refusals: int) -> Iterator[Attack]:
    """As many as a run has room for."""
    weights = [weight for _, weight, _ in ATTACKS]
    for _ in range(ATTACKS_A_DOOR):
        [(attack, _, cost)] = rng.choices(ATTACKS, weights)
        if (refusals := refusals - cost) < 0:
            return
        yield attack


def _check_records(told: Any, statuses: list[int], storm: bool) -> None:
    """Every 5xx and every refusal that was heard is on record; only a storm ends its run."""
    records = Counter(http_status for _, http_status in told["records"])
    heard = Counter(statuses)
    for status in heard:
        if status >= 500 and heard[status] > records[status]:
            raise Broken(f"{heard[status]} answers of {status}, {records[status]} on record")
    for status in (400, 401, 413):
        if not storm and heard[status] > records[status]:
            raise Broken(f"{heard[status]} requests were refused with {status}, {records[status]} are on record")
    wanted = "crashed" if storm else None
    if told["stopped"] not in (None, wanted):
        raise Broken(f"the run was ended as {told['stopped']}: {told['detail']}")


def leaks(done: Fuzzed) -> list[str]:
    """What there is more of at the end than after a tenth."""
    assert done.warm is not None
    assert done.end is not None
    found = []
    for each in fields(Look):
        warm, end = getattr(done.warm, each.name), getattr(done.end, each.name)
        if end > warm + (LEAK_BYTES if each.name == "memory_bytes" else 0):
            found.append(f"{each.name}: {warm} -> {end}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve()
        return
    done = fuzz(given.requests, given.seed, partial(print, flush=True))
    print(f"{done.requests:,} requests at {done.doors:,} doors in {done.duration_s:.0f} s, seed {given.seed}")
    print(f"answers: {dict(sorted(done.statuses.items()))}")
    print(f"after a tenth: {done.warm}\nat the end:    {done.end}\npeak memory:   {done.peak_bytes / 1e6:.0f} MB")
    if found := leaks(done):
        sys.exit("leaks: " + "; ".join(found))


if __name__ == "__main__":
    main()
