"""All instruments of a machine together: found once, read through a sweep, and cut into the recordings of its runs."""

from __future__ import annotations

import bisect
import contextlib
import importlib.util
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from harness.meter import carbon, conditions, powercap, zeus_counters
from harness.meter.accounting import Amount, Curve
from harness.meter.energy import Kind
from harness.meter.readings import Instrument, Readings
from harness.meter.sampler import Group, Sampler, SamplerLost

KEPT_S = 5.0  # of the readings before a cut: a window may begin there
GPU_MOST_W = 1500.0
GPU_PERIOD_S = 0.1  # where the burst at the start saw no update
CPU_PERIOD_S = 0.01  # of the kernel's own CPU accounting

Key = tuple[str, str]
"""A part by its source and its unit, as ("rapl", "package-0")."""


@dataclass(frozen=True)
class Part:
    """One instrument, the kind of what it tells, and the component it is counted to."""

    instrument: Instrument
    kind: Kind
    unit: str  # package-0, gpu1, wall: unique within its source
    gpu: int | None = None


class External(Protocol):
    """See harness.meter.external.ExternalMeter."""

    @property
    def instrument(self) -> Instrument: ...
    def start(self) -> None: ...
    def take(self) -> Readings: ...
    def problems(self) -> dict[str, int]: ...
    def stop(self) -> None: ...


@dataclass
class Recording:
    """What all instruments said over a stretch of time. Curves are by source and unit."""

    parts: dict[Key, Part] = field(default_factory=dict)
    curves: dict[Key, Curve] = field(default_factory=dict)
    cpu: dict[str, Curve] = field(default_factory=dict)  # CPU seconds of machine, sandbox, own, engine, harness
    slow: Group = field(default_factory=Group)
    gpu_users: list[list[int]] = field(default_factory=list)
    raw: dict[Key, Readings] = field(default_factory=dict)
    lost: str | None = None  # why the sampler's readings are not in it

    def cpu_s(self, who: str, begin_s: float, end_s: float) -> float | None:
        """CPU seconds that somebody used in a window; None when nobody looked."""
        curve = self.cpu.get(who)
        return curve.energy(begin_s, end_s).joules if curve else None

    def cpu_shares(
        self, begin_s: float, end_s: float, of: Sequence[str] = ("sandbox", "engine", "harness")
    ) -> dict[str, float] | None:
        """CPU seconds of these, as far as somebody looked, and of the rest of the machine; None when the machine's are
        unknown."""
        machine_s = self.cpu_s("machine", begin_s, end_s)
        if machine_s is None:
            return None
        known = {who: seconds for who in of if (seconds := self.cpu_s(who, begin_s, end_s)) is not None}
        return known | {"rest": max(0.0, machine_s - sum(known.values()))}

    def columns(self) -> dict[str, Any]:
        """The raw readings, column by column, for the archive of a run."""
        return {
            "clock": "seconds of CLOCK_MONOTONIC",
            "series": [
                {
                    "source": source,
                    "unit": unit,
                    "component": self.parts[source, unit].instrument.component,
                    "form": self.parts[source, unit].instrument.form,
                    "kind": self.parts[source, unit].kind,
                    "period_s": self.parts[source, unit].instrument.period_s,
                    "wraps_at_j": self.parts[source, unit].instrument.wraps_at_j,
                    "t_s": [round(time_s, 6) for time_s in readings.times_s],
                    "watts" if self.parts[source, unit].instrument.form == "power" else "joules": list(readings.values),
                }
                for (source, unit), readings in self.raw.items()
            ],
            "slow": {"t_s": self.slow.times_s, **self.slow.columns},
        }


@dataclass
class _Fresh:
    """What was read since the last cut."""

    raw: dict[Key, Readings] = field(default_factory=dict)
    cpu: dict[str, Readings] = field(default_factory=dict)
    slow: Group = field(default_factory=Group)
    gpu_users: list[list[int]] = field(default_factory=list)
    lost: str | None = None


class Meter:
    """The instruments of a sweep. Made once; `stop` ends everything it started."""

    def __init__(
        self,
        external: External | None = None,
        *,
        powercap_root: Path | None = None,
        codecarbon: bool = True,
        env: dict[str, str] | None = None,
    ) -> None:
        self._external = external
        self._rapl = powercap.find(powercap_root or powercap.ROOT)
        if codecarbon and importlib.util.find_spec("amdsmi") is not None:
            carbon.import_quietly()  # AMD's library prints what it misses
        self._carbon = carbon.CodeCarbon() if codecarbon else None
        self._env = env
        self._sampler: Sampler | None = None
        self._problem: str | None = None
        self._begin_sampling()
        found = zeus_counters.find()
        self._zeus_problem = found.problem
        self._zeus: zeus_counters.ZeusCounters | None = None
        if found.readers:
            self._zeus = zeus_counters.ZeusCounters(found)
            self._zeus.start()
        self._whole: dict[Key, Amount] = {}  # of the session so far
        self._until: dict[Key, float] = {}  # up to when
        self._lock = threading.Lock()
        self._fresh = _Fresh()
        self._kept: dict[Key, Readings] = {}
        self._kept_cpu: dict[str, Readings] = {}
        self._kept_slow = Group()
        if external is not None:
            external.start()

    @property
    def parts(self) -> list[Part]:
        """Everything that tells energy here."""
        parts: list[Part] = []
        if self._sampler is not None:
            for zone in self._rapl.zones:
                instrument = Instrument(
                    "rapl", zone.component, "counter", powercap.UPDATE_S, powercap.OLDEST_S, zone.wraps_at_j,
                    most_w=10 * zone.power_limit_w if zone.power_limit_w else 2000.0,
                )  # fmt: skip
                parts.append(Part(instrument, "measured", zone.name))
            for gpu in self._sampler.gpus:
                period_s = float(gpu["period_s"] or GPU_PERIOD_S)
                limit_w = gpu["power_limit_w"]
                most_w = 3 * limit_w if limit_w else GPU_MOST_W
                if gpu["counter"]:
                    instrument = Instrument("nvml", "gpu", "counter", period_s, 1.5 * period_s + 0.01, most_w=most_w)
                else:
                    instrument = Instrument("nvml", "gpu", "power", GPU_PERIOD_S, most_w=most_w)
                parts.append(Part(instrument, "measured", f"gpu{gpu['index']}", gpu=int(gpu["index"])))
        if self._zeus is not None:
            for unit in self._zeus.parts:
                parts.append(Part(self._zeus.instrument(unit), "measured", unit))
        if self._carbon is not None:
            for unit, kind in self._carbon.kinds.items():
                parts.append(Part(self._carbon.instrument(unit), kind, unit))
        if self._external is not None:
            parts.append(Part(self._external.instrument, "measured", "wall"))
        return parts

    @property
    def rapl(self) -> powercap.Found:
        """What was found of RAPL, and what keeps it from being read."""
        return self._rapl

    @property
    def by_key(self) -> dict[Key, Part]:
        """The same, by source and unit."""
        return {(part.instrument.source, part.unit): part for part in self.parts}

    def sources(self) -> dict[str, Any]:
        """What there is and what is missing, for the sweep's record."""
        kinds: dict[str, list[dict[str, Any]]] = {}
        for part in self.parts:
            about = {"unit": part.unit, "component": part.instrument.component, "kind": part.kind,
                     "form": part.instrument.form, "period_s": part.instrument.period_s}  # fmt: skip
            kinds.setdefault(part.instrument.source, []).append(about)
        problems: dict[str, Any] = {}
        if self._rapl.problem:
            problems["rapl"] = {"problem": self._rapl.problem, "grant": self._rapl.grant}
        if self._problem or (self._sampler and self._sampler.gpu_problem):
            problems["nvml"] = {"problem": self._problem or (self._sampler and self._sampler.gpu_problem)}
        if self._zeus_problem:
            problems["zeus"] = {"problem": self._zeus_problem}
        if self._carbon is None or self._carbon.problem:
            problems["codecarbon"] = {"problem": self._carbon.problem if self._carbon else "not used"}
        if self._external is not None and (said := self._external.problems()):
            problems["meter"] = {"problem": said}
        return {
            "parts": kinds,
            "problems": problems,
            "codecarbon": {"backend": self._carbon.backend, "version": self._carbon.version} if self._carbon else None,
            "gpus": self._sampler.gpus if self._sampler else [],
            "driver": self._sampler.driver if self._sampler else None,
        }

    def _begin_sampling(self) -> None:
        """Start a sampler, in place of one that is lost. Where none starts, that one stays: it is tried again."""
        zones = {zone.name: zone.path for zone in self._rapl.zones}
        try:
            begun = Sampler(zones, conditions.slow_paths(), env=self._env)
        except (SamplerLost, OSError) as error:
            self._problem = f"the sampler did not start: {error}"
            return
        before, self._sampler = self._sampler, begun
        if before is not None:
            before.stop()

    def mark(self) -> None:
        """A window has an edge now. Costs some microseconds; called from any thread."""
        if self._sampler is not None:
            self._sampler.mark()

    def watch(self, *, sandbox: Path | None = None, own: Sequence[int] = (), engine: Sequence[int] = ()) -> None:
        """Whose CPU time to read from now on, beside the machine's and the harness's own."""
        if self._sampler is not None:
            self._sampler.watch(sandbox=sandbox, own=own, engine=engine, harness=[os.getpid()])

    def cut(self) -> Recording:
        """Everything that was read since the last cut, and the last seconds before it."""
        with self._lock:
            self._gather()
            fresh, self._fresh = self._fresh, _Fresh()
        recording = Recording(parts=self.by_key, lost=fresh.lost, gpu_users=fresh.gpu_users)
        recording.raw = {key: _joined(self._kept.get(key), fresh.raw.get(key)) for key in recording.parts}
        recording.curves = {key: Curve(recording.parts[key].instrument, said) for key, said in recording.raw.items()}
        joined = {
            name: _joined(self._kept_cpu.get(name), fresh.cpu.get(name)) for name in {*self._kept_cpu, *fresh.cpu}
        }
        recording.cpu = {
            name: Curve(Instrument("proc", name, "model", period_s=1.0), said) for name, said in joined.items()
        }
        self._kept = {key: _last(said, KEPT_S) for key, said in recording.raw.items()}
        self._kept_cpu = {name: _last(said, KEPT_S) for name, said in joined.items()}
        recording.slow = Group(list(self._kept_slow.times_s), {k: list(v) for k, v in self._kept_slow.columns.items()})
        recording.slow.extend(fresh.slow)
        self._kept_slow = fresh.slow
        return recording

    def look(self) -> dict[Key, Amount]:
        """Like `whole`, up to now and without a cut: for what has to be known while a run goes on."""
        with self._lock:
            self._gather()
        return self.whole()

    def _gather(self) -> None:
        """Take what the instruments have read since the last time, and add up its energy."""
        fresh, parts = self._fresh, self.by_key
        raw: dict[Key, Readings] = {}
        if self._sampler is not None:
            self._sampler.mark()  # a window that ends now has a reading after its end
            try:
                sample = self._sampler.take()
            except SamplerLost as error:
                fresh.lost = str(error)
                self._begin_sampling()  # what follows is measured again
            else:
                rapl, gpu, times = sample.groups["rapl"], sample.groups["gpu"], sample.groups["cpu"]
                for name, column in rapl.columns.items():
                    raw["rapl", name] = Readings(rapl.times_s, [_scaled(value, 1e-6) for value in column])
                for name, column in gpu.columns.items():
                    raw["nvml", name] = Readings(gpu.times_s, [_scaled(value, 1e-3) for value in column])
                for name, column in times.columns.items():
                    read = Readings(times.times_s, [_scaled(value, 1e-9) for value in column])
                    fresh.cpu[name] = _joined(fresh.cpu.get(name), read)
                fresh.slow.extend(sample.groups["slow"])
                fresh.gpu_users = sample.gpu_users
        if self._zeus is not None:
            raw |= {("zeus", unit): readings for unit, readings in self._zeus.take().items()}
        if self._carbon is not None:
            raw |= {("codecarbon", unit): readings for unit, readings in self._carbon.take().items()}
        if self._external is not None:
            raw["meter", "wall"] = self._external.take()
        for key, part in parts.items():
            before = _last(_joined(self._kept.get(key), fresh.raw.get(key)), KEPT_S)
            read = raw.get(key) or Readings([], [])
            self._add_up(key, Curve(part.instrument, _joined(before, read)))
            fresh.raw[key] = _joined(fresh.raw.get(key), read)

    def begin_whole(self) -> None:
        """A session begins now: see `whole`."""
        self.cut()
        self._whole.clear()

    def whole(self) -> dict[Key, Amount]:
        """Energy of each part from the session's beginning to the last cut."""
        return dict(self._whole)

    def _add_up(self, key: Key, curve: Curve) -> None:
        if curve.covers is None:
            return
        first, last = curve.covers
        begin_s = self._until.get(key, first)
        if last <= begin_s:
            return  # nothing new yet
        part = curve.energy(begin_s, last)
        joules = None if part.gap else curve.at(last) - curve.at(begin_s)
        known = self._whole.get(key, Amount(0.0, None, None))
        if known.joules is None or joules is None:
            self._whole[key] = Amount(None, None, None, known.gap or part.gap)
        else:
            self._whole[key] = Amount(known.joules + joules, None, None)
        self._until[key] = last

    def stop(self) -> None:
        """End every instrument. Safe to call twice."""
        for instrument in (self._sampler, self._zeus, self._carbon, self._external):
            if instrument is not None:
                with contextlib.suppress(Exception):
                    instrument.stop()


def _scaled(value: int | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _joined(before: Readings | None, now: Readings | None) -> Readings:
    both = [readings for readings in (before, now) if readings is not None]
    return Readings([t for r in both for t in r.times_s], [v for r in both for v in r.values])


def _last(readings: Readings, seconds: float) -> Readings:
    if not readings.times_s:
        return readings
    at = bisect.bisect_left(readings.times_s, readings.times_s[-1] - seconds)
    return Readings(readings.times_s[at:], readings.values[at:])
