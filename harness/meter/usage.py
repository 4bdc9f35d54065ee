"""Watches a run from beside it: peaks of memory, a writable layer that outgrows its limit, whose CPU time counts."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from harness.meter import cgroup
from harness.meter.meter import Meter
from harness.sandbox.command import Running, SandboxError
from harness.sandbox.container import Container
from harness.sandbox.room import dockers_lack_of_room

INTERVAL_S = 0.2
DISK_INTERVAL_S = 5.0  # Docker walks the layer for it
LOOKS = 100  # for the processes of a runner and an engine
LOOK_INTERVAL_S = 0.25
TMP_SLACK_BYTES = 1 << 20  # a /tmp is full with less than this left
NOBODY = (0,)  # no process has this number


@dataclass
class Usage:
    """What was seen. A figure that could not be read is None."""

    peak_anon_bytes: int | None = None
    peak_cgroup_bytes: int | None = None
    engine_peak_bytes: int | None = None
    cpu_s: float | None = None
    oom_kills: int | None = None
    disk_bytes: int | None = None
    disk_full: threading.Event = field(default_factory=threading.Event)
    no_room: str | None = None  # what Docker's disk had too little of, while the sandbox was within its own limit
    tmp_full: bool = False


class UsageWatch:
    """Samples from `start` to `stop`. `stop` has to come before the container dies: its figures die with it."""

    def __init__(
        self, container: Container, engine_bytes: Callable[[], int | None] | None, own_kernel: bool = False
    ) -> None:
        """`own_kernel`: the sandbox keeps its processes' memory in files of its own, as gVisor does."""
        self.usage = Usage()
        self._container = container
        self._engine_bytes = engine_bytes
        self._own_kernel = own_kernel
        self.group = cgroup.of_container(container.pid(), container.id)
        self._cpu_at_start = cgroup.cpu_s(self.group)
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._watch_memory, name="memory", daemon=True),
            threading.Thread(target=self._watch_disk, name="disk", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> Usage:
        """End the sampling and take the closing figures."""
        self._ended.set()
        self._threads[0].join()
        self._sample_memory()
        usage = self.usage
        with contextlib.suppress(SandboxError):
            self._look_for_room()
        usage.peak_cgroup_bytes = cgroup.peak_bytes(self.group)
        usage.oom_kills = cgroup.oom_kills(self.group)
        now = cgroup.cpu_s(self.group)
        if now is not None and self._cpu_at_start is not None:
            usage.cpu_s = now - self._cpu_at_start
        return usage

    def _watch_memory(self) -> None:
        while not self._ended.wait(INTERVAL_S):
            self._sample_memory()

    def _sample_memory(self) -> None:
        usage = self.usage
        if not self._own_kernel:
            usage.peak_anon_bytes = _higher(usage.peak_anon_bytes, cgroup.anonymous_bytes(self.group))
        tmp_bytes = self._container.limits.tmp_bytes
        if tmp_bytes and (cgroup.shared_bytes(self.group) or 0) >= tmp_bytes - TMP_SLACK_BYTES:
            usage.tmp_full = True
        if self._engine_bytes is not None:
            usage.engine_peak_bytes = _higher(usage.engine_peak_bytes, self._engine_bytes())

    def _watch_disk(self) -> None:
        next_look = time.monotonic() + DISK_INTERVAL_S
        while not self._ended.wait(max(0.0, next_look - time.monotonic())):
            try:
                self._look_at_disk()
                self._look_for_room()
            except SandboxError:
                return  # the run itself finds out what is wrong with the sandbox
            if self.usage.disk_full.is_set():
                return
            next_look = time.monotonic() + DISK_INTERVAL_S

    def _look_at_disk(self) -> None:
        written = self._container.written_bytes()
        self.usage.disk_bytes = _higher(self.usage.disk_bytes, written)
        if written is not None and written > self._container.limits.disk_bytes:
            self.usage.disk_full.set()

    def _look_for_room(self) -> None:
        """A full disk is the sandbox's doing where it is over its own limit, and else the machine's fault."""
        lacking = dockers_lack_of_room(self._container.client)
        if lacking is not None and not self.usage.disk_full.is_set():
            self._look_at_disk()
            if not self.usage.disk_full.is_set():
                limit = self._container.limits.disk_bytes >> 20
                self.usage.no_room = f"{lacking}, and the sandbox was promised {limit} MB: make room, or set --disk-mb"


class Targets:
    """Whose CPU time the meter reads in a run: the sandbox's, the engine's, and the runner's own.

    The runner's process is known when Docker tells it, that of an engine that starts cold when it has started. Until
    then nobody stands for them, who has used nothing: so what they use from their start on is counted.
    """

    def __init__(
        self,
        meter: Meter | None,
        sandbox: cgroup.Cgroup,
        engine_pids: Callable[[], tuple[int, ...]] | None,
        own_kernel: bool = False,
    ) -> None:
        """`engine_pids` is None where no model is called. `own_kernel`: the sandbox's processes are none of this
        machine's."""
        self._meter = meter
        self._sandbox = sandbox
        self._own_kernel = own_kernel
        self._engine_pids = engine_pids
        self._engine = engine_pids() if engine_pids else ()
        self._own: tuple[int, ...] = ()
        self._looks = LOOKS if meter else 0
        self._next_look = 0.0
        self._watch()

    def mark(self) -> None:
        """The agent stage has an edge now."""
        if self._meter:
            self._meter.mark()

    def look_for(self, runner: Running) -> None:
        """Find the processes that are not known yet. Called all the time; looks now and then, and not for ever."""
        if self._looks == 0 or time.monotonic() < self._next_look:
            return
        self._looks -= 1
        self._next_look = time.monotonic() + LOOK_INTERVAL_S
        before = (self._own, self._engine)
        # Where the sandbox's control groups can't be seen, the number of a process in it means another one here; where
        # it has a kernel of its own, that of the process which waits for it.
        seen = self._sandbox.cpu is not None and not self._own_kernel
        if seen and not self._own and (pid := runner.pid()) and cgroup.of_process(pid) == self._sandbox:
            self._own = (pid,)
        if self._engine_pids and not self._engine:
            self._engine = self._engine_pids()
        if (self._own, self._engine) != before:
            self._watch()
        if self._own and (self._engine or not self._engine_pids):
            self._looks = 0

    def _watch(self) -> None:
        if self._meter:
            self._meter.watch(
                sandbox=cgroup.cpu_file(self._sandbox),
                own=() if self._own_kernel else self._own or NOBODY,
                engine=self._engine or (NOBODY if self._engine_pids else ()),
            )


def _higher(known: int | None, seen: int | None) -> int | None:
    return seen if known is None else known if seen is None else max(known, seen)
