"""The sampler: a process of its own that reads counters at a steady pace and keeps what it read until it is asked.

Standard library and `pynvml` alone, and nothing else of the harness, so that it stays small. It is started as a file,
with one argument: JSON with `interval_s`, `rapl` (zone to path of its counter), `nvml` (whether to look for GPUs),
`slow` (name to path of a number that changes slowly: temperature, frequency, throttle count).

It reads one line at a time from standard input:

    m             read everything now (the edge of a window)
    w {json}      whose CPU time to read: {"sandbox": path of a control group's figure, "own": [pid], "engine": [pid],
                  "harness": [pid]}; answered with {} when it is so
    t             answer with all readings since the last `t`, and forget them

An answer is a line of JSON that describes the columns, followed by their bytes. At the end of its input it ends, so it
never outlives the harness. Times are CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import select
import sys
import time
from array import array
from collections.abc import Callable
from typing import Any

MISSING = -1
SLOW_EVERY_S = 1.0
READ_LIMIT_S = 0.005  # a reading that took longer was interrupted: its time would say too little
TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class Number:
    """A file that holds one number. It is kept open; when it can't be read any more, it is looked for again."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = MISSING

    def read(self) -> int:
        try:
            if self._fd == MISSING:
                self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            return self.parse(os.pread(self._fd, 64, 0))
        except (OSError, ValueError, IndexError):
            self.close()
            return MISSING

    def parse(self, content: bytes) -> int:
        return int(content)

    def close(self) -> None:
        if self._fd != MISSING:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = MISSING


class GroupTime(Number):
    """CPU time of a control group in nanoseconds: a number (version 1), or a line of microseconds (version 2)."""

    def parse(self, content: bytes) -> int:
        words = content.split()
        return int(words[1]) * 1000 if words[0] == b"usage_usec" else int(words[0])


class Columns:
    """The readings of one group, which share their times."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.clear()

    def clear(self) -> None:
        self.times = array("d")
        self.values = [array("q") for _ in self.names]

    def add(self, read_all: Callable[[], list[int]]) -> None:
        for _ in range(2):
            began = time.monotonic()
            numbers = read_all()
            ended = time.monotonic()
            if ended - began < READ_LIMIT_S * max(1, len(numbers)):
                break
        else:
            numbers = [MISSING] * len(numbers)  # when it was true can't be told
        self.times.append(ended)
        for column, number in zip(self.values, numbers, strict=True):
            column.append(number)

    def take(self) -> tuple[dict[str, Any], list[bytes]]:
        head = {"names": self.names, "rows": len(self.times)}
        parts = [self.times.tobytes(), *(column.tobytes() for column in self.values)]
        self.clear()
        return head, parts


class Gpus:
    """NVIDIA's counters of energy (millijoules since the driver was loaded); milliwatts for a GPU that has none."""

    def __init__(self) -> None:
        # Where there is no driver, the package is not worth its 18 MB.
        ctypes.CDLL("libnvidia-ml.so.1")
        import pynvml

        self._nvml = pynvml
        pynvml.nvmlInit()
        self.driver = _text(pynvml.nvmlSystemGetDriverVersion())
        self._handles = [pynvml.nvmlDeviceGetHandleByIndex(n) for n in range(pynvml.nvmlDeviceGetCount())]
        self._readers: list[tuple[Callable[[Any], Any], Any]] = []
        self.found: list[dict[str, Any]] = []
        for number, handle in enumerate(self._handles):
            counter = self._number(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle) != MISSING
            read = pynvml.nvmlDeviceGetTotalEnergyConsumption if counter else pynvml.nvmlDeviceGetPowerUsage
            self._readers.append((read, handle))
            limit = self._number(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle)
            self.found.append(
                {
                    "index": number,
                    "name": _text(pynvml.nvmlDeviceGetName(handle)),
                    "uuid": _text(pynvml.nvmlDeviceGetUUID(handle)),
                    "counter": counter,
                    "period_s": self._period(handle) if counter else None,
                    "power_limit_w": None if limit == MISSING else limit / 1000,
                }
            )

    def _period(self, handle: object) -> float | None:
        """The longest time between two updates of a counter, seen in a burst of readings; None when it stood still."""
        changes = []
        before = self._number(self._nvml.nvmlDeviceGetTotalEnergyConsumption, handle)
        end = time.monotonic() + 1.0
        while (now := time.monotonic()) < end:
            value = self._number(self._nvml.nvmlDeviceGetTotalEnergyConsumption, handle)
            if value != before:
                changes.append(now)
                before = value
            time.sleep(0.002)
        gaps = [later - earlier for earlier, later in itertools.pairwise(changes)]
        return max(gaps) if gaps else None

    def _number(self, function: Callable[[Any], Any], handle: object) -> int:
        try:
            return int(function(handle))
        except self._nvml.NVMLError:
            return MISSING

    def read(self) -> list[int]:
        return [self._number(read, handle) for read, handle in self._readers]

    def slow(self) -> list[int]:
        """Degrees, the reasons for a lower clock (bits), and the clock in MHz, for each GPU."""
        nvml, numbers = self._nvml, []
        for handle in self._handles:
            numbers.append(self._number(lambda h: nvml.nvmlDeviceGetTemperature(h, nvml.NVML_TEMPERATURE_GPU), handle))
            numbers.append(self._number(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle))
            numbers.append(self._number(lambda h: nvml.nvmlDeviceGetClockInfo(h, nvml.NVML_CLOCK_SM), handle))
        return numbers

    def users(self) -> list[list[int]]:
        """The processes at work on each GPU."""
        users = []
        for handle in self._handles:
            try:
                users.append([process.pid for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(handle)])
            except self._nvml.NVMLError:
                users.append([])
        return users


class CpuTime:
    """CPU time in nanoseconds: of the machine, and of those that the harness names."""

    def __init__(self) -> None:
        self._stat = os.open("/proc/stat", os.O_RDONLY | os.O_CLOEXEC)
        self._group: GroupTime | None = None
        self._pids: dict[str, list[int]] = {}
        self._last: dict[int, int] = {}  # a process that ended keeps what it used

    def watch(self, targets: dict[str, Any]) -> None:
        if self._group is not None:
            self._group.close()
        path = targets.get("sandbox")
        self._group = GroupTime(str(path)) if path else None
        self._pids = {name: list(targets.get(name) or ()) for name in ("own", "engine", "harness")}
        self._last = {}

    def read(self) -> list[int]:
        harness = self._of("harness")
        return [
            self._machine(),
            self._group.read() if self._group else MISSING,
            self._of("own"),
            self._of("engine"),
            MISSING if harness == MISSING else harness + time.process_time_ns(),
        ]

    def _machine(self) -> int:
        try:
            # user nice system idle iowait irq softirq steal; guests are in user already, stolen time was not ours.
            words = os.pread(self._stat, 256, 0).split(b"\n", 1)[0].split()
            return sum(int(words[n]) for n in (1, 2, 3, 6, 7)) * TICK_NS
        except (OSError, ValueError, IndexError):
            return MISSING

    def _of(self, name: str) -> int:
        pids = self._pids.get(name)
        if not pids:
            return MISSING
        for pid in pids:
            try:
                file = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
                try:
                    words = os.read(file, 1024).rsplit(b")", 1)[1].split()
                finally:
                    os.close(file)
                self._last[pid] = (int(words[11]) + int(words[12])) * TICK_NS
            except (OSError, ValueError, IndexError):
                pass
        return sum(self._last.get(pid, 0) for pid in pids)


CPU_NAMES = ["machine", "sandbox", "own", "engine", "harness"]
GPU_SLOW = ["temperature_c", "throttle_reasons", "clock_mhz"]


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def main(settings: dict[str, Any]) -> None:
    interval = float(settings["interval_s"])
    zones = {name: Number(path) for name, path in settings["rapl"].items()}
    slow_files = {name: Number(path) for name, path in settings["slow"].items()}
    gpus: Gpus | None = None
    problem: str | None = None
    if settings["nvml"]:
        try:
            gpus = Gpus()
        except OSError:
            problem = "there is no NVIDIA driver here (libnvidia-ml.so.1 can't be loaded)"
        except Exception as error:  # noqa: BLE001 - no package, no driver, no permission: all are reasons to be told
            problem = f"{type(error).__name__}: {error}"
    cpu = CpuTime()
    rapl_columns = Columns(list(zones))
    gpu_columns = Columns([f"gpu{gpu['index']}" for gpu in gpus.found] if gpus else [])
    cpu_columns = Columns(CPU_NAMES)
    gpu_slow = [f"gpu{gpu['index']}.{what}" for gpu in (gpus.found if gpus else ()) for what in GPU_SLOW]
    slow_columns = Columns([*slow_files, *gpu_slow])
    groups = {"rapl": rapl_columns, "gpu": gpu_columns, "cpu": cpu_columns, "slow": slow_columns}

    def sample() -> None:
        if zones:
            rapl_columns.add(lambda: [zone.read() for zone in zones.values()])
        if gpus:
            gpu_columns.add(gpus.read)
        cpu_columns.add(cpu.read)

    out = sys.stdout.buffer
    hello = {"gpus": gpus.found if gpus else [], "driver": gpus.driver if gpus else None, "problem": problem}
    out.write(json.dumps(hello).encode() + b"\n")
    out.flush()
    pending = b""
    next_tick = next_slow = time.monotonic()
    while True:
        now = time.monotonic()
        if now >= next_tick:
            sample()
            next_tick += interval
            if next_tick < now:  # it was not let run: the missed ticks are gone
                next_tick = now + interval
            if now >= next_slow and slow_columns.names:
                slow_columns.add(lambda: [n.read() for n in slow_files.values()] + (gpus.slow() if gpus else []))
                next_slow = now + SLOW_EVERY_S
        ready, _, _ = select.select([0], [], [], max(0.0, next_tick - time.monotonic()))
        if not ready:
            continue
        chunk = os.read(0, 65536)
        if not chunk:
            return
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            command, _, rest = line.partition(b" ")
            if command == b"m":
                sample()
            elif command == b"w":
                cpu.watch(json.loads(rest))
                sample()  # others begin at other numbers: a window that opens after the answer must not see the step
                out.write(b"{}\n")
                out.flush()
            elif command == b"t":
                heads: dict[str, Any] = {}
                parts: list[bytes] = []
                for name, columns in groups.items():
                    heads[name], bytes_of = columns.take()
                    parts += bytes_of
                answer = {"groups": heads, "gpu_users": gpus.users() if gpus else []}
                out.write(json.dumps(answer).encode() + b"\n" + b"".join(parts))
                out.flush()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
