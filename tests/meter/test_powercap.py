"""Which of the kernel's counters are read, on trees in a temporary folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.meter.powercap import GRANT, find
from tests.meter.powercap_tree import TWO_PACKAGES, tree


def test_packages_and_dram_are_read_and_what_is_in_them_is_not(tmp_path: Path) -> None:
    tree(tmp_path, TWO_PACKAGES)
    found = find(tmp_path)
    assert found.problem is None
    assert [(zone.name, zone.component) for zone in found.zones] == [
        ("package-0", "cpu"),
        ("package-0/dram", "dram"),
        ("package-1", "cpu"),
        ("package-1/dram", "dram"),
        ("psys", "psys"),
    ]
    assert found.zones[0].wraps_at_j == pytest.approx(262_143.32885)
    assert found.zones[0].power_limit_w == 65.0
    assert not any("mmio" in str(zone.path) for zone in found.zones)


def test_processors_of_several_dies_and_amds(tmp_path: Path) -> None:
    tree(tmp_path / "dies", {"intel-rapl:0": "package-0-die-0", "intel-rapl:1": "package-0-die-1"})
    assert [zone.name for zone in find(tmp_path / "dies").zones] == ["package-0-die-0", "package-0-die-1"]
    tree(tmp_path / "amd", {"intel-rapl:0": "package-0", "intel-rapl:0:0": "core"})
    assert [(zone.name, zone.component) for zone in find(tmp_path / "amd").zones] == [("package-0", "cpu")]


def test_a_counter_without_a_range_is_read_all_the_same(tmp_path: Path) -> None:
    tree(tmp_path, {"intel-rapl:0": "package-0"})
    (tmp_path / "intel-rapl:0/max_energy_range_uj").unlink()
    assert find(tmp_path).zones[0].wraps_at_j is None


@pytest.mark.parametrize("names", [{}, {"intel-rapl:0": "psys"}], ids=["nothing", "board alone"])
def test_a_machine_that_shows_no_package(tmp_path: Path, names: dict[str, str]) -> None:
    tree(tmp_path, names)
    found = find(tmp_path)
    assert (found.zones, found.grant) == ([], None)
    assert "shows no RAPL counters" in str(found.problem)


def test_counters_that_may_not_be_read_are_none_and_come_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path, TWO_PACKAGES)
    locked = str(tmp_path / "intel-rapl:0:2/energy_uj")
    monkeypatch.setattr("harness.meter.powercap.os.access", lambda path, _: str(path) != locked)
    found = find(tmp_path)
    assert found.zones == []  # half a machine would pass for a whole one
    assert "(dram) are there, but only root may read them" in str(found.problem)
    assert found.grant == GRANT
