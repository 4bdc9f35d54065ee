"""What one run's recording comes to: its figures of energy, who used the CPU, and what makes the run unfit for them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.meter import conditions
from harness.meter.energy import Energy, unavailable
from harness.meter.figures import Accounts, CallEnergy, Idle, host
from harness.meter.meter import Recording
from harness.meter.phases import TimedCall, cut

NEIGHBOUR_CORES = 0.25  # of other programs, at the mean; where that is more, this share of the machine
NEIGHBOUR_SHARE = 0.05
HARNESS_SHARE = 0.02  # of the machine's CPU time
JUDGED_FROM_S = 5.0  # shorter stages are over before the kernel's hundredths of a second say who used the CPU
CLOCK_JUMP_S = 1.0

Window = tuple[float, float]
"""Begin and end in seconds of the monotonic clock."""


@dataclass
class Windows:
    """A run's stretches that have an energy: the agent stage, and apart from it the clearing and the grading."""

    agent: Window | None = None
    clear: Window | None = None
    grading: Window | None = None
    opened_s: float = 0.0  # the moment from which the calls' offsets count
    clocks: tuple[float, float] = (0.0, 0.0)  # what `clocks_apart` said at the beginning and at the end

    def by_clock(self) -> dict[str, Any]:
        """For the archive: where readings lie in the run."""
        return {"agent": self.agent, "clear": self.clear, "grading": self.grading, "opened_s": self.opened_s}


@dataclass
class RunEnergy:
    """As it is stored. Unknown is None."""

    rows: list[Energy]
    calls: list[CallEnergy] = field(default_factory=list)
    source: str | None = None
    total: Energy | None = None  # gross, of that source
    peak_w: float | None = None
    idle_number: int | None = None
    framework_cpu_s: float | None = None
    engine_cpu_s: float | None = None
    harness_cpu_s: float | None = None
    rest_cpu_s: float | None = None
    conditions: dict[str, Any] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    columns: dict[str, Any] | None = None  # the raw readings


def none(reason: str) -> RunEnergy:
    """For a run that was not measured."""
    return RunEnergy(unavailable(reason), flags=[f"no_energy: {reason}"])


def quiet_cores(cores: int) -> float:
    """How many cores other programs may use on a machine of so many, before it is not quiet any more."""
    return max(NEIGHBOUR_CORES, NEIGHBOUR_SHARE * cores)


def clocks_apart() -> float:
    """How far the clock of the day and the one that counts a suspended machine's time are from the monotonic one, in
    seconds. When the sum changes, a clock was set or the machine slept."""
    monotonic = time.monotonic()
    slept = time.clock_gettime(time.CLOCK_BOOTTIME) - monotonic if hasattr(time, "CLOCK_BOOTTIME") else 0.0
    return time.time() - monotonic + slept


def run_energy(
    recording: Recording,
    windows: Windows,
    calls: Sequence[TimedCall],
    *,
    idle: Idle | None,
    engine_pids: Sequence[int] = (),
    remote: bool = False,
    sandbox_away: bool = False,
    meter_away: bool = False,
    wall_factor: tuple[float, float, float] | None = None,
    cores: int,
) -> RunEnergy:
    """Figures of a run. `remote`: no engine of this machine works for it; `sandbox_away`: its sandbox is on another
    machine; `meter_away`: the external meter stands at a remote engine, not at this machine."""
    if windows.agent is None:
        return none("the run did not come to its agent stage")
    if remote and sandbox_away and not meter_away:
        return none("neither the sandbox nor an engine is on this machine")
    begin_s, end_s = windows.agent
    gpus = _gpus_of(recording, engine_pids)
    here = host(remote=remote, sandbox_away=sandbox_away)
    accounts = Accounts(recording, idle=idle, gpus=gpus, here=here, meter_away=meter_away, wall_factor=wall_factor)
    if accounts.headline is None:
        return none("this machine has no source of energy")
    found = RunEnergy(accounts.gross(begin_s, end_s, "agent"), source=accounts.headline)
    for row in list(found.rows):
        if row.source in accounts.totals and row.component == "total":
            found.rows += accounts.idle_and_net(row, begin_s, end_s)
    found.idle_number = idle.number if idle else None
    if idle and idle.busy_cores is not None:
        found.flags.append(f"idle_busy: other programs used {idle.busy_cores:.2f} cores")
    total = found.total = accounts.total(accounts.headline, begin_s, end_s)
    if total.kind == "estimated_constant":
        # Such an energy is a clock. Its parts would look like findings and be seconds.
        found.flags.append("energy_is_a_clock")
    elif total.kind == "unavailable":
        found.flags.append(f"no_energy: {total.detail}")
    else:
        phases = cut(begin_s, end_s, windows.opened_s, calls)
        found.rows += accounts.by_phase(phases)
        found.rows += accounts.shares(begin_s, end_s)
        found.calls = accounts.calls(phases)
        found.peak_w = accounts.peak_w(begin_s, end_s)
    for name, window in (("clear", windows.clear), ("grading", windows.grading)):
        if window is not None and window[1] > window[0]:
            found.rows.append(accounts.total(accounts.headline, *window, phase=name))
    for part, away in (("engine", remote and not meter_away), ("sandbox", sandbox_away)):
        if away:
            detail = f"the {part} is on another machine"
            found.rows.append(Energy("none", part, None, "unavailable", f"{part}_host", detail=detail))
    _who_used_the_cpu(found, recording, begin_s, end_s, cores)
    slow = conditions.within(recording.slow, begin_s, end_s)
    found.conditions = conditions.in_run(slow) | {"load_1_min": os.getloadavg()[0]}
    if sentence := conditions.throttled(slow):
        found.flags.append(f"throttled: {sentence}")
    if strangers := _strangers(recording, engine_pids, gpus):
        found.flags.append(f"gpu_shared: {strangers}")
    if abs(windows.clocks[1] - windows.clocks[0]) > CLOCK_JUMP_S:
        found.flags.append(f"clock_jump: {windows.clocks[1] - windows.clocks[0]:+.1f} s")
    silent = sorted({row.source for row in found.rows if row.kind == "unavailable" and row.layer == "gross"
                     and row.phase == "agent" and row.source != "none"})  # fmt: skip
    if silent:
        reasons = {row.detail for row in found.rows if row.source in silent and row.kind == "unavailable"} - {None}
        found.flags.append(f"source_missing: {', '.join(silent)}: {'; '.join(sorted(map(str, reasons)))}")
    found.columns = recording.columns() | {"windows": windows.by_clock()}
    return found


def _who_used_the_cpu(found: RunEnergy, recording: Recording, begin_s: float, end_s: float, cores: int) -> None:
    def used(who: str) -> float | None:
        return recording.cpu_s(who, begin_s, end_s)

    found.framework_cpu_s = used("own")
    found.engine_cpu_s = used("engine")
    found.harness_cpu_s = used("harness")
    duration_s = end_s - begin_s
    shares = recording.cpu_shares(begin_s, end_s)
    if shares is not None and used("sandbox") is not None and found.harness_cpu_s is not None:
        found.rest_cpu_s = shares["rest"]
        if duration_s >= JUDGED_FROM_S and found.rest_cpu_s > quiet_cores(cores) * duration_s:
            found.flags.append(f"neighbour_busy: {found.rest_cpu_s / duration_s:.2f} cores at the mean")
    if found.harness_cpu_s is not None and duration_s >= JUDGED_FROM_S:
        share = found.harness_cpu_s / (duration_s * cores)
        if share > HARNESS_SHARE:
            found.flags.append(f"harness_busy: {share:.1%} of the machine")


def _gpus_of(recording: Recording, engine_pids: Sequence[int]) -> list[int] | None:
    """The GPUs that the engine's processes use; None where that can't be told: then all count."""
    engine = set(engine_pids)
    used = [number for number, users in enumerate(recording.gpu_users) if engine & set(users)]
    return used or None


def _strangers(recording: Recording, engine_pids: Sequence[int], gpus: list[int] | None) -> str | None:
    if gpus is None:
        return None
    others = {pid for number in gpus for pid in recording.gpu_users[number]} - set(engine_pids)
    return f"{len(others)} other processes" if others else None
