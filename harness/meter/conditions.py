"""The state of the machine that decides what its energy means: temperatures, clocks, limits, load."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness.meter.sampler import Group
from harness.meter.sysfs import number, text

ROOT = Path("/")
MOST_CPUS = 8  # whose clock is read, spread over the machine
MOST_SENSORS = 8
COMMAND_LINE = ("isolcpus", "mitigations", "intel_pstate", "amd_pstate", "nosmt", "intel_idle.max_cstate")

# The board's and the disks' sensors say nothing of the processor. Names differ by maker, `-` and `_` by interface.
_PACKAGE_SENSOR = re.compile(
    r"x86_pkg_temp|tcpu|(soc|package|[mb]?cpu(ss)?[\d-]*|(big|little)core\d*)[-_]?therm.*", re.IGNORECASE
)
# A processor's own drivers, and the labels that stand for the whole package, the truest first: AMD's Tctl may lie some
# degrees above the real one, for the fan's sake.
_PACKAGE_LABELS = {
    "coretemp": ("Package id", "Physical id"),
    "k10temp": ("Tdie", "Tctl"),
    "zenpower": ("Tdie", "Tctl"),
}

# Bits of NVML's reasons for a lower clock. Idle (0x1) is none. A power cap set by software is how laptops and small
# GPUs always run.
GPU_REASONS = {
    0x2: "clocks set by an application",
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x10: "synchronised with other GPUs",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
    0x100: "display clock",
}
GPU_THROTTLED = 0x8 | 0x20 | 0x40 | 0x80


def slow_paths(root: Path = ROOT) -> dict[str, Path]:
    """What the sampler reads once a second: a name, and a file that holds a number.

    `temperature_mc.<n>` in thousandths of a degree Celsius, `clock_khz.<cpu>`, and how often the processor slowed
    itself for heat since the machine's start: `throttle.package<N>`, `throttle.core<N>`. A file that can't be read is
    left out.
    """
    cpus = _cpus_online(root)
    found = {f"temperature_mc.{n}": path for n, path in enumerate(_temperatures(root))}
    packages: dict[str, Path] = {}
    for cpu in cpus:
        packages.setdefault(text(cpu / "topology/physical_package_id") or "0", cpu)
    for package, cpu in packages.items():
        found[f"throttle.package{package}"] = cpu / "thermal_throttle/package_throttle_count"
    for cpu in _spread_over(cpus):
        found[f"clock_khz.{cpu.name}"] = cpu / "cpufreq/scaling_cur_freq"
        found[f"throttle.{cpu.name.replace('cpu', 'core')}"] = cpu / "thermal_throttle/core_throttle_count"
    return {name: path for name, path in found.items() if number(path) is not None}


def at_rest(root: Path = ROOT) -> dict[str, Any]:
    """What does not change within a run. What is unknown is left out; nothing of it names a person or an address."""
    cpus = _cpus_online(root)
    system = root / "sys/devices/system"
    known: dict[str, Any] = {
        "governors": _all(cpus, "cpufreq/scaling_governor"),
        "scaling_drivers": _all(cpus, "cpufreq/scaling_driver"),
        "energy_performance_preferences": _all(cpus, "cpufreq/energy_performance_preference"),
        "lowest_khz": _all_numbers(cpus, "cpufreq/scaling_min_freq"),
        "highest_khz": _all_numbers(cpus, "cpufreq/scaling_max_freq"),
        "boost": _boost(system / "cpu"),
        "smt": _flag(system / "cpu/smt/active"),
        "cpus_online": _count(text(system / "cpu/online")),
        "numa_nodes": _count(text(system / "node/online")),
        "kernel": text(root / "proc/sys/kernel/osrelease"),
        "cgroup_version": _cgroup_version(root / "sys/fs/cgroup"),
        "power_limits_uw": _power_limits(root),
        "on_battery": _on_battery(root),
        # Never the whole line: it names disks, hosts and sometimes secrets.
        "command_line": [
            word for word in (text(root / "proc/cmdline") or "").split() if word.partition("=")[0] in COMMAND_LINE
        ],
        "load_1_min": _first_float(root / "proc/loadavg"),
        "uptime_s": _first_float(root / "proc/uptime"),
        **_memory(root),
        **_processor(root),
    }
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
            found[name.replace("_khz", "_mhz")] = _clocks([value / 1000 for value in known])
        elif name.endswith(".clock_mhz"):
            found[name] = _clocks(known)
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
            return f"{name.removeprefix('throttle.')} lowered its clock for heat {_times(events)}"
        if name.endswith(".throttle_reasons"):
            reasons = [said for bit, said in GPU_REASONS.items() if bit & GPU_THROTTLED and any(v & bit for v in known)]
            if reasons:
                return f"{name.partition('.')[0]} lowered its clock: {', '.join(reasons)}"
    return None


def temperature_c(slow: Group) -> float | None:
    """The highest temperature of a package by the latest reading that told one, in °C."""
    sensors = [column for name, column in slow.columns.items() if name.startswith("temperature_mc")]
    for latest in range(len(slow.times_s) - 1, -1, -1):
        known = [value for column in sensors if (value := column[latest]) is not None]
        if known:
            return max(known) / 1000
    return None


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"start": values[0], "end": values[-1], "highest": max(values)}


def _clocks(values: Sequence[float]) -> dict[str, float]:
    return {"mean": round(sum(values) / len(values), 1), "lowest": min(values)}


def _events(values: Sequence[int]) -> int:
    """How often a counter rose. One that falls was reset, which is no event."""
    return sum(max(0, later - earlier) for earlier, later in pairwise(values))


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _temperatures(root: Path) -> list[Path]:
    """The packages' own sensors, else the zones that stand for the processor."""
    found: list[Path] = []
    for sensor in _in_order((root / "sys/class/hwmon").glob("hwmon*")):
        name = text(sensor / "name") or ""
        if name in _PACKAGE_LABELS:
            found += _labelled(sensor, _PACKAGE_LABELS[name])
        elif _PACKAGE_SENSOR.fullmatch(name):
            found.append(sensor / "temp1_input")
    found = [path for path in found if number(path) is not None]
    if not found:
        zones = _in_order((root / "sys/class/thermal").glob("thermal_zone*"))
        found = [zone / "temp" for zone in zones if _PACKAGE_SENSOR.fullmatch(text(zone / "type") or "")]
    return found[:MOST_SENSORS]


def _labelled(sensor: Path, wanted: Sequence[str]) -> list[Path]:
    labels = {path: text(path) or "" for path in _in_order(sensor.glob("temp*_label"))}
    if not labels:
        return [sensor / "temp1_input"]  # the older chips of k10temp have one sensor and no label
    for start in wanted:
        fitting = [path for path, label in labels.items() if label.startswith(start)]
        if fitting:
            return [path.with_name(path.name.replace("_label", "_input")) for path in fitting]
    return []


def _cpus_online(root: Path) -> list[Path]:
    folders = _in_order((root / "sys/devices/system/cpu").glob("cpu[0-9]*"))
    return [cpu for cpu in folders if text(cpu / "online") != "0"]  # the first one often has no such file


def _spread_over(cpus: Sequence[Path]) -> list[Path]:
    """At most MOST_CPUS of them, from one end to the other: performance and efficiency cores, all sockets."""
    count = min(len(cpus), MOST_CPUS)
    return [cpus[n * len(cpus) // count] for n in range(count)]


def _in_order(paths: Iterable[Path]) -> list[Path]:
    """By the numbers in their names: hwmon2 before hwmon10."""
    return sorted(paths, key=lambda path: [int(digits) for digits in re.findall(r"\d+", path.name)])


def _all(cpus: Sequence[Path], name: str) -> list[str]:
    return sorted({value for cpu in cpus if (value := text(cpu / name))})


def _all_numbers(cpus: Sequence[Path], name: str) -> list[int]:
    return sorted({value for cpu in cpus if (value := number(cpu / name)) is not None})


def _boost(cpus: Path) -> bool | None:
    """Whether the processor may go beyond its rated clock."""
    turbo_off = _flag(cpus / "intel_pstate/no_turbo")
    return _flag(cpus / "cpufreq/boost") if turbo_off is None else not turbo_off


def _cgroup_version(mounted: Path) -> int | None:
    if (mounted / "cgroup.controllers").exists():
        return 2
    return 1 if (mounted / "memory").is_dir() or (mounted / "cpuacct").is_dir() else None


def _power_limits(root: Path) -> Mapping[str, int]:
    found = {}
    for limit in sorted((root / "sys/class/powercap").glob("*/constraint_*_power_limit_uw")):
        zone = text(limit.parent / "name") or limit.parent.name
        constraint = text(limit.with_name(limit.name.replace("power_limit_uw", "name"))) or limit.name
        if (microwatts := number(limit)) is not None:
            found[f"{limit.parent.name} {zone} {constraint}"] = microwatts
    return found


def _on_battery(root: Path) -> bool | None:
    """A mouse's battery is no supply of the machine, nor is a USB port of one that has no battery."""
    supplies = list((root / "sys/class/power_supply").glob("*"))
    batteries = [
        supply
        for supply in supplies
        if text(supply / "type") == "Battery" and text(supply / "scope") != "Device" and text(supply / "present") != "0"
    ]
    kinds = ("Mains", "USB") if batteries else ("Mains",)
    plugs = [on for s in supplies if text(s / "type") in kinds and (on := _flag(s / "online")) is not None]
    if plugs:
        return not any(plugs)
    states = {text(battery / "status") for battery in batteries}
    return True if "Discharging" in states else False if states & {"Charging", "Full", "Not charging"} else None


def _memory(root: Path) -> Mapping[str, int]:
    said: dict[str, int] = {}
    for line in (text(root / "proc/meminfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name in ("MemAvailable", "SwapTotal", "SwapFree") and (number := value.split()[:1]) and number[0].isdigit():
            said[name] = int(number[0])
    found = {"memory_available_kb": said["MemAvailable"]} if "MemAvailable" in said else {}
    if "SwapTotal" in said and "SwapFree" in said:
        found["swap_used_kb"] = said["SwapTotal"] - said["SwapFree"]
    return found


def _processor(root: Path) -> Mapping[str, Any]:
    """Of the first processor; the others are alike."""
    found: dict[str, Any] = {}
    for line in (text(root / "proc/cpuinfo") or "").partition("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "microcode":
            found["microcode"] = value.strip()
        elif name.strip() == "flags":
            found["virtualised"] = "hypervisor" in value.split()
    return found


def _count(ranges: str | None) -> int | None:
    """How many numbers a list like 0-3,8 names."""
    if not ranges or not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", ranges):
        return None
    edges = [part.split("-") for part in ranges.split(",")]
    return sum(int(edge[-1]) - int(edge[0]) + 1 for edge in edges)


def _flag(path: Path) -> bool | None:
    value = number(path)
    return None if value is None else value != 0


def _first_float(path: Path) -> float | None:
    try:
        return float((text(path) or "").split()[0])
    except (ValueError, IndexError):
        return None
