"""What happens between the runs of a sweep, so that they can be compared: idle power, warm-up, rest, a control job, and
a look at whether the machine is quiet. All of it is recorded, none of it is a run."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlite_utils import Database

from harness.bench import UNLOADED, Bench
from harness.engine_state import load, unload
from harness.engines.base import ChatRequest, Engine, EngineError, Finish
from harness.errors import MachineError
from harness.meter import conditions
from harness.meter.carbon import carbon_intensity
from harness.meter.energy import Energy
from harness.meter.figures import Accounts, Idle, headline, is_measured, totals
from harness.meter.meter import Meter, Recording
from harness.meter.run_energy import quiet_cores
from harness.plan import Model, PlannedRun
from harness.run import execute, now
from harness.store import records

IDLE_MEASURED_S = 60.0  # where something tells energy
IDLE_MODELLED_S = 5.0  # where it is estimated from the load: a longer look would say the same
SETTLE_S = 2.0  # after loading or unloading, before idle power is measured
DRIFT = 0.10
QUIET_LOOK_S = 1.0
QUIET_LIMIT_S = 600.0  # waiting for a quiet machine, or for a cool one
BAND_LOOK_S = 3.0
BAND_POWER = 0.10
CONTROL_TRIED_TOKENS = 64
CONTROL_S = 5.0  # that it should take: over twice what a figure of energy needs
CONTROL_MOST_TOKENS = 1024
CONTROL_PROMPT = "Write down the numbers from one to two hundred as words, separated by commas, and nothing else."
CONTROL_HASHED_BYTES = 1 << 30

Say = Callable[[str], None]
Carbon = tuple[str, float, str]
"""A country's code, grams of CO2 equivalent for each kWh there, and where that number is from."""


@dataclass
class Experiment:
    """The state of a session between its runs."""

    bench: Bench
    db: Database
    say: Say
    carbon: Carbon | None = None
    _idle_c: float | None = None
    _idle_w: float | None = None
    _began: float = field(default_factory=time.monotonic)
    _measured_before: int = 0  # position of the run before which idle power was measured last
    _control_tokens: int | None = None
    _recorded: bool = False

    @property
    def meter(self) -> Meter:
        assert self.bench.meter is not None
        return self.bench.meter

    def begin(self, position: int) -> None:
        """What precedes the first run of a session. Raises MachineError when the machine is not what was asked for."""
        self.meter.begin_whole()
        self._began = time.monotonic()
        self._record_session()
        self._recorded = True
        if self.bench.plan.spec.when_busy == "warn" and (others := self._others_busy()):
            self.say(f"the machine is not quiet: other programs use {others:.2f} cores")
        if self.bench.plan.spec.rest_band_c is not None and self._temperature_c() is None:
            raise MachineError("--rest-band: this machine shows no temperature of its processor; use --rest SECONDS")
        self.measure_idle(position)

    def before(self, planned: PlannedRun, first: bool, done: int) -> list[str]:
        """What precedes a run; `done` runs of this session are over. Returns flags for it.

        Raises MachineError when the machine is not quiet and that was to be refused.
        """
        spec = self.bench.plan.spec
        flags = [] if first else self._rest()
        if done and spec.idle_every and done % spec.idle_every == 0:
            self.measure_idle(planned.position)
        if spec.control_every and done % spec.control_every == 0:
            self._control_job(planned.position)
        if spec.when_busy != "warn":
            self._wait_for_quiet(planned)
        return flags

    def end(self) -> None:
        """Close the session: its total, whatever its runs came to. Nothing for one that never began."""
        if not self._recorded:
            return
        self.meter.cut()
        whole, parts = self.meter.whole(), self.meter.by_key
        accounts = Accounts(Recording(parts=parts))
        rows: list[dict[str, Any]] = []
        for total in accounts.totals.values():
            energy = accounts.sum_of(total, whole)
            rows.append({"source": energy.source, "component": "total", "joules": energy.joules, "kind": energy.kind,
                         "coverage": energy.coverage, "detail": energy.detail})  # fmt: skip
        records.end_session(
            self.db, self.bench.sweep_id, self.bench.session, time.monotonic() - self._began, self.meter.sources(), rows
        )

    def warm_up(self, runs: Sequence[PlannedRun]) -> None:
        """Make the first runs once, for the machine and its caches; what comes of them is thrown away."""
        bench = self.bench
        for number in range(min(bench.plan.spec.warmup, len(runs))):
            if bench.cancelled.is_set():
                return
            planned = runs[number]
            self.say(f"warm-up {number + 1} of {bench.plan.spec.warmup}: {planned.label}")
            run_id = f"{bench.sweep_id}-warmup-{number:02d}"
            started_at = now()
            finished = execute(bench, planned, run_id, lambda _: None)
            shutil.rmtree(bench.runs_dir / bench.sweep_id / run_id, ignore_errors=True)
            tokens = [call.output_tokens for call in finished.calls or [] if call.output_tokens is not None]
            self._record_job(
                "warmup", planned.position, planned.label, started_at, finished.agent_s,
                sum(tokens) if tokens else None, finished.energy.total, finished.ended_by,
            )  # fmt: skip

    def measure_idle(self, position: int) -> None:
        """Idle power without a model and with each of the sweep's models, as the machine is now."""
        spec = self.bench.plan.spec
        seconds, parts = spec.idle_s, self.meter.by_key
        if seconds is None:
            seconds = IDLE_MEASURED_S if is_measured(parts) else IDLE_MODELLED_S
        if seconds == 0 or headline(parts, totals(parts)) is None:
            return
        unload(self.bench)
        self._measure_idle(position, None, seconds)
        for model in self.bench.plan.models:
            load(self.bench, model)
            self._measure_idle(position, model, seconds)
        self._measured_before = position

    def _measure_idle(self, position: int, model: Model | None, seconds: float) -> None:
        bench = self.bench
        if bench.cancelled.wait(SETTLE_S if seconds > SETTLE_S else 0):
            return
        what = f"with {model.label} loaded" if model else "without a model"
        self.say(f"measuring idle power {what}: {seconds:g} s")
        started_at = now()
        self._watch(model.engine if model else None)
        recording, begin_s, end_s = self._window(seconds)
        if bench.cancelled.is_set():
            return
        accounts = Accounts(recording)
        number = records.next_number(self.db, "idle", bench.sweep_id)
        watts = {
            key: amount.joules / (end_s - begin_s)
            for key, amount in accounts.amounts(begin_s, end_s).items()
            if amount.joules is not None
        }
        label = model.label if model else UNLOADED
        before = bench.idles.get(label)
        busy_s = recording.cpu_s("machine", begin_s, end_s)
        others = self._others(recording, begin_s, end_s)
        bench.idles[label] = measured = Idle(number, "loaded" if model else "unloaded", watts, others)
        if others is not None:
            self.say(f"the machine was not idle: other programs used {others:.2f} cores, so net energy comes out low")
        records.insert_idle(
            self.db,
            [
                {
                    "sweep_id": bench.sweep_id, "number": number, "session": bench.session,
                    "before_position": position, "state": measured.state, "model": label or None,
                    "started_at": started_at, "duration_s": end_s - begin_s, "source": row.source,
                    "component": row.component, "kind": row.kind, "coverage": row.coverage, "detail": row.detail,
                    "watts": None if row.joules is None else row.joules / (end_s - begin_s),
                    "busy_cores": None if busy_s is None else busy_s / (end_s - begin_s),
                }
                for row in accounts.gross(begin_s, end_s, "idle")
            ],
        )  # fmt: skip
        self._idle_c = conditions.temperature_c(recording.slow)
        if accounts.headline is None:
            return
        keys = accounts.totals[accounts.headline].keys
        self._idle_w = _sum(measured, keys)
        if before is not None:
            self._check_drift(position, _sum(before, keys), self._idle_w)

    def _check_drift(self, position: int, before_w: float | None, now_w: float | None) -> None:
        if not before_w or now_w is None or abs(now_w - before_w) <= DRIFT * before_w:
            return
        flag = f"idle_drift: {before_w:.1f} W before, {now_w:.1f} W after"
        self.say(f"idle power drifted from {before_w:.1f} to {now_w:.1f} W: the runs in between are flagged")
        records.add_flag(self.db, self.bench.sweep_id, self._measured_before, position, flag)

    def _rest(self) -> list[str]:
        """The pause between two runs. Returns the flag of one that ended with the machine still warm."""
        spec = self.bench.plan.spec
        self.bench.cancelled.wait(spec.rest_s)
        if spec.rest_band_c is None or self._idle_c is None:
            return []
        said = False
        deadline = time.monotonic() + QUIET_LIMIT_S
        while not self.bench.cancelled.is_set():
            recording, begin_s, end_s = self._window(BAND_LOOK_S)
            degrees, watts = conditions.temperature_c(recording.slow), self._power_w(recording, begin_s, end_s)
            cool = degrees is not None and degrees <= self._idle_c + spec.rest_band_c
            calm = watts is None or self._idle_w is None or watts <= (1 + BAND_POWER) * self._idle_w
            if cool and calm:
                return []
            if time.monotonic() > deadline:
                return [f"not_cooled: {degrees} °C, {watts and round(watts, 1)} W after {QUIET_LIMIT_S:g} s of rest"]
            if not said:
                self.say(f"resting until within {spec.rest_band_c:g} °C of idle ({self._idle_c:.0f} °C)")
                said = True
        return []

    def _wait_for_quiet(self, planned: PlannedRun) -> None:
        spec = self.bench.plan.spec
        deadline = time.monotonic() + QUIET_LIMIT_S
        said = False
        while (others := self._others_busy()) and not self.bench.cancelled.is_set():
            if spec.when_busy == "refuse":
                raise MachineError(
                    f"the machine is not quiet before run {planned.position}: other programs use {others:.2f} cores; "
                    "end them, or give --when-busy wait or warn"
                )
            if time.monotonic() > deadline:
                return  # the run's own flag will say what it met
            if not said:
                self.say(f"waiting for a quiet machine: other programs use {others:.2f} cores")
                said = True
            self.bench.cancelled.wait(5 * QUIET_LOOK_S)

    def _others_busy(self) -> float | None:
        """Cores that programs use which are none of ours, when they are too many; else None."""
        engines = {model.info.engine: model.engine for model in self.bench.plan.models}
        pids = tuple(pid for engine in engines.values() for pid in engine.pids())
        self.meter.watch(engine=pids)
        return self._others(*self._window(QUIET_LOOK_S))

    def _others(self, recording: Recording, begin_s: float, end_s: float) -> float | None:
        shares = recording.cpu_shares(begin_s, end_s, of=("engine", "harness"))
        if shares is None:
            return None
        cores = shares["rest"] / (end_s - begin_s)
        return cores if cores > quiet_cores(os.cpu_count() or 1) else None

    def _control_job(self, position: int) -> None:
        """The same work every time, so that its spread is the machine's."""
        models = self.bench.plan.models
        self.meter.cut()
        started_at = now()
        tokens: int | None = None
        if models:
            model = models[0]
            size = self._control_size(model)
            what = f"{model.label}: {size} tokens"
            self.say(f"control job: {what}")
            load(self.bench, model)
            self.meter.mark()
            begin_s = time.monotonic()
            tokens = self._ask(model, size).output_tokens
        else:
            what = f"SHA-256 of {CONTROL_HASHED_BYTES >> 20} MiB"
            self.say(f"control job: {what}")
            self.meter.mark()
            begin_s = time.monotonic()
            digest, block = hashlib.sha256(), bytes(1 << 20)
            for _ in range(CONTROL_HASHED_BYTES >> 20):
                digest.update(block)
        end_s = time.monotonic()
        accounts = Accounts(self.meter.cut())
        total = accounts.total(accounts.headline, begin_s, end_s) if accounts.headline else None
        self._record_job("control", position, what, started_at, end_s - begin_s, tokens, total, None)

    def _control_size(self, model: Model) -> int:
        """How many tokens the control job has: found once, so that it takes long enough for a figure of its energy, and
        the same from then on, in later sessions too."""
        if not self._control_tokens:
            self._control_tokens = records.control_tokens(self.db, self.bench.sweep_id)
        if not self._control_tokens:
            load(self.bench, model)
            began = time.monotonic()
            written = self._ask(model, CONTROL_TRIED_TOKENS).output_tokens or CONTROL_TRIED_TOKENS
            rate = written / (time.monotonic() - began)
            self._control_tokens = min(max(CONTROL_TRIED_TOKENS, round(rate * CONTROL_S)), CONTROL_MOST_TOKENS)
        return self._control_tokens

    def _ask(self, model: Model, num_predict: int) -> Finish:
        request = ChatRequest(
            model=model.info.name,
            messages=[{"role": "user", "content": CONTROL_PROMPT}],
            num_ctx=model.num_ctx,
            num_predict=num_predict,
            temperature=0.0,
            seed=1,
            fresh=True,
        )
        try:
            return self.bench.gateways[model.info.engine].ask(request)
        except EngineError as error:
            raise MachineError(f"the control job failed: {error}") from error

    def _record_job(
        self, job: str, position: int, what: str, started_at: str, duration_s: float, tokens: int | None,
        energy: Energy | None, detail: str | None,
    ) -> None:  # fmt: skip
        records.insert_job(
            self.db,
            {
                "sweep_id": self.bench.sweep_id, "number": records.next_number(self.db, "jobs", self.bench.sweep_id),
                "session": self.bench.session, "job": job, "before_position": position, "what": what,
                "started_at": started_at, "duration_s": duration_s, "output_tokens": tokens,
                "joules": energy.joules if energy else None, "kind": energy.kind if energy else "unavailable",
                "coverage": energy.coverage if energy else "none", "detail": detail,
            },
        )  # fmt: skip

    def _record_session(self) -> None:
        records.insert_session(
            self.db, self.bench.sweep_id, self.bench.session, self.meter.sources(), conditions.at_rest(), self.carbon
        )

    def _window(self, seconds: float) -> tuple[Recording, float, float]:
        """Watch for some seconds. Returns what was seen and the window's edges."""
        self.meter.cut()
        begin_s = time.monotonic()
        self.bench.cancelled.wait(seconds)
        end_s = time.monotonic()
        return self.meter.cut(), begin_s, end_s

    def _watch(self, engine: Engine | None) -> None:
        self.meter.watch(engine=engine.pids() if engine else ())

    def _power_w(self, recording: Recording, begin_s: float, end_s: float) -> float | None:
        accounts = Accounts(recording)
        if accounts.headline is None:
            return None
        joules = accounts.total(accounts.headline, begin_s, end_s).joules
        return None if joules is None else joules / (end_s - begin_s)

    def _temperature_c(self) -> float | None:
        recording, _, _ = self._window(1.2)
        return conditions.temperature_c(recording.slow)


def check_required(meter: Meter) -> None:
    """Raises MachineError where no source measures the whole of what runs here, with the command that grants it."""
    if is_measured(meter.by_key):
        return
    found = meter.rapl
    said = f"--require measured: {found.problem or 'nothing here measures energy'}"
    if found.grant:
        said += f"; grant it until the next start of the machine with: {found.grant}"
    else:
        said += "; attach a meter with --meter, or leave the flag out to have energy estimated"
    raise MachineError(said)


def carbon_of(country: str | None) -> Carbon | None:
    """Raises UserError for a country that is not known."""
    return (country, *carbon_intensity(country)) if country else None


def describe(meter: Meter) -> list[str]:
    """What energy comes from in this sweep, in lines for people."""
    parts = meter.by_key
    made = totals(parts)
    source = headline(parts, made)
    if source is None:
        reasons = "; ".join(str(problem["problem"]) for problem in meter.sources()["problems"].values())
        return [f"energy: unavailable ({reasons})"]
    kinds = sorted({f"{parts[key].instrument.component} {parts[key].kind}" for key in made[source].keys})
    backend = meter.sources()["codecarbon"]
    how = f" ({backend['backend']})" if source == "codecarbon" and backend else ""
    lines = [f"energy: {source}{how}, covers {made[source].coverage}: {', '.join(kinds)}"]
    if meter.rapl.problem and source not in ("counters", "meter"):
        lines.append(f"        no counters: {meter.rapl.problem}")
    if meter.rapl.grant and source != "meter":
        lines.append(f"        grant: {meter.rapl.grant}")
    return lines


def _sum(idle: Idle, keys: Sequence[tuple[str, str]]) -> float | None:
    return sum(idle.watts[key] for key in keys) if all(key in idle.watts for key in keys) else None
