"""The state of the machine that decides what its energy means: temperatures, clocks, limits, load."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness.meter.sampler import Group

MOST_CPUS = 8  # whose clock is read, spread over the machine
PACKAGE_LABELS = ("Package id", "Tctl", "Tdie")
PACKAGE_SENSORS = ("cpu_thermal", "soc_thermal", "x86_pkg_temp", "cpu-thermal", "soc-thermal", "TCPU")
COMMAND_LINE = ("isolcpus", "mitigations", "intel_pstate", "amd_pstate", "nosmt", "intel_idle.max_cstate")

# Bits of NVML's reasons for a lower clock. A power cap set by software is how laptops and small GPUs always run.
GPU_REASONS = {
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
GPU_THROTTLED = 0x8 | 0x20 | 0x40 | 0x80


def slow_paths(root: Path = Path("/")) -> dict[str, Path]:
    """What the sampler reads once a second: a name, and a file that holds a number."""
    cpus = _cpus(root)
    step = max(1, len(cpus) // MOST_CPUS)
    some = cpus[::step][:MOST_CPUS]
    found = {f"temperature_mc.{n}": path for n, path in enumerate(_temperatures(root))}
    for cpu in some:
        found[f"clock_khz.{cpu.name}"] = cpu / "cpufreq/scaling_cur_freq"
        found[f"throttle.core.{cpu.name}"] = cpu / "thermal_throttle/core_throttle_count"
    packages: dict[str, Path] = {}
    for cpu in cpus:
        packages.setdefault(_text(cpu / "topology/physical_package_id") or "0", cpu)
    for number, cpu in packages.items():
        found[f"throttle.package{number}"] = cpu / "thermal_throttle/package_throttle_count"
    return {name: path for name, path in found.items() if path.exists()}


def at_rest(root: Path = Path("/")) -> dict[str, Any]:
    """What does not change within a run. What is unknown is left out; nothing of it names a person or an address."""
    cpus = _cpus(root)
    system = root / "sys/devices/system/cpu"
    known: dict[str, Any] = {
        "governors": _all(cpus, "cpufreq/scaling_governor"),
        "scaling_drivers": _all(cpus, "cpufreq/scaling_driver"),
        "energy_performance_preferences": _all(cpus, "cpufreq/energy_performance_preference"),
        "lowest_khz": _all(cpus, "cpufreq/scaling_min_freq"),
        "highest_khz": _all(cpus, "cpufreq/scaling_max_freq"),
        "turbo_off": _text(system / "intel_pstate/no_turbo"),
        "boost": _text(system / "cpufreq/boost"),
        "smt": _text(system / "smt/active"),
        "cpus_online": _text(system / "online"),
        "numa_nodes": _text(root / "sys/devices/system/node/online"),
        "kernel": platform.release(),
        "power_limits_uw": _power_limits(root),
        "on_battery": _on_battery(root),
        "command_line": [
            word for word in (_text(root / "proc/cmdline") or "").split() if word.partition("=")[0] in COMMAND_LINE
        ],
        "load_1_min": _first_float(root / "proc/loadavg"),
        "uptime_s": _first_float(root / "proc/uptime"),
    }
    cpuinfo = _text(root / "proc/cpuinfo") or ""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "microcode":
            known.setdefault("microcode", value.strip())
        elif name.strip() == "flags":
            known.setdefault("virtualised", "hypervisor" in value.split())
    for line in (_text(root / "proc/meminfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name in ("MemAvailable", "SwapTotal", "SwapFree"):
            known[f"{name}_kb"] = int(value.split()[0])
    return {name: value for name, value in known.items() if value not in (None, [], {}, "")}


def within(slow: Group, begin_s: float, end_s: float) -> Group:
    """The readings of a window, and the one before it: what rose since then rose in it, or in the second before."""
    inside = [n for n, time_s in enumerate(slow.times_s) if time_s <= end_s]
    before = [n for n in inside if slow.times_s[n] <= begin_s]
    first = before[-1] if before else 0
    rows = range(first, inside[-1] + 1) if inside else range(0)
    return Group([slow.times_s[n] for n in rows], {k: [v[n] for n in rows] for k, v in slow.columns.items()})


def in_run(slow: Group) -> dict[str, Any]:
    """Temperatures in °C, clocks in MHz and throttle events of a window, as far as the machine shows them."""
    found: dict[str, Any] = {}
    for name, column in slow.columns.items():
        known = [value for value in column if value is not None]
        if not known:
            continue
        if name.startswith("temperature_mc"):
            found[name.replace("_mc", "_c")] = _spread([value / 1000 for value in known])
        elif name.endswith(".temperature_c"):
            found[name] = _spread(known)
        elif name.startswith("clock_khz"):
            found[name.replace("_khz", "_mhz")] = {"mean": sum(known) / len(known) / 1000, "lowest": min(known) / 1000}
        elif name.endswith(".clock_mhz"):
            found[name] = {"mean": sum(known) / len(known), "lowest": min(known)}
        elif name.startswith("throttle."):
            found[name] = _events(known)
        elif name.endswith(".throttle_reasons"):
            found[name] = [said for bit, said in GPU_REASONS.items() if any(value & bit for value in known)]
    return found


def throttled(slow: Group) -> str | None:
    """Why a window counts as throttled, in a sentence, or None."""
    for name, column in slow.columns.items():
        known = [value for value in column if value is not None]
        if name.startswith("throttle.") and (events := _events(known)):
            return f"{events} events of {name.removeprefix('throttle.')}"
        if name.endswith(".throttle_reasons"):
            reasons = [said for bit, said in GPU_REASONS.items() if bit & GPU_THROTTLED and any(v & bit for v in known)]
            if reasons:
                return f"{name.partition('.')[0]}: {', '.join(reasons)}"
    return None


def temperature_c(slow: Group) -> float | None:
    """The highest temperature of a package by the latest reading."""
    latest = [
        column[-1] / 1000
        for name, column in slow.columns.items()
        if name.startswith("temperature_mc") and column and column[-1] is not None
    ]
    return max(latest, default=None)


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"start": values[0], "end": values[-1], "highest": max(values)}


def _events(values: Sequence[int]) -> int:
    """How often a counter rose. One that falls was reset, which is no event."""
    return sum(max(0, later - earlier) for earlier, later in pairwise(values))


def _temperatures(root: Path) -> list[Path]:
    """The packages' own sensors, else the zones that stand for the processor."""
    found = []
    for sensor in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        name = _text(sensor / "name") or ""
        if name in ("coretemp", "k10temp", "zenpower"):
            labels = sorted(sensor.glob("temp*_label"))
            found += [
                label.with_name(label.name.replace("_label", "_input"))
                for label in labels
                if (_text(label) or "").startswith(PACKAGE_LABELS)
            ]
        elif name in PACKAGE_SENSORS:
            found.append(sensor / "temp1_input")
    if not found:
        zones = sorted((root / "sys/class/thermal").glob("thermal_zone*"))
        found = [zone / "temp" for zone in zones if _text(zone / "type") in PACKAGE_SENSORS]
    return found


def _cpus(root: Path) -> list[Path]:
    folders = (root / "sys/devices/system/cpu").glob("cpu[0-9]*")
    return sorted(folders, key=lambda path: int(path.name[3:]) if path.name[3:].isdigit() else 0)


def _all(cpus: Sequence[Path], name: str) -> list[str]:
    return sorted({value for cpu in cpus if (value := _text(cpu / name))})


def _power_limits(root: Path) -> Mapping[str, int]:
    found = {}
    for limit in sorted((root / "sys/class/powercap").glob("*/constraint_*_power_limit_uw")):
        zone = _text(limit.parent / "name") or limit.parent.name
        constraint = _text(limit.with_name(limit.name.replace("power_limit_uw", "name"))) or limit.name
        with contextlib.suppress(ValueError):
            found[f"{limit.parent.name} {zone} {constraint}"] = int(_text(limit) or "")
    return found


def _on_battery(root: Path) -> bool | None:
    supplies = sorted((root / "sys/class/power_supply").glob("*"))
    online = [_text(supply / "online") for supply in supplies if _text(supply / "type") in ("Mains", "USB")]
    return "1" not in online if online else None


def _first_float(path: Path) -> float | None:
    with contextlib.suppress(ValueError, IndexError):
        return float((_text(path) or "").split()[0])
    return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
