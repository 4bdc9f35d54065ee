"""Finding the RAPL counters that Linux shows below /sys/class/powercap, and saying what keeps them from being read.

The zones form a tree: a package, with its cores, graphics and memory controller as sub-zones. Cores and graphics are
part of the package and are never counted beside it; DRAM is not. `psys` is the whole board and holds the packages, so
it stands apart. The same package may be shown a second time by another interface (intel-rapl-mmio), which is left out.
AMD's counters are in the same tree, under the same names.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from harness.meter.sysfs import number, text

ROOT = Path("/sys/class/powercap")
GRANT = "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj /sys/class/powercap/intel-rapl:*:*/energy_uj"
UPDATE_S = 0.001  # Intel's manual: about a millisecond
OLDEST_S = 0.008  # two updates, and the time that a reading may take


@dataclass(frozen=True)
class Zone:
    """One counter. `component` is what of the machine it counts."""

    name: str  # package-0, package-0/dram, psys
    component: str  # cpu, dram or psys
    path: Path
    wraps_at_j: float | None
    power_limit_w: float | None  # the long-term limit, where it is told


@dataclass
class Found:
    zones: list[Zone] = field(default_factory=list)
    problem: str | None = None  # why there is none, or not all
    grant: str | None = None  # the command that mends it


def find(root: Path = ROOT) -> Found:
    """The counters to read. A zone that is there and can't be read leaves out all of them: half a machine would pass
    for a whole one."""
    folders = sorted(folder for folder in root.glob("intel-rapl:*") if (folder / "energy_uj").exists())
    zones, denied = [], []
    names = {folder.name: text(folder / "name") or folder.name for folder in folders}
    for folder in folders:
        name = names[folder.name]
        parent = names.get(folder.name.rpartition(":")[0])
        if parent is None:
            component = "psys" if name == "psys" else "cpu"
        elif name == "dram":
            component = "dram"
        else:
            continue
        if not os.access(folder / "energy_uj", os.R_OK):
            denied.append(name)
            continue
        wraps_uj, limit_uw = number(folder / "max_energy_range_uj"), number(folder / "constraint_0_power_limit_uw")
        zones.append(
            Zone(
                f"{parent}/{name}" if parent else name,
                component,
                folder / "energy_uj",
                wraps_uj / 1e6 if wraps_uj else None,
                limit_uw / 1e6 if limit_uw else None,
            )
        )
    if denied:
        return Found(
            [],
            f"the RAPL counters ({', '.join(denied)}) are there, but only root may read them (since CVE-2020-8694)",
            GRANT,
        )
    if not any(zone.component == "cpu" for zone in zones):
        return Found([], "this machine shows no RAPL counters (virtual machines don't, nor do most ARM processors)")
    return Found(zones)
