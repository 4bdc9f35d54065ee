"""From known watts to the figures of a run: what makes a total, what is idle, and where the rest went."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest

from harness.meter.accounting import Curve
from harness.meter.energy import Energy, Kind
from harness.meter.figures import Accounts, Idle, headline, host, totals
from harness.meter.meter import Key, Part, Recording
from harness.meter.phases import cut
from harness.meter.readings import Instrument, Readings
from harness.meter.run_energy import Windows, run_energy
from harness.meter.sampler import Group

STEP_S = 0.1
END_S = 130.0


def part(source: str, component: str, unit: str, kind: Kind = "measured", gpu: int | None = None) -> Part:
    form = "counter" if source in ("rapl", "nvml") else "power" if source == "meter" else "model"
    period_s = {"rapl": 0.001, "nvml": 0.1, "meter": 1.0, "codecarbon": 1.0}[source]
    oldest_s = 2 * period_s if form == "counter" else 0.0
    instrument = Instrument(source, component, form, period_s, oldest_s, most_w=2000)  # type: ignore[arg-type]
    return Part(instrument, kind, unit, gpu)


PACKAGES = [part("rapl", "cpu", "package-0"), part("rapl", "cpu", "package-1"), part("rapl", "dram", "package-0/dram")]
PSYS = part("rapl", "psys", "psys")
GPUS = [part("nvml", "gpu", "gpu0", gpu=0), part("nvml", "gpu", "gpu1", gpu=1)]
MODELLED = [part("codecarbon", "cpu", "cpu", "estimated"), part("codecarbon", "ram", "ram", "estimated_constant")]
WALL = part("meter", "wall", "wall")


def recording(
    watts: Mapping[str, float | Callable[[float], float]], parts: list[Part], cpu: Mapping[str, float] | None = None
) -> Recording:
    """Units with constant watts, or with cumulative joules as a function of time; CPU times in cores."""
    made = Recording(parts={(p.instrument.source, p.unit): p for p in parts})
    times = [n * STEP_S for n in range(int(END_S / STEP_S))]
    for p in parts:
        key = (p.instrument.source, p.unit)
        power = watts[p.unit if p.instrument.source != "codecarbon" else f"codecarbon/{p.unit}"]
        if p.instrument.form == "power":
            made.raw[key] = Readings(times, [float(power)] * len(times))  # type: ignore[arg-type]
        else:
            joules = power if callable(power) else (lambda t, w=power: w * t)
            made.raw[key] = Readings(times, [joules(time_s) for time_s in times])
        made.curves[key] = Curve(p.instrument, made.raw[key])
    for name, cores in (cpu or {}).items():
        made.cpu[name] = Curve(
            Instrument("proc", name, "model", 1.0), Readings(times, [cores * time_s for time_s in times])
        )  # fmt: skip
    return made


def find(rows: list[Energy], source: str, component: str, layer: str = "gross", phase: str = "agent") -> Energy:
    [row] = [r for r in rows if (r.source, r.component, r.layer, r.phase) == (source, component, layer, phase)]
    return row


WATTS = {"package-0": 40.0, "package-1": 30.0, "package-0/dram": 5.0, "psys": 100.0, "gpu0": 120.0, "gpu1": 20.0,
         "codecarbon/cpu": 50.0, "codecarbon/ram": 20.0, "wall": 300.0}  # fmt: skip


def test_packages_dram_and_gpus_add_up_and_psys_stands_apart() -> None:
    rows = Accounts(recording(WATTS, [*PACKAGES, PSYS, *GPUS])).gross(10, 110, "agent")
    total = find(rows, "counters", "total")
    assert total.joules == pytest.approx(100 * (40 + 30 + 5 + 120 + 20), rel=1e-4)
    assert (total.kind, total.coverage) == ("measured", "cpu+dram+gpu")
    assert find(rows, "rapl", "cpu").joules == pytest.approx(7000, rel=1e-4)
    assert find(rows, "rapl", "psys").joules == pytest.approx(10000, rel=1e-4)
    assert find(rows, "nvml", "gpu").joules == pytest.approx(14000, rel=1e-4)
    assert find(rows, "nvml", "gpu1").joules == pytest.approx(2000, rel=1e-4)


def test_a_total_has_bounds_that_are_those_of_its_parts() -> None:
    rows = Accounts(recording(WATTS, [*PACKAGES, *GPUS])).gross(10, 110, "agent")
    total = find(rows, "counters", "total")
    parts = [find(rows, "rapl", "cpu"), find(rows, "rapl", "dram"), find(rows, "nvml", "gpu")]
    assert total.low_j == pytest.approx(sum(part.low_j or 0 for part in parts))
    assert total.high_j == pytest.approx(sum(part.high_j or 0 for part in parts))
    assert (total.low_j or 0) <= (total.joules or 0) <= (total.high_j or 0)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([*PACKAGES, *GPUS, *MODELLED, WALL], "meter"),
        ([*PACKAGES, *MODELLED], "counters"),
        ([*GPUS, *MODELLED], "codecarbon"),
        (GPUS, "counters"),
        (MODELLED, "codecarbon"),
        ([], None),
    ],
)
def test_the_headline_is_the_widest_that_is_measured(parts: list[Part], expected: str | None) -> None:
    known = {(p.instrument.source, p.unit): p for p in parts}
    assert headline(known, totals(known)) == expected


def test_gpus_alone_say_that_they_are_gpus_alone() -> None:
    known: dict[Key, Part] = {(p.instrument.source, p.unit): p for p in GPUS}
    assert totals(known)["counters"].coverage == "gpu"


def test_with_a_remote_engine_the_sources_here_are_of_the_sandbox_host() -> None:
    here = host(remote=True, sandbox_away=False)
    rows = Accounts(recording(WATTS, [*PACKAGES, WALL]), here=here, meter_away=True).gross(10, 110, "agent")
    assert find(rows, "counters", "total").coverage == "sandbox_host:cpu+dram"
    assert find(rows, "meter", "total").coverage == "engine_host:wall"
    assert find(rows, "rapl", "cpu").coverage == "sandbox_host:cpu"


def test_a_total_that_is_mostly_a_constant_is_called_one() -> None:
    watts = WATTS | {"codecarbon/cpu": 10.0}
    rows = Accounts(recording(watts, MODELLED)).gross(10, 110, "agent")
    assert find(rows, "codecarbon", "total").kind == "estimated_constant"
    assert find(Accounts(recording(WATTS, MODELLED)).gross(10, 110, "agent"), "codecarbon", "total").kind == "estimated"


def idle(watts: Mapping[str, float], parts: list[Part]) -> Idle:
    return Idle(1, "loaded", {(p.instrument.source, p.unit): watts[p.unit] for p in parts})


def test_net_is_gross_less_idle_and_counts_the_engines_gpus_only() -> None:
    parts = [*PACKAGES, *GPUS]
    rest = idle({"package-0": 10.0, "package-1": 9.0, "package-0/dram": 1.0, "gpu0": 15.0, "gpu1": 12.0}, parts)
    accounts = Accounts(recording(WATTS, parts), idle=rest, gpus=[0])
    gross = find(accounts.gross(10, 110, "agent"), "counters", "total")
    at_rest, net = accounts.idle_and_net(gross, 10, 110)
    assert at_rest.joules == pytest.approx(100 * 47)
    assert net.joules == pytest.approx(100 * ((40 - 10) + (30 - 9) + (5 - 1) + (120 - 15)), rel=1e-4)
    assert "gpu0" in str(net.detail)
    assert "gpu1" not in str(net.detail)


def test_without_idle_power_net_is_unknown() -> None:
    accounts = Accounts(recording(WATTS, PACKAGES))
    at_rest, net = accounts.idle_and_net(find(accounts.gross(10, 110, "agent"), "counters", "total"), 10, 110)
    assert (at_rest.joules, net.joules, net.kind) == (None, None, "unavailable")


@dataclass
class Timed:
    index: int
    offset_s: float
    duration_s: float
    first_token_s: float | None
    load_s: float | None = 0.0
    sent: bool = True


CALLS = [Timed(0, 10, 30, 10, load_s=4.0), Timed(1, 50, 1.0, 0.5), Timed(2, 70, 20, 5)]


def stepped(time_s: float) -> float:
    """20 W, but 100 W from 10 to 40."""
    return 20 * time_s + 80 * (min(max(time_s, 10), 40) - 10)


def test_phases_add_up_to_the_run() -> None:
    parts = [*PACKAGES, *GPUS]
    accounts = Accounts(
        recording(WATTS | {"package-0": stepped}, parts, {"machine": 2, "sandbox": 0.5, "own": 0.1}),
        idle=idle({"package-0": 10.0, "package-1": 9.0, "package-0/dram": 1.0, "gpu0": 15.0, "gpu1": 12.0}, parts),
    )
    phases = cut(5, 105, 0, CALLS)
    rows = accounts.by_phase(phases)
    for layer in ("gross", "idle", "net"):
        whole = [row for row in rows if row.layer == layer and row.component == "total"]
        assert [row.phase for row in whole] == ["load", "prefill", "decode", "between_calls", "tail"]
        gross = accounts.total("counters", 5, 105)
        expected = {row.layer: row for row in [gross, *accounts.idle_and_net(gross, 5, 105)]}[layer]
        assert sum(row.joules or 0 for row in whole) == pytest.approx(expected.joules)
    assert find(rows, "counters", "total", phase="load").joules == pytest.approx(4 * (100 + 30 + 5 + 140), rel=0.005)


def test_between_calls_is_split_by_the_sandboxs_cpu_time() -> None:
    accounts = Accounts(recording(WATTS, PACKAGES, {"machine": 2, "sandbox": 0.5, "own": 0.1}))
    rows = accounts.by_phase(cut(5, 105, 0, CALLS))
    whole = find(rows, "counters", "total", phase="between_calls").joules or 0
    framework = find(rows, "counters", "framework", phase="between_calls")
    tools = find(rows, "counters", "tools", phase="between_calls")
    assert framework.joules == pytest.approx(whole * 0.2)
    assert (framework.joules or 0) + (tools.joules or 0) == pytest.approx(whole)
    assert framework.kind == tools.kind == "estimated"


def test_the_dynamic_part_is_split_by_cpu_time() -> None:
    cpu = {"machine": 1.0, "sandbox": 0.2, "engine": 0.6, "harness": 0.05}
    rest = idle({"package-0": 10.0, "package-1": 9.0, "package-0/dram": 1.0}, PACKAGES)
    rows = Accounts(recording(WATTS, PACKAGES, cpu), idle=rest).shares(10, 110)
    dynamic_j = 100 * (75 - 20)
    assert {row.component: row.joules for row in rows} == pytest.approx(
        {"sandbox": 0.2 * dynamic_j, "engine": 0.6 * dynamic_j, "harness": 0.05 * dynamic_j, "rest": 0.15 * dynamic_j},
        rel=1e-3,
    )
    assert {row.kind for row in rows} == {"estimated"}


def test_a_short_call_has_bounds_and_a_spread_and_no_figure() -> None:
    accounts = Accounts(recording(WATTS, PACKAGES))
    rows = {(row.call_index, row.phase): row for row in accounts.calls(cut(5, 105, 0, CALLS))}
    short, long = rows[1, "decode"], rows[0, "decode"]
    assert short.joules is None
    assert (short.low_j or 0) <= 0.5 * 75 <= (short.high_j or 0)
    assert short.spread_j == pytest.approx(0.5 * 75, rel=0.01)
    assert long.joules == pytest.approx(20 * 75, rel=0.005)
    assert rows[0, "load"].joules == pytest.approx(4 * 75, rel=0.005)


def windows() -> Windows:
    return Windows(agent=(5, 105), clear=(1, 4), grading=(108, 120), opened_s=0.0)


def test_a_run_whose_energy_is_a_clock_has_no_phases_and_no_calls() -> None:
    made = recording(WATTS | {"codecarbon/cpu": 1.0}, MODELLED, {"machine": 1, "sandbox": 0.5, "harness": 0.01})
    found = run_energy(made, windows(), CALLS, idle=None, cores=2)
    assert "energy_is_a_clock" in found.flags
    assert found.calls == []
    assert found.peak_w is None
    assert {row.phase for row in found.rows} == {"agent", "clear", "grading"}


def test_a_measured_run_has_everything() -> None:
    cpu = {"machine": 1.1, "sandbox": 0.2, "own": 0.05, "engine": 0.6, "harness": 0.01}
    rest = idle({"package-0": 10.0, "package-1": 9.0, "package-0/dram": 1.0}, PACKAGES)
    found = run_energy(recording(WATTS, PACKAGES, cpu), windows(), CALLS, idle=rest, cores=2)
    assert (found.source, found.idle_number) == ("counters", 1)
    assert found.peak_w == pytest.approx(75, rel=0.01)
    assert find(found.rows, "counters", "total", phase="grading").joules == pytest.approx(12 * 75, rel=0.005)
    assert find(found.rows, "counters", "total", phase="clear").joules == pytest.approx(3 * 75, rel=0.005)
    assert (found.engine_cpu_s, found.rest_cpu_s) == (pytest.approx(60), pytest.approx(29))
    assert found.flags == ["neighbour_busy: 0.29 cores at the mean"]


def test_a_sandbox_on_another_machine_leaves_figures_of_the_engines_machine_alone() -> None:
    cpu = {"machine": 1.0, "engine": 0.5, "harness": 0.01}
    rest = idle({"package-0": 10.0, "package-1": 9.0, "package-0/dram": 1.0}, PACKAGES)
    away = run_energy(recording(WATTS, PACKAGES, cpu), windows(), [], idle=rest, sandbox_away=True, cores=8)
    assert away.total is not None
    assert away.total.coverage == "engine_host:cpu+dram"
    assert find(away.rows, "none", "sandbox").coverage == "sandbox_host"
    assert {row.component for row in away.rows if row.detail and "share of CPU" in row.detail} == {
        "engine", "harness", "rest"
    }  # fmt: skip
    both = run_energy(recording(WATTS, PACKAGES), windows(), [], idle=None, remote=True, sandbox_away=True, cores=8)
    assert both.total is None
    assert both.flags == ["no_energy: neither the sandbox nor an engine is on this machine"]


def test_idle_power_of_a_busy_machine_is_used_and_said() -> None:
    rest = Idle(3, "loaded", {("rapl", unit): 5.0 for unit in ("package-0", "package-1", "package-0/dram")}, 1.4)
    found = run_energy(recording(WATTS, PACKAGES), windows(), CALLS, idle=rest, cores=2)
    assert found.flags == ["idle_busy: other programs used 1.40 cores"]
    assert "while other programs used 1.40 cores" in str(find(found.rows, "counters", "total", "net").detail)


def test_nothing_above_idle_is_shared_among_nobody() -> None:
    rest = Idle(1, "loaded", {("rapl", unit): 90.0 for unit in ("package-0", "package-1", "package-0/dram")})
    accounts = Accounts(recording(WATTS, PACKAGES, {"machine": 1.0, "sandbox": 0.5}), idle=rest)
    assert accounts.shares(10, 110) == []


def test_a_harness_that_takes_too_much_is_flagged() -> None:
    cpu = {"machine": 1.0, "sandbox": 0.4, "engine": 0.5, "harness": 0.06}
    assert run_energy(recording(WATTS, PACKAGES, cpu), windows(), CALLS, idle=None, cores=2).flags == [
        "harness_busy: 3.0% of the machine"
    ]


def test_another_program_on_the_engines_gpu_is_flagged() -> None:
    made = recording(WATTS, [*PACKAGES, *GPUS])
    made.gpu_users = [[4711, 99], [5]]
    found = run_energy(made, windows(), CALLS, idle=None, engine_pids=[4711], cores=2)
    assert found.flags == ["gpu_shared: 1 other processes"]


def test_a_clock_that_was_set_is_flagged() -> None:
    apart = windows()
    apart.clocks = (100.0, 3700.0)
    assert run_energy(recording(WATTS, PACKAGES), apart, CALLS, idle=None, cores=2).flags == ["clock_jump: +3600.0 s"]


def test_a_source_that_falls_silent_is_named_and_nothing_is_made_up() -> None:
    made = recording(WATTS, [*PACKAGES, WALL])
    times = [time_s for time_s in made.raw["meter", "wall"].times_s if time_s < 60]
    made.curves["meter", "wall"] = Curve(WALL.instrument, Readings(times, [300.0] * len(times)))
    found = run_energy(made, windows(), CALLS, idle=None, cores=2)
    total = find(found.rows, "meter", "total")
    assert (total.joules, total.kind) == (None, "unavailable")
    assert total.low_j == pytest.approx(300 * 55, rel=0.01)
    assert [flag.partition(":")[0] for flag in found.flags] == ["no_energy", "source_missing"]
    assert find(found.rows, "counters", "total").joules is not None


def test_a_lost_sampler_leaves_no_figure_of_its_counters() -> None:
    made = recording(WATTS, [*PACKAGES, *MODELLED])
    made.lost = "the sampler ended"
    found = run_energy(made, windows(), CALLS, idle=None, cores=2)
    assert find(found.rows, "counters", "total").detail == "the sampler ended"
    assert find(found.rows, "counters", "total").joules is None
    assert find(found.rows, "codecarbon", "total").joules is not None


def test_a_throttled_processor_is_flagged() -> None:
    made = recording(WATTS, PACKAGES)
    made.slow = Group([n * 1.0 for n in range(120)], {"throttle.package0": [0 if n < 50 else 3 for n in range(120)]})
    [flag] = run_energy(made, windows(), CALLS, idle=None, cores=2).flags
    assert flag.startswith("throttled: ")


def test_the_wall_factor_makes_an_estimate_beside_the_counters() -> None:
    found = run_energy(
        recording(WATTS, PACKAGES), windows(), CALLS, idle=None, cores=2, wall_factor=(1.25, 1.2, 1.3)
    )  # fmt: skip
    wall = find(found.rows, "wall_factor", "total")
    assert wall.joules == pytest.approx(1.25 * 7500, rel=1e-3)
    assert (wall.kind, wall.coverage) == ("estimated", "wall")
    assert found.source == "counters"
