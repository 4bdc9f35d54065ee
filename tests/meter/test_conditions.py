"""The state of the machine, out of stand-in trees of /sys and /proc, and of this machine as it is."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from harness.meter.conditions import at_rest, in_run, slow_paths, temperature_c, throttled, within
from harness.meter.sampler import Group, Sampler

CPU = "sys/devices/system/cpu"


def write(root: Path, files: dict[str, str | int]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def cpu_files(number: int, package: int = 0) -> dict[str, str | int]:
    """One processor of an Intel machine."""
    folder = f"{CPU}/cpu{number}"
    return {
        f"{folder}/topology/physical_package_id": package,
        f"{folder}/cpufreq/scaling_cur_freq": 2_000_000 + number,
        f"{folder}/cpufreq/scaling_governor": "powersave" if number else "performance",
        f"{folder}/cpufreq/scaling_driver": "intel_pstate",
        f"{folder}/cpufreq/energy_performance_preference": "balance_performance",
        f"{folder}/cpufreq/scaling_min_freq": 800_000,
        f"{folder}/cpufreq/scaling_max_freq": 3_900_000 if number % 2 else 4_700_000,
        f"{folder}/thermal_throttle/core_throttle_count": number,
        f"{folder}/thermal_throttle/package_throttle_count": 7,
    }


def two_packages(root: Path) -> Path:
    for number in range(4):
        write(root, cpu_files(number, package=number // 2))
    return write(
        root,
        {
            "sys/class/hwmon/hwmon0/name": "nvme",
            "sys/class/hwmon/hwmon0/temp1_input": 99000,
            "sys/class/hwmon/hwmon10/name": "coretemp",
            "sys/class/hwmon/hwmon10/temp1_label": "Package id 1",
            "sys/class/hwmon/hwmon10/temp1_input": 51000,
            "sys/class/hwmon/hwmon2/name": "coretemp",
            "sys/class/hwmon/hwmon2/temp1_label": "Package id 0",
            "sys/class/hwmon/hwmon2/temp1_input": 50000,
            "sys/class/hwmon/hwmon2/temp2_label": "Core 0",
            "sys/class/hwmon/hwmon2/temp2_input": 70000,
            "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp",
            "sys/class/thermal/thermal_zone0/temp": 50000,
        },
    )


def said(paths: dict[str, Path], start: str = "") -> dict[str, int]:
    return {name: int(path.read_text()) for name, path in paths.items() if name.startswith(start)}


def test_what_the_sampler_reads_on_a_machine_with_two_packages(tmp_path: Path) -> None:
    assert said(slow_paths(two_packages(tmp_path))) == {
        "temperature_mc.0": 50000,
        "temperature_mc.1": 51000,
        "throttle.package0": 7,
        "throttle.package1": 7,
        **{f"clock_khz.cpu{n}": 2_000_000 + n for n in range(4)},
        **{f"throttle.core{n}": n for n in range(4)},
    }


@pytest.mark.parametrize(
    ("count", "chosen"),
    [(1, [0]), (8, [*range(8)]), (12, [0, 1, 3, 4, 6, 7, 9, 10]), (64, [0, 8, 16, 24, 32, 40, 48, 56])],
)
def test_clocks_of_a_few_cpus_from_one_end_to_the_other(tmp_path: Path, count: int, chosen: list[int]) -> None:
    for number in range(count):
        write(tmp_path, cpu_files(number))
    found = slow_paths(tmp_path)
    assert [name for name in found if name.startswith("clock_khz")] == [f"clock_khz.cpu{n}" for n in chosen]
    assert [name for name in found if name.startswith("throttle.core")] == [f"throttle.core{n}" for n in chosen]


def test_a_cpu_that_is_switched_off_stands_for_nothing(tmp_path: Path) -> None:
    write(tmp_path, {f"{CPU}/cpu0/online": 0, f"{CPU}/cpu0/thermal_throttle/package_throttle_count": 0})
    write(tmp_path, {**cpu_files(1), f"{CPU}/cpu1/online": 1})
    assert sorted(slow_paths(tmp_path)) == ["clock_khz.cpu1", "throttle.core1", "throttle.package0"]


@pytest.mark.parametrize(
    ("driver", "sensors", "expected"),
    [
        ("k10temp", {"Tctl": 80000, "Tdie": 60000, "Tccd1": 65000}, [60000]),  # Tctl may lie above
        ("k10temp", {"Tctl": 80000, "Tccd1": 65000}, [80000]),
        ("zenpower", {"Tdie": 60000, "Tctl": 60000}, [60000]),
        ("coretemp", {"Physical id 0": 40000, "Core 0": 41000}, [40000]),
        ("coretemp", {"Core 0": 41000}, []),
        ("k10temp", {"": 45000}, [45000]),  # older chips have no labels
        ("cpu_thermal", {"": 47000}, [47000]),
        ("soc_thermal", {"": 48000}, [48000]),
        ("acpitz", {"": 20000}, []),
        ("nvme", {"Composite": 38000}, []),
    ],
)
def test_sensors_of_packages(tmp_path: Path, driver: str, sensors: dict[str, int], expected: list[int]) -> None:
    folder = "sys/class/hwmon/hwmon1"
    write(tmp_path, {f"{folder}/name": driver})
    for number, (label, value) in enumerate(sensors.items(), start=1):
        write(tmp_path, {f"{folder}/temp{number}_input": value})
        if label:
            write(tmp_path, {f"{folder}/temp{number}_label": label})
    assert [*said(slow_paths(tmp_path)).values()] == expected


@pytest.mark.parametrize(
    ("zone", "is_processor"),
    [
        ("x86_pkg_temp", True),
        ("cpu-thermal", True),
        ("cpu_thermal", True),
        ("soc-thermal", True),
        ("cpu0-thermal", True),
        ("cpu-0-1-thermal", True),
        ("bigcore0-thermal", True),
        ("package-thermal", True),
        ("CPU-therm", True),
        ("TCPU", True),
        ("acpitz", False),
        ("gpu-thermal", False),
        ("iwlwifi_1", False),
        ("INT3400 Thermal", False),
        ("battery", False),
    ],
)
def test_zones_stand_in_where_no_sensor_is(tmp_path: Path, zone: str, is_processor: bool) -> None:
    folder = "sys/class/thermal/thermal_zone3"
    write(tmp_path, {f"{folder}/type": zone, f"{folder}/temp": 42000})
    assert said(slow_paths(tmp_path)) == ({"temperature_mc.0": 42000} if is_processor else {})


def test_a_sensor_that_tells_nothing_gives_way_to_a_zone(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "sys/class/hwmon/hwmon0/name": "coretemp",
            "sys/class/hwmon/hwmon0/temp1_label": "Package id 0",
            "sys/class/hwmon/hwmon0/temp1_input": "no number",
            "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp",
            "sys/class/thermal/thermal_zone0/temp": 43000,
        },
    )
    assert said(slow_paths(tmp_path)) == {"temperature_mc.0": 43000}


def test_an_empty_tree_says_nothing(tmp_path: Path) -> None:
    assert slow_paths(tmp_path) == {}
    assert at_rest(tmp_path) == {}


def test_the_machine_at_rest(tmp_path: Path) -> None:
    write(
        two_packages(tmp_path),
        {
            f"{CPU}/online": "0-3",
            f"{CPU}/smt/active": 1,
            f"{CPU}/intel_pstate/no_turbo": 0,
            "sys/devices/system/node/online": "0-1",
            "sys/fs/cgroup/cgroup.controllers": "cpu memory",
            "sys/class/powercap/intel-rapl:0/name": "package-0",
            "sys/class/powercap/intel-rapl:0/constraint_0_name": "long_term",
            "sys/class/powercap/intel-rapl:0/constraint_0_power_limit_uw": 65_000_000,
            "sys/class/powercap/intel-rapl:0/constraint_1_name": "short_term",
            "sys/class/powercap/intel-rapl:0/constraint_1_power_limit_uw": 90_000_000,
            "sys/class/powercap/intel-rapl:0/constraint_2_power_limit_uw": "",
            "proc/sys/kernel/osrelease": "6.1.0-test",
            "proc/cmdline": "root=UUID=1 quiet isolcpus=2,3 mitigations=off intel_pstate=passive ip=192.0.2.1",
            "proc/loadavg": "0.25 0.50 0.75 1/234 5678",
            "proc/uptime": "3600.50 7000.00",
            "proc/meminfo": "MemTotal: 100 kB\nMemAvailable: 80 kB\nSwapTotal: 50 kB\nSwapFree: 20 kB",
            "proc/cpuinfo": "microcode\t: 0xf4\nflags\t: fpu vme\nSerial\t: 777\n\nprocessor\t: 1\nmicrocode\t: 0x1",
        },
    )
    assert at_rest(tmp_path) == {
        "governors": ["performance", "powersave"],
        "scaling_drivers": ["intel_pstate"],
        "energy_performance_preferences": ["balance_performance"],
        "lowest_khz": [800_000],
        "highest_khz": [3_900_000, 4_700_000],
        "boost": True,
        "smt": True,
        "cpus_online": 4,
        "numa_nodes": 2,
        "kernel": "6.1.0-test",
        "cgroup_version": 2,
        "power_limits_uw": {
            "intel-rapl:0 package-0 long_term": 65_000_000,
            "intel-rapl:0 package-0 short_term": 90_000_000,
        },
        "command_line": ["isolcpus=2,3", "mitigations=off", "intel_pstate=passive"],
        "load_1_min": 0.25,
        "uptime_s": 3600.5,
        "memory_available_kb": 80,
        "swap_used_kb": 30,
        "microcode": "0xf4",
        "virtualised": False,
    }


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({f"{CPU}/intel_pstate/no_turbo": 1, f"{CPU}/cpufreq/boost": 1}, {"boost": False}),
        ({f"{CPU}/cpufreq/boost": 1}, {"boost": True}),
        ({f"{CPU}/cpufreq/boost": 0}, {"boost": False}),
        ({f"{CPU}/smt/active": 0}, {"smt": False}),
        ({f"{CPU}/online": "0,2-5,8"}, {"cpus_online": 6}),
        ({f"{CPU}/online": "some"}, {}),
        ({"proc/cpuinfo": "flags : fpu hypervisor"}, {"virtualised": True}),
        ({"proc/cpuinfo": "Features : fp asimd"}, {}),  # ARM does not tell
        ({"proc/cmdline": "isolcpusx=1 amd_pstate=active nosmt"}, {"command_line": ["amd_pstate=active", "nosmt"]}),
        ({"proc/meminfo": "MemAvailable:\nSwapTotal: 0 kB\nSwapFree: 0 kB"}, {"swap_used_kb": 0}),
        ({"proc/meminfo": "SwapTotal: 9 kB"}, {}),
        ({"proc/loadavg": ""}, {}),
        ({"sys/fs/cgroup/memory/tasks": ""}, {"cgroup_version": 1}),
        ({"sys/fs/cgroup/memory/tasks": "", "sys/fs/cgroup/unified/cgroup.controllers": ""}, {"cgroup_version": 1}),
    ],
)
def test_parts_of_the_machine_at_rest(tmp_path: Path, files: dict[str, str | int], expected: dict[str, object]) -> None:
    assert at_rest(write(tmp_path, files)) == expected


BATTERY: dict[str, str | int] = {"BAT0/type": "Battery"}


@pytest.mark.parametrize(
    ("files", "on_battery"),
    [
        ({**BATTERY, "AC/type": "Mains", "AC/online": 1}, False),
        ({**BATTERY, "AC/type": "Mains", "AC/online": 0}, True),
        ({**BATTERY, "AC/type": "Mains", "AC/online": 0, "usb/type": "USB", "usb/online": 1}, False),
        ({**BATTERY, "BAT0/status": "Discharging"}, True),
        ({**BATTERY, "BAT0/status": "Full"}, False),
        ({**BATTERY, "BAT0/status": "Unknown"}, None),
        ({"usb/type": "USB", "usb/online": 0}, None),  # a port of a desktop
        ({"mouse/type": "Battery", "mouse/scope": "Device", "mouse/status": "Discharging"}, None),
        ({"AC/type": "Mains", "AC/online": 1, "usb/type": "USB", "usb/online": 0}, False),
        ({"BAT0/type": "Battery", "BAT0/present": 0, "BAT0/status": "Unknown"}, None),
    ],
)
def test_battery_or_mains(tmp_path: Path, files: dict[str, str | int], on_battery: bool | None) -> None:
    write(tmp_path, {f"sys/class/power_supply/{name}": content for name, content in files.items()})
    assert at_rest(tmp_path).get("on_battery") is on_battery


def test_this_machine_as_it_is() -> None:
    found = at_rest()
    assert json.loads(json.dumps(found)) == found
    assert found["uptime_s"] > 0
    assert found["cpus_online"] > 0
    for path in slow_paths().values():
        int(path.read_text())


def test_the_sampler_reads_these_files(tmp_path: Path) -> None:
    sampler = Sampler({}, slow_paths(two_packages(tmp_path)), nvml=False, interval_s=0.02)
    try:
        slow, deadline = Group(), time.monotonic() + 20
        while not slow.times_s and time.monotonic() < deadline:
            slow.extend(sampler.take().groups["slow"])
    finally:
        sampler.stop()
    assert temperature_c(slow) == 51.0
    assert in_run(slow)["throttle.package1"] == 0
    assert throttled(slow) is None


def seconds(**columns: list[int | None]) -> Group:
    """Readings a second apart; `__` in a name stands for the point."""
    length = max(len(column) for column in columns.values())
    return Group([float(n) for n in range(length)], {name.replace("__", "."): v for name, v in columns.items()})


def test_what_a_run_was_like() -> None:
    slow = seconds(
        temperature_mc__0=[40_000, 61_500, None, 55_000],
        temperature_mc__1=[None, None, None, None],
        clock_khz__cpu0=[3_000_000, 1_000_000, 2_000_000, None],
        throttle__package0=[5, 5, 8, 9],
        gpu0__temperature_c=[50, 70, 65, 60],
        gpu0__clock_mhz=[1500, 1400, 1300, 1200],
        gpu0__throttle_reasons=[0x1, 0x4, 0x24, None],
    )
    assert in_run(slow) == {
        "temperature_c.0": {"start": 40.0, "end": 55.0, "highest": 61.5},
        "clock_mhz.cpu0": {"mean": 2000.0, "lowest": 1000.0},
        "throttle.package0": 4,
        "gpu0.temperature_c": {"start": 50, "end": 60, "highest": 70},
        "gpu0.clock_mhz": {"mean": 1350.0, "lowest": 1200},
        "gpu0.throttle_reasons": ["software power cap", "software thermal slowdown"],
    }


def test_a_run_without_readings() -> None:
    assert in_run(Group()) == {}
    assert throttled(Group()) is None
    assert temperature_c(Group()) is None


@pytest.mark.parametrize(
    ("counter", "sentence"),
    [
        ([5, 5, 5], None),
        ([5, None, 5], None),
        ([None, None, None], None),
        ([5], None),
        ([9, 0, 0], None),  # a counter that was reset
        ([5, 6, 6], "package0 lowered its clock for heat once"),
        ([5, None, 8], "package0 lowered its clock for heat 3 times"),
        ([9, 0, 2], "package0 lowered its clock for heat 2 times"),
    ],
)
def test_a_throttled_processor(counter: list[int | None], sentence: str | None) -> None:
    assert throttled(seconds(throttle__package0=counter)) == sentence


@pytest.mark.parametrize(
    ("reasons", "sentence"),
    [
        ([0x0], None),
        ([0x1, 0x2, 0x4, 0x10, 0x100, None], None),
        ([0x4, 0xC], "gpu1 lowered its clock: hardware slowdown"),
        ([0x20], "gpu1 lowered its clock: software thermal slowdown"),
        ([0x40], "gpu1 lowered its clock: hardware thermal slowdown"),
        ([0x80, 0x8], "gpu1 lowered its clock: hardware slowdown, hardware power brake"),
    ],
)
def test_a_throttled_gpu(reasons: list[int | None], sentence: str | None) -> None:
    assert throttled(seconds(gpu1__throttle_reasons=reasons)) == sentence


@pytest.mark.parametrize(
    ("columns", "degrees"),
    [
        ({"temperature_mc__0": [90_000, 50_000], "temperature_mc__1": [91_000, 52_500]}, 52.5),
        ({"temperature_mc__0": [90_000, 50_000], "temperature_mc__1": [91_000, None]}, 50.0),
        ({"temperature_mc__0": [90_000, None], "temperature_mc__1": [None, None]}, 90.0),
        ({"temperature_mc__0": [None, None]}, None),
        ({"gpu0__temperature_c": [80, 80]}, None),
    ],
)
def test_the_temperature_now(columns: dict[str, list[int | None]], degrees: float | None) -> None:
    assert temperature_c(seconds(**columns)) == degrees


def test_a_window_keeps_the_reading_before_it() -> None:
    slow = seconds(throttle__package0=[0, 1, 1, 2, 3])
    assert within(slow, 1.5, 3.5).times_s == [1.0, 2.0, 3.0]
    assert throttled(within(slow, 1.5, 2.5)) is None
    assert in_run(within(slow, 2.5, 3.5)) == {"throttle.package0": 1}
    assert within(slow, -2.0, -1.0).times_s == []
    assert within(Group(), 1.0, 2.0).times_s == []
    assert within(slow, -1.0, 0.5).times_s == [0.0]
