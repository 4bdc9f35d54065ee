"""The harness's side of the sampler: starts it, tells it where windows have their edges, takes its readings."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

INTERVAL_S = 0.097  # ten times a second, and not in step with counters that are updated ten times a second
START_S = 30.0  # with GPUs, a second goes into finding how often their counters are updated
ANSWER_S = 10.0


@dataclass
class Group:
    """Readings that were taken together. A number that could not be read is None."""

    times_s: list[float] = field(default_factory=list)
    columns: dict[str, list[int | None]] = field(default_factory=dict)

    def extend(self, other: Group) -> None:
        self.times_s += other.times_s
        for name, column in other.columns.items():
            self.columns.setdefault(name, []).extend(column)


@dataclass
class Sample:
    """What the sampler read since it was asked last: groups `rapl` (microjoules), `gpu` (millijoules, or milliwatts for
    a GPU without a counter), `cpu` (nanoseconds of CPU time), `slow` (as the files say)."""

    groups: dict[str, Group] = field(default_factory=dict)
    gpu_users: list[list[int]] = field(default_factory=list)  # processes on each GPU when it was asked


class SamplerLost(Exception):
    """The sampler ended or does not answer."""


class Sampler:
    """The process. Every method may be called from any thread; `mark` never waits."""

    def __init__(
        self,
        rapl: Mapping[str, Path],
        slow: Mapping[str, Path],
        *,
        nvml: bool = True,
        interval_s: float = INTERVAL_S,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Raises SamplerLost when it does not start."""
        settings = {
            "interval_s": interval_s,
            "rapl": {name: str(path) for name, path in rapl.items()},
            "slow": {name: str(path) for name, path in slow.items()},
            "nvml": nvml,
        }
        self._lock = threading.Lock()
        # Ctrl-C in the terminal is for the sweep, which still has windows to close.
        self._process = subprocess.Popen(
            # -OO: without its docstrings, NVIDIA's package takes a third less memory.
            [sys.executable, "-P", "-OO", "-m", "harness.meter.sampler_process", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
            env=dict(env) if env is not None else None,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._in, False)
        self._pending = b""
        try:
            hello = json.loads(self._line(START_S))
        except BaseException:
            self.stop()
            raise
        self.gpus: list[dict[str, Any]] = hello["gpus"]
        self.driver: str | None = hello["driver"]
        self.gpu_problem: str | None = hello["problem"]

    @property
    def pid(self) -> int:
        return self._process.pid

    def mark(self) -> None:
        """Have everything read now. Costs the caller some microseconds."""
        with contextlib.suppress(OSError):  # it is gone, or far behind: taking its readings will tell
            os.write(self._in, b"m\n")

    def watch(self, *, sandbox: Path | None, own: Sequence[int], engine: Sequence[int], harness: Sequence[int]) -> None:
        """Whose CPU time to read from now on. Returns when it is so: figures of others begin at other numbers."""
        targets = {"sandbox": str(sandbox) if sandbox else None, "own": own, "engine": engine, "harness": harness}
        with self._lock, contextlib.suppress(OSError, SamplerLost):  # taking its readings will tell
            os.write(self._in, b"w " + json.dumps(targets).encode() + b"\n")
            self._line(ANSWER_S)

    def take(self) -> Sample:
        """All readings since the last time. Raises SamplerLost."""
        with self._lock:
            try:
                os.write(self._in, b"t\n")
            except OSError as error:
                raise SamplerLost(f"the sampler is gone: {error.strerror}") from error
            answer = json.loads(self._line(ANSWER_S))
            groups = {}
            for name, head in answer["groups"].items():
                rows = int(head["rows"])
                times = array("d", self._bytes(8 * rows))
                columns = {}
                for column in head["names"]:
                    numbers = array("q", self._bytes(8 * rows))
                    columns[column] = [None if number < 0 else number for number in numbers]
                groups[name] = Group(list(times), columns)
            return Sample(groups, answer["gpu_users"])

    def stop(self) -> None:
        """End the process. Safe to call twice."""
        self._in = self._out = -1  # the numbers may soon be another file's
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None and not stream.closed:
                stream.close()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _line(self, limit_s: float) -> bytes:
        deadline = time.monotonic() + limit_s
        while b"\n" not in self._pending:
            self._receive(deadline)
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _bytes(self, count: int) -> bytes:
        deadline = time.monotonic() + ANSWER_S
        while len(self._pending) < count:
            self._receive(deadline)
        content, self._pending = self._pending[:count], self._pending[count:]
        return content

    def _receive(self, deadline: float) -> None:
        ready, _, _ = select.select([self._out], [], [], max(0.0, deadline - time.monotonic()))
        chunk = os.read(self._out, 1 << 20) if ready else b""
        if not chunk:
            raise SamplerLost("the sampler does not answer" if not ready else "the sampler ended")
        self._pending += chunk
