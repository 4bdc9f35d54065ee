"""From a recording to the figures of a run: which parts make a total, what of it is idle, and where it went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.meter.accounting import PERIODS_FOR_A_FIGURE, UNKNOWN, Amount, Curve, peak_w
from harness.meter.energy import Energy, Kind, added, figure, kind_of_sum
from harness.meter.meter import Key, Part, Recording
from harness.meter.phases import PHASES, Phase

NO_IDLE = "idle power was not measured"
ENGINE_HOST, SANDBOX_HOST, HARNESS_HOST = "engine_host:", "sandbox_host:", "harness_host:"
"""Before a coverage: what the machine is to a run that its sources tell the energy of, where that is not all of it."""


@dataclass(frozen=True)
class Idle:
    """Power at rest by source and unit, in watts. `number` is its place in the table `idle`."""

    number: int
    state: str  # loaded or unloaded
    watts: Mapping[Key, float] = field(default_factory=dict)
    busy_cores: float | None = None  # what other programs used meanwhile, where that was not next to nothing


@dataclass(frozen=True)
class CallEnergy:
    """Energy of one phase of one call; `spread_j` is its share by seconds of the run's energy in that phase."""

    call_index: int
    phase: str
    duration_s: float
    joules: float | None
    low_j: float | None
    high_j: float | None
    spread_j: float | None
    kind: Kind
    source: str
    coverage: str


@dataclass(frozen=True)
class Total:
    """A sum over parts that all stand for something else: its source, its parts, and what they cover together."""

    source: str
    keys: tuple[Key, ...]
    coverage: str


def host(*, remote: bool, sandbox_away: bool) -> str:
    """What this machine is to a run: nothing special where engine and sandbox are both on it."""
    if remote:
        return HARNESS_HOST if sandbox_away else SANDBOX_HOST
    return ENGINE_HOST if sandbox_away else ""


def totals(parts: Mapping[Key, Part], *, here: str = "", meter_away: bool = False) -> dict[str, Total]:
    """The totals that these parts make, of a machine that is `here` (see `host`) to the run. psys holds the packages
    and is never added to them; what zeus tells is added only where nothing else tells it."""
    made: dict[str, Total] = {}
    counted = [key for key, part in parts.items() if key[0] in ("rapl", "nvml") and part.instrument.component != "psys"]
    known = {parts[key].instrument.component for key in counted}
    counted += [key for key, part in parts.items() if key[0] == "zeus" and part.instrument.component not in known]
    if counted:
        components = dict.fromkeys(parts[key].instrument.component for key in counted)
        made["counters"] = Total("counters", tuple(counted), here + "+".join(components))
    if modelled := [key for key in parts if key[0] == "codecarbon"]:
        components = dict.fromkeys(parts[key].instrument.component for key in modelled)
        made["codecarbon"] = Total("codecarbon", tuple(modelled), here + "+".join(components))
    if walls := [key for key in parts if key[0] == "meter"]:
        made["meter"] = Total("meter", tuple(walls), (ENGINE_HOST if meter_away else here) + "wall")
    return made


def headline(parts: Mapping[Key, Part], made: Mapping[str, Total]) -> str | None:
    """The source that a run's energy is told by: the widest that is measured, else the estimate of the whole."""
    if "meter" in made:
        return "meter"
    counters = made.get("counters")
    if counters and {parts[key].instrument.component for key in counters.keys} & {"cpu", "soc"}:
        return "counters"
    return next((name for name in ("codecarbon", "counters") if name in made), None)


def is_measured(parts: Mapping[Key, Part]) -> bool:
    """Whether the headline comes from a meter, or from counters that have the processor among them."""
    made = totals(parts)
    chosen = headline(parts, made)
    return chosen in ("meter", "counters") and bool(
        {parts[key].instrument.component for key in made[chosen].keys} & {"wall", "cpu", "soc"}
    )


class Accounts:
    """The energies of one recording.

    `idle` is the measurement that net energy uses. `gpus` are those that the engine uses: all GPUs count in gross,
    these in net; None: all. `wall_factor` is the machine's calibration for the total `counters`, with its interval.
    """

    def __init__(
        self,
        recording: Recording,
        *,
        idle: Idle | None = None,
        gpus: Sequence[int] | None = None,
        here: str = "",
        meter_away: bool = False,
        wall_factor: tuple[float, float, float] | None = None,
    ) -> None:
        self.recording = recording
        self.idle = idle
        self.totals = totals(recording.parts, here=here, meter_away=meter_away)
        self.headline = headline(recording.parts, self.totals)
        self._gpus = None if gpus is None else set(gpus)
        self._wall_factor = wall_factor
        self._here = here

    def amounts(self, begin_s: float, end_s: float) -> dict[Key, Amount]:
        """Of each part, over one window."""
        return {key: self._amount(key, begin_s, end_s) for key in self.recording.parts}

    def gross(self, begin_s: float, end_s: float, phase: str) -> list[Energy]:
        """Every component of every source, and the totals."""
        amounts = self.amounts(begin_s, end_s)
        rows = []
        components: dict[tuple[str, str], list[Key]] = {}
        for key, part in self.recording.parts.items():
            if key[0] == "meter":
                continue  # it is its own total
            components.setdefault((key[0], part.instrument.component), []).append(key)
            if part.gpu is not None:
                rows.append(figure(key[0], key[1], amounts[key], part.kind, self._here + "gpu", phase=phase))
        for (source, component), keys in components.items():
            kind = kind_of_sum([(amounts[key], self.recording.parts[key].kind) for key in keys])
            coverage = self._here + component
            rows.append(figure(source, component, added([amounts[key] for key in keys]), kind, coverage, phase=phase))
        for total in self.totals.values():
            rows.append(self.sum_of(total, amounts, phase))
        if self._wall_factor and "counters" in self.totals:
            rows.append(self._at_the_wall(self.sum_of(self.totals["counters"], amounts, phase)))
        return rows

    def total(self, source: str, begin_s: float, end_s: float, phase: str = "agent") -> Energy:
        """One source's total over a window. Raises KeyError for a source that there is not."""
        total = self.totals[source]
        return self.sum_of(total, {key: self._amount(key, begin_s, end_s) for key in total.keys}, phase)

    def idle_and_net(self, gross: Energy, begin_s: float, end_s: float) -> list[Energy]:
        """What of a total the machine would have drawn at rest, and what is left."""
        total = self.totals[gross.source]
        if self.idle is None or any(key not in self.idle.watts for key in total.keys):
            empty = replace(gross, joules=None, low_j=None, high_j=None, kind="unavailable", detail=NO_IDLE)
            return [replace(empty, layer="idle"), replace(empty, layer="net")]
        said = f"idle power with the model {self.idle.state} (measurement {self.idle.number})"
        if self.idle.busy_cores is not None:
            said += f", while other programs used {self.idle.busy_cores:.2f} cores"
        kept = [key for key in total.keys if self._counts_in_net(key)]
        if len(kept) < len(total.keys):
            gpus = ", ".join(sorted(key[1] for key in kept if key[1].startswith("gpu")))
            said += f"; GPUs of the engine only: {gpus}"
        kept_j = added([self._amount(key, begin_s, end_s) for key in kept]).joules
        return self._less_idle(self.idle, replace(gross, detail=said), kept_j, end_s - begin_s)

    def peak_w(self, begin_s: float, end_s: float) -> float | None:
        """The highest mean power over one second, of the headline. Of several parts, of their sum."""
        if self.headline is None or self.total(self.headline, begin_s, end_s).joules is None:
            return None
        return peak_w([self.recording.curves[key] for key in self.totals[self.headline].keys], begin_s, end_s)

    def by_phase(self, phases: Sequence[Phase]) -> list[Energy]:
        """The headline's total by phase, gross, idle and net; between_calls by the framework and what it started."""
        if self.headline is None:
            return []
        rows: list[Energy] = []
        for name in PHASES:
            stretches = [phase for phase in phases if phase.name == name]
            if not stretches:
                continue
            gross = self._over(stretches)
            rows.append(gross)
            rows += self._idle_and_net_over(gross, stretches)
            if name == "between_calls":
                rows += self._framework_and_tools(gross, stretches)
        return rows

    def shares(self, begin_s: float, end_s: float) -> list[Energy]:
        """The dynamic energy of the CPU, by share of CPU time: an estimate, whatever the counters are."""
        source = "rapl" if any(key[0] == "rapl" for key in self.recording.parts) else "codecarbon"
        keys = [
            key for key, part in self.recording.parts.items()
            if key[0] == source and part.instrument.component in ("cpu", "dram") and part.kind != "estimated_constant"
        ]  # fmt: skip
        if not keys or self.idle is None or any(key not in self.idle.watts for key in keys):
            return []
        net = added([self._amount(key, begin_s, end_s) for key in keys])
        used = self.recording.cpu_shares(begin_s, end_s)
        if net.joules is None or used is None or sum(used.values()) <= 0:
            return []
        dynamic_j = net.joules - (end_s - begin_s) * sum(self.idle.watts[key] for key in keys)
        if dynamic_j <= 0:
            return []  # there is nothing above idle to be shared
        coverage = self._here + "+".join(dict.fromkeys(self.recording.parts[key].instrument.component for key in keys))
        whole_s = sum(used.values())
        said = "dynamic energy by share of CPU time"
        return [
            Energy(source, who, dynamic_j * seconds / whole_s, "estimated", coverage, "net", detail=said)
            for who, seconds in used.items()
        ]

    def calls(self, phases: Sequence[Phase]) -> list[CallEnergy]:
        """Energy of each call's phases: a figure where it is long enough, bounds in any case, and a spread."""
        if self.headline is None:
            return []
        rows = []
        for name in ("load", "prefill", "decode"):
            stretches = [phase for phase in phases if phase.name == name and phase.call is not None]
            whole_s = sum(phase.duration_s for phase in stretches)
            whole = self._over(stretches) if stretches else None
            for phase in stretches:
                assert whole is not None
                assert phase.call is not None
                one = self.total(self.headline, phase.begin_s, phase.end_s)
                if phase.duration_s < PERIODS_FOR_A_FIGURE * self._resolution_s():
                    one = replace(one, joules=None)
                spread_j = None if whole.joules is None else whole.joules * phase.duration_s / whole_s
                rows.append(
                    CallEnergy(
                        phase.call,
                        name,
                        phase.duration_s,
                        one.joules,
                        one.low_j,
                        one.high_j,
                        spread_j,
                        one.kind,
                        one.source,
                        one.coverage,
                    )
                )
        return rows

    def sum_of(self, total: Total, amounts: Mapping[Key, Amount], phase: str = "agent") -> Energy:
        """A total's figure from the amounts of its parts."""
        parts = [(amounts.get(key, UNKNOWN), self.recording.parts[key].kind) for key in total.keys]
        return figure(
            total.source,
            "total",
            added([amount for amount, _ in parts]),
            kind_of_sum(parts),
            total.coverage,
            phase=phase,
        )

    def _at_the_wall(self, counters: Energy) -> Energy:
        assert self._wall_factor is not None
        factor, low, high = self._wall_factor
        joules = counters.joules
        return replace(
            counters,
            source="wall_factor",
            coverage=self._here + "wall",
            kind="estimated" if joules is not None else "unavailable",
            joules=None if joules is None else joules * factor,
            low_j=None if joules is None else joules * low,
            high_j=None if joules is None else joules * high,
            detail=f"counters times {factor:.3f} (95 % interval {low:.3f} to {high:.3f}), by `harness calibrate`",
        )

    def _over(self, stretches: Sequence[Phase]) -> Energy:
        """The headline's total over several stretches of one phase. Each is cut at its edges, so that phases add up
        even where a single stretch is too short for a figure of its own."""
        assert self.headline is not None
        total = self.totals[self.headline]
        name = stretches[0].name
        gap: str | None = self.recording.lost if any(key[0] in ("rapl", "nvml") for key in total.keys) else None
        joules, low, high = 0.0, 0.0, 0.0
        bounded = True
        parts: list[tuple[Amount, Kind]] = []
        for key in total.keys:
            curve: Curve = self.recording.curves[key]
            of_part = 0.0
            for phase in stretches:
                amount = curve.energy(phase.begin_s, phase.end_s)
                gap = gap or amount.gap
                if amount.gap is None:
                    of_part += curve.at(phase.end_s) - curve.at(phase.begin_s)
                if amount.low is None or amount.high is None:
                    bounded = False
                else:
                    low, high = low + amount.low, high + amount.high
            joules += of_part
            parts.append((Amount(of_part, None, None), self.recording.parts[key].kind))
        amount = Amount(
            None if gap else joules, low if bounded else None, high if bounded and not gap else None, gap
        )  # fmt: skip
        return figure(total.source, "total", amount, kind_of_sum(parts), total.coverage, phase=name)

    def _idle_and_net_over(self, gross: Energy, stretches: Sequence[Phase]) -> list[Energy]:
        total = self.totals[gross.source]
        if self.idle is None or any(key not in self.idle.watts for key in total.keys):
            return []
        kept_j = None
        if gross.joules is not None:
            kept_j = gross.joules - sum(
                self.recording.curves[key].at(phase.end_s) - self.recording.curves[key].at(phase.begin_s)
                for key in total.keys
                if not self._counts_in_net(key)
                for phase in stretches
            )
        return self._less_idle(self.idle, gross, kept_j, sum(phase.duration_s for phase in stretches))

    def _less_idle(self, idle: Idle, gross: Energy, kept_j: float | None, duration_s: float) -> list[Energy]:
        """The layers idle and net. `kept_j` is what of the gross joules counts in net, with its idle power in it."""
        keys = self.totals[gross.source].keys
        idle_j = duration_s * sum(idle.watts[key] for key in keys)
        net_j = None
        if kept_j is not None and gross.joules is not None:
            net_j = kept_j - duration_s * sum(idle.watts[key] for key in keys if self._counts_in_net(key))
        bare = replace(gross, low_j=None, high_j=None)
        kind: Kind = "unavailable" if gross.joules is None else gross.kind
        return [replace(bare, layer="idle", joules=idle_j), replace(bare, layer="net", joules=net_j, kind=kind)]

    def _framework_and_tools(self, gross: Energy, stretches: Sequence[Phase]) -> list[Energy]:
        own = [self.recording.cpu_s("own", phase.begin_s, phase.end_s) for phase in stretches]
        all_of_it = [self.recording.cpu_s("sandbox", phase.begin_s, phase.end_s) for phase in stretches]
        if gross.joules is None or None in own or None in all_of_it:
            return []
        own_s, sandbox_s = sum(seconds or 0.0 for seconds in own), sum(seconds or 0.0 for seconds in all_of_it)
        if sandbox_s <= 0:
            return []
        share = min(1.0, own_s / sandbox_s)
        bare = replace(gross, kind="estimated", low_j=None, high_j=None, detail="by share of the sandbox's CPU time")
        return [
            replace(bare, component="framework", joules=gross.joules * share),
            replace(bare, component="tools", joules=gross.joules * (1 - share)),
        ]

    def _amount(self, key: Key, begin_s: float, end_s: float) -> Amount:
        if self.recording.lost and key[0] in ("rapl", "nvml"):
            return Amount(None, None, None, self.recording.lost)
        curve = self.recording.curves.get(key)
        return curve.energy(begin_s, end_s) if curve else UNKNOWN

    def _resolution_s(self) -> float:
        """What the headline's readings can tell apart: the coarsest of its parts."""
        assert self.headline is not None
        return max(self.recording.curves[key].resolution_s for key in self.totals[self.headline].keys)

    def _counts_in_net(self, key: Key) -> bool:
        gpu = self.recording.parts[key].gpu
        return gpu is None or self._gpus is None or gpu in self._gpus
