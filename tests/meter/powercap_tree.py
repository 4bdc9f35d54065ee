"""A powercap tree in a temporary folder: a stand-in for counters that this machine may lack."""

from __future__ import annotations

import os
from pathlib import Path


class StandInZone:
    """One zone whose counter the test drives."""

    def __init__(self, folder: Path, name: str, range_uj: int = 262_143_328_850) -> None:
        folder.mkdir(parents=True)
        self.energy = folder / "energy_uj"
        self._range_uj = range_uj
        (folder / "name").write_text(f"{name}\n")
        (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
        (folder / "constraint_0_power_limit_uw").write_text("65000000\n")
        self.set_j(0.0)

    def set_j(self, joules: float) -> None:
        """As one write: a reader never sees half a number."""
        fd = os.open(self.energy, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.pwrite(fd, f"{int(joules * 1e6) % self._range_uj:<24}\n".encode(), 0)
        finally:
            os.close(fd)


def tree(root: Path, zones: dict[str, str]) -> dict[str, StandInZone]:
    """Zones by folder name ("intel-rapl:0:2") and their names ("dram")."""
    return {folder: StandInZone(root / folder, name) for folder, name in zones.items()}


TWO_PACKAGES = {
    "intel-rapl:0": "package-0",
    "intel-rapl:0:0": "core",
    "intel-rapl:0:1": "uncore",
    "intel-rapl:0:2": "dram",
    "intel-rapl:1": "package-1",
    "intel-rapl:1:0": "core",
    "intel-rapl:1:1": "dram",
    "intel-rapl:2": "psys",
    "intel-rapl-mmio:0": "package-0",
}
