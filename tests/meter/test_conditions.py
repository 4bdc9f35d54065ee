"""The state of a machine, on trees that stand in for /sys and /proc."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.meter.conditions import at_rest, in_run, slow_paths, temperature_c, throttled, within
from harness.meter.sampler import Group


def put(root: Path, **files: str) -> None:
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")


CPU = "sys/devices/system/cpu"


@pytest.fixture
def laptop(tmp_path: Path) -> Path:
    for number in range(16):
        for name, content in {
            "cpufreq/scaling_governor": "powersave",
            "cpufreq/scaling_driver": "intel_pstate",
            "cpufreq/scaling_cur_freq": "2400000",
            "thermal_throttle/core_throttle_count": "1",
            "thermal_throttle/package_throttle_count": "2",
            "topology/physical_package_id": str(number // 8),
        }.items():
            put(tmp_path, **{f"{CPU}/cpu{number}/{name}": content})
    put(
        tmp_path,
        **{
            f"{CPU}/intel_pstate/no_turbo": "0",
            f"{CPU}/smt/active": "1",
            "sys/class/hwmon/hwmon3/name": "coretemp",
            "sys/class/hwmon/hwmon3/temp1_label": "Package id 0",
            "sys/class/hwmon/hwmon3/temp1_input": "48000",
            "sys/class/hwmon/hwmon3/temp2_label": "Core 0",
            "sys/class/hwmon/hwmon3/temp2_input": "51000",
            "sys/class/hwmon/hwmon4/name": "nvme",
            "sys/class/hwmon/hwmon4/temp1_input": "30000",
            "sys/class/powercap/intel-rapl:0/name": "package-0",
            "sys/class/powercap/intel-rapl:0/constraint_0_name": "long_term",
            "sys/class/powercap/intel-rapl:0/constraint_0_power_limit_uw": "15000000",
            "sys/class/power_supply/AC/type": "Mains",
            "sys/class/power_supply/AC/online": "0",
            "proc/cmdline": "root=UUID=123-secret mitigations=off quiet",
            "proc/loadavg": "0.50 0.4 0.3 1/200 77",
            "proc/cpuinfo": "processor : 0\nmicrocode : 0xf0\nflags : fpu hypervisor vme\nSerial : 777",
            "proc/meminfo": "MemTotal: 100 kB\nMemAvailable:   90 kB\nSwapTotal: 10 kB\nSwapFree: 4 kB",
        },
    )
    return tmp_path


def test_the_sampler_is_given_the_packages_sensors_and_some_clocks(laptop: Path) -> None:
    found = slow_paths(laptop)
    assert found["temperature_mc.0"].name == "temp1_input"
    assert [name for name in found if name.startswith("temperature")] == ["temperature_mc.0"]
    assert len([name for name in found if name.startswith("clock_khz")]) == 8
    assert {"throttle.package0", "throttle.package1"} <= set(found)
    assert all(path.exists() for path in found.values())


@pytest.mark.parametrize(
    ("files", "temperature"),
    [
        ({"hwmon/hwmon0/name": "k10temp", "hwmon/hwmon0/temp1_label": "Tctl", "hwmon/hwmon0/temp1_input": "61000"},
         "61000"),
        ({"thermal/thermal_zone1/type": "x86_pkg_temp", "thermal/thermal_zone1/temp": "44000"}, "44000"),
        ({"thermal/thermal_zone0/type": "cpu-thermal", "thermal/thermal_zone0/temp": "39000"}, "39000"),
        ({"hwmon/hwmon0/name": "cpu_thermal", "hwmon/hwmon0/temp1_input": "42000"}, "42000"),
        ({"thermal/thermal_zone0/type": "battery", "thermal/thermal_zone0/temp": "25000"}, None),
    ],
)  # fmt: skip
def test_where_processors_tell_their_temperature(
    tmp_path: Path, files: dict[str, str], temperature: str | None
) -> None:
    put(tmp_path, **{f"sys/class/{name}": content for name, content in files.items()})
    found = slow_paths(tmp_path)
    assert [path.read_text().strip() for path in found.values()] == ([temperature] if temperature else [])


def test_what_is_recorded_of_a_machine_at_rest(laptop: Path) -> None:
    known = at_rest(laptop)
    assert (known["governors"], known["scaling_drivers"], known["turbo_off"], known["smt"]) == (
        ["powersave"], ["intel_pstate"], "0", "1",
    )  # fmt: skip
    assert known["power_limits_uw"] == {"intel-rapl:0 package-0 long_term": 15_000_000}
    assert (known["on_battery"], known["virtualised"], known["microcode"]) == (True, True, "0xf0")
    assert (known["load_1_min"], known["MemAvailable_kb"]) == (0.5, 90)
    assert known["command_line"] == ["mitigations=off"]
    assert "secret" not in str(known)
    assert "777" not in str(known)


def test_a_machine_that_shows_nothing_has_nothing_recorded(tmp_path: Path) -> None:
    assert set(at_rest(tmp_path)) == {"kernel"}
    assert slow_paths(tmp_path) == {}


def test_this_machine() -> None:
    assert at_rest()["load_1_min"] >= 0
    assert all(path.exists() for path in slow_paths().values())


def group(**columns: list[int | None]) -> Group:
    named = {name.replace("__", "."): column for name, column in columns.items()}
    return Group([float(n) for n in range(len(next(iter(named.values()))))], named)


def test_a_window_takes_the_reading_before_it_along() -> None:
    found = within(group(a=[1, 2, 3, 4, 5]), 1.5, 3.5)
    assert (found.times_s, found.columns["a"]) == ([1.0, 2.0, 3.0], [2, 3, 4])
    assert within(Group(), 1, 2).times_s == []
    assert within(group(a=[1, 2]), -5, -1).times_s == []


def test_a_runs_temperatures_and_clocks() -> None:
    said = in_run(
        group(temperature_mc__0=[40000, 71000, None, 65000], clock_khz__cpu0=[800_000, 3_200_000, 3_200_000, None],
              gpu0__throttle_reasons=[0, 4, 0x24, 0], throttle__package0=[5, 5, 7, 8], gpu0__clock_mhz=[None] * 4)
    )  # fmt: skip
    assert said["temperature_c.0"] == {"start": 40.0, "end": 65.0, "highest": 71.0}
    assert said["clock_mhz.cpu0"] == {"mean": 2400.0, "lowest": 800.0}
    assert said["gpu0.throttle_reasons"] == ["software power cap", "software thermal slowdown"]
    assert said["throttle.package0"] == 3
    assert "gpu0.clock_mhz" not in said


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"throttle__package0": [3, 3, 3]}, None),
        ({"throttle__package0": [3, 4, 6]}, "3 events of package0"),
        ({"throttle__core__cpu0": [9, 0, 0]}, None),  # it was reset
        ({"gpu0__throttle_reasons": [0, 4, 0]}, None),  # a power cap is how small GPUs always run
        ({"gpu1__throttle_reasons": [0, 0x40, 0]}, "gpu1: hardware thermal slowdown"),
        ({"throttle__package0": [None, None]}, None),
    ],
)
def test_when_a_run_counts_as_throttled(columns: dict[str, list[int | None]], sentence: str | None) -> None:
    assert throttled(group(**columns)) == sentence


def test_the_temperature_now() -> None:
    assert temperature_c(group(temperature_mc__0=[40000, 41000], temperature_mc__1=[39000, 47500])) == 47.5
    assert temperature_c(group(temperature_mc__0=[40000, None])) is None
    assert temperature_c(Group()) is None
