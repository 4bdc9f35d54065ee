"""All runs of a sweep: order, rest, retries, resume. Each run is stored when it has ended, and only then."""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
import shutil
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import docker
from sqlite_utils import Database

from harness import __version__, experiment, machine, paths
from harness.analysis.loops.kept import keep_digest
from harness.bench import Bench
from harness.checks import check_cores, check_meter_at, check_same
from harness.engine_state import prepare_for_several
from harness.engines.base import Engine
from harness.errors import MachineError, UserError
from harness.experiment import Carbon, Experiment
from harness.gateway.server import Gateway
from harness.images import bundle
from harness.images.locate import prepare_all
from harness.images.prepare import IN_USE
from harness.meter.budget import check_budget
from harness.meter.external import ExternalMeter
from harness.meter.meter import External, Meter
from harness.outcome import ENDINGS, outcome
from harness.plan import Plan, PlannedRun
from harness.rows import call_energy_row, call_row, run_row
from harness.run import Finished, execute
from harness.sandbox import daemon, doors, leftovers
from harness.sandbox.daemon import await_answer
from harness.sandbox.removal import remove_again, wait_for_removals
from harness.sandbox.runtime import find_runtime, has_own_kernel
from harness.store import agreement, records
from harness.unchanged import check_unchanged, sources

SPOILT_IN_A_ROW = 3  # runs that the machine spoilt, after which going on would only make more


class Progress(Protocol):
    """What a sweep tells whoever watches."""

    def say(self, text: str) -> None: ...

    def run_started(self, planned: PlannedRun, attempt: int) -> None: ...

    def stage(self, name: str) -> None: ...

    def run_ended(self, planned: PlannedRun, row: Mapping[str, Any]) -> None: ...


@dataclass
class Result:
    """What came of a sweep. The runs themselves are in the store alone: a sweep may have many thousands."""

    sweep_id: str
    stored: int = 0  # runs, those of earlier sessions included
    spoilt: int = 0  # of these, by us or by the machine
    cancelled: bool = False
    stopped: str | None = None  # why the sweep gave up before its end

    @property
    def failed(self) -> bool:
        """Whether something went wrong that is ours or the machine's."""
        return self.stopped is not None or self.spoilt > 0

    def count(self, run: Mapping[str, Any]) -> None:
        self.stored += 1
        self.spoilt += outcome(run["ended_by"], run["verdict"]) in ("invalid", "ungraded")


def new_id() -> str:
    return datetime.now(UTC).strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(2)


@paths.lock(IN_USE, shared=True)
def run_sweep(
    plan: Plan,
    client: docker.DockerClient,
    db: Database,
    runs_dir: Path,
    progress: Progress,
    cancelled: threading.Event,
    resume: Mapping[str, Any] | None = None,
) -> Result:
    """Make every planned run that is not stored yet. `resume` is the stored sweep that is continued.

    Raises UserError for a resumed sweep that is not the same any more or images and bundles that don't build, and
    MachineError when Docker or an engine fails before the first run.
    """
    leftovers.remove(client, leftovers.find(client, runs_dir))
    bundle.remove_leftovers(client)
    if resume is not None:
        check_same(json.loads(resume["resolved"]), plan.resolved())
    cores = int(client.info()["NCPU"])
    check_cores(cores, plan)
    runtime = find_runtime(client, plan.spec.runtime)
    with contextlib.ExitStack() as clean_up:
        clean_up.callback(leftovers.remove_own, client)
        clean_up.callback(wait_for_removals)
        # First of all, since a machine that can't measure what was asked for is refused before anything is built.
        meter = Meter(_external(plan))
        clean_up.callback(meter.stop)
        if plan.spec.require == "measured":
            experiment.check_required(meter)
        if plan.spec.max_energy_j is not None:
            check_budget(meter, plan.spec.slots)
        carbon = experiment.carbon_of(plan.spec.country)
        check_meter_at(plan)
        prepared = prepare_all(client, plan.suite, runs_dir / "logs", progress.say, plan.spec.sandbox_user)
        bundles = {}
        for agent in plan.agents:
            made = bundle.ensure(client, agent, progress.say)
            if made is not None:
                bundles[agent.name] = made

        image = next(iter(prepared.values())).image
        own_kernel = has_own_kernel(client, image, runtime)
        caller = next((bundles[agent.name] for agent in plan.agents if agent.manifest.calls_model), None)
        door = doors.choose(plan.spec.door, client, image, caller, runtime, own_kernel, progress.say)
        facts = machine.facts(daemon.facts(client))
        machine_id = machine.machine_id(facts)
        result = Result(str(resume["sweep_id"]) if resume else new_id())
        if resume is None:
            records.insert_sweep(
                db, sweep_id=result.sweep_id, machine_id=machine_id, facts=facts, version=__version__,
                spec=plan.spec.model_dump(), resolved=plan.resolved(), planned_runs=len(plan.runs),
            )  # fmt: skip
        elif resume["machine_id"] != machine_id:
            raise UserError(
                f"sweep {resume['sweep_id']} was begun on another machine (or kernel, or Docker): rows of different "
                "machines are never pooled, so start a new sweep"
            )
        else:
            for line in agreement.mend(db, runs_dir, result.sweep_id):
                progress.say(line)

        engines: dict[str, Engine] = {model.info.engine: model.engine for model in plan.models}
        gateways = {}
        for name, engine in engines.items():
            clean_up.callback(engine.close)
            gateways[name] = Gateway(engine, meter.mark)
            clean_up.callback(gateways[name].close)
        bench = Bench(
            client, cores, plan, result.sweep_id, runs_dir, prepared, bundles, gateways, meter, cancelled,
            door=door, runtime=runtime, own_kernel=own_kernel, elsewhere=daemon.elsewhere(client),
            session=records.next_session(db, result.sweep_id),
            wall_factor=records.wall_factor(db, machine_id),
            sources=sources(plan),
        )  # fmt: skip
        try:
            _run_all(bench, db, progress, result, machine_id, carbon)
            if result.stored == len(plan.runs):
                records.end_sweep(db, result.sweep_id)
        except sqlite3.OperationalError as error:  # between two runs, or after the one that could not be stored
            raise MachineError(
                f"the database can't be written ({error}): the runs that have ended are in it; mend that and continue "
                f"with `harness sweep --resume {result.sweep_id}`"
            ) from error
    return result


def _external(plan: Plan) -> External | None:
    """The meter that the sweep names, once it has answered. Raises UserError and MachineError."""
    if plan.spec.meter is None:
        return None
    meter = ExternalMeter(plan.spec.meter)
    meter.check()
    return meter


def _run_all(
    bench: Bench, db: Database, progress: Progress, result: Result, machine_id: str, carbon: Carbon | None
) -> None:
    stored = set()
    for earlier in records.runs_of(db, result.sweep_id):
        if records.spoilt(earlier):
            records.set_aside(db, earlier, earlier["ended_detail"])
        else:
            stored.add(earlier["position"])
            result.count(earlier)
    outstanding = [planned for planned in bench.plan.runs if planned.position not in stored]
    if not outstanding:
        return
    assert bench.meter is not None
    for line in experiment.describe(bench.meter):
        progress.say(line)
    between = Experiment(bench, db, progress.say, carbon)
    try:
        between.begin(outstanding[0].position)
        between.warm_up(outstanding)
        keep = _Keeper(bench, db, progress, result, machine_id, len(outstanding))
        attempts = records.attempts_of(db, result.sweep_id)
        if bench.plan.spec.slots == 1:
            _one_after_another(bench, between, keep, outstanding, attempts)
        else:
            _several_at_a_time(bench, between, keep, outstanding, attempts)
    except BaseException as error:
        with contextlib.suppress(sqlite3.OperationalError):  # what went wrong first is what is said
            between.end()
        # What an interruption breaks off is no fault.
        if not (isinstance(error, MachineError) and bench.cancelled.is_set()):
            raise
    else:
        between.end()
    result.cancelled = bench.cancelled.is_set()


def _one_after_another(
    bench: Bench, between: Experiment, keep: _Keeper, outstanding: Sequence[PlannedRun], attempts: Mapping[int, int]
) -> None:
    for number, planned in enumerate(outstanding):
        flags = between.before(planned, number == 0, number)
        if bench.cancelled.is_set():
            return
        made = _make(bench, keep.progress, planned, attempts.get(planned.position, 0) + 1)
        if not keep.store(planned, made, flags):
            return


def _several_at_a_time(
    bench: Bench, between: Experiment, keep: _Keeper, outstanding: Sequence[PlannedRun], attempts: Mapping[int, int]
) -> None:
    """Runs of one model at a time, `slots` of them: the engine is made ready once for all of them."""
    done = 0
    with ThreadPoolExecutor(bench.plan.spec.slots, thread_name_prefix="run") as pool:
        for _, group in itertools.groupby(outstanding, key=lambda planned: planned.model):
            runs = list(group)
            flags = between.before(runs[0], done == 0, done)
            if runs[0].model:
                prepare_for_several(bench, runs[0].model)
            waiting = iter(runs)
            under_way: dict[Future[Made], PlannedRun] = {}
            going = not bench.cancelled.is_set()
            while True:
                while going and len(under_way) < bench.plan.spec.slots and (planned := next(waiting, None)):
                    first = attempts.get(planned.position, 0) + 1
                    under_way[pool.submit(_make, bench, keep.progress, planned, first)] = planned
                if not under_way:
                    break
                finished, _ = wait(under_way, return_when=FIRST_COMPLETED)
                for future in finished:
                    planned = under_way.pop(future)
                    going = keep.store(planned, future.result(), flags) and going and not bench.cancelled.is_set()
                    done += 1
                if bench.meter:
                    bench.meter.cut()  # its readings are of use to the session's total alone
            if not going:
                return


@dataclass
class Made:
    """What came of a planned run: the tries that the machine spoilt, and the one that stands. None: interrupted."""

    spoilt: list[tuple[int, Finished]]
    attempt: int
    finished: Finished | None


def _make(bench: Bench, progress: Progress, planned: PlannedRun, attempt: int) -> Made:
    """Make a run, again if the machine spoilt it."""
    run_id = f"{bench.sweep_id}-{planned.position:04d}"
    last_attempt = attempt + bench.plan.spec.retries
    spoilt: list[tuple[int, Finished]] = []
    while True:
        _await_docker(bench, progress)
        progress.run_started(planned, attempt)
        try:
            finished = execute(bench, planned, run_id, progress.stage)
        except OSError as error:
            raise _not_stored(bench, planned, error) from error
        # Behind the run: whatever was changed before or while it went on is seen, and it is not stored.
        if bench.sources:
            check_unchanged(bench.sources, planned, bench.sweep_id)
        if finished.ended_by == "cancelled" or (bench.cancelled.is_set() and ENDINGS[finished.ended_by].retried):
            shutil.rmtree(bench.runs_dir / bench.sweep_id / run_id, ignore_errors=True)
            return Made(spoilt, attempt, None)
        if not ENDINGS[finished.ended_by].retried or attempt >= last_attempt:
            return Made(spoilt, attempt, finished)
        spoilt.append((attempt, finished))
        attempt += 1


def _await_docker(bench: Bench, progress: Progress) -> None:
    """A week is long enough for Docker to be restarted in it. Raises MachineError that says how to go on later."""
    try:
        await_answer(bench.client, bench.cancelled, progress.say)
    except MachineError as error:
        raise MachineError(f"{error}; continue with `harness sweep --resume {bench.sweep_id}`") from error
    remove_again()


@dataclass
class _Keeper:
    """Stores runs as they end, and says when going on would only make more of what the machine spoils."""

    bench: Bench
    db: Database
    progress: Progress
    result: Result
    machine_id: str
    outstanding: int
    spoilt_in_a_row: int = 0
    stored: int = 0

    def store(self, planned: PlannedRun, made: Made, flags: Sequence[str]) -> bool:
        """Whether to go on."""
        bench, finished = self.bench, made.finished
        try:
            for attempt, spoilt in made.spoilt:
                records.note_attempt(
                    self.db, bench.sweep_id, planned.position, attempt, spoilt.ended_by, spoilt.detail
                )  # fmt: skip
        except sqlite3.OperationalError as error:
            raise _not_stored(bench, planned, error) from error
        if finished is None:
            return False
        finished.flags += flags
        run_id = f"{bench.sweep_id}-{planned.position:04d}"
        row = run_row(bench, planned, run_id, made.attempt, self.machine_id, finished)
        try:
            records.insert_run(
                self.db,
                row,
                [call_row(run_id, call) for call in finished.calls or []],
                [asdict(figure) for figure in finished.energy.rows],
                [call_energy_row(figure, finished.calls or []) for figure in finished.energy.calls],
                [asdict(artefact) for artefact in finished.artefacts],
                finished.grade.notes,
                [asdict(intervention) for intervention in finished.interventions],
                graded_in=bench.images[planned.task.name].image,
            )
        except sqlite3.OperationalError as error:
            raise _not_stored(bench, planned, error) from error
        with contextlib.suppress(sqlite3.OperationalError):  # the run is stored; whoever asks for its loops finds them
            keep_digest(self.db, bench.runs_dir, run_id)
        self.result.count(row)
        self.progress.run_ended(planned, row)
        self.stored += 1
        self.spoilt_in_a_row = 0 if ENDINGS[row["ended_by"]].counts else self.spoilt_in_a_row + 1
        if self.spoilt_in_a_row == SPOILT_IN_A_ROW and self.stored < self.outstanding:
            self.result.stopped = (
                f"{SPOILT_IN_A_ROW} runs in a row were spoilt by the machine, the last: {row['ended_detail']}"
            )
            return False
        return True


def _not_stored(bench: Bench, planned: PlannedRun, error: Exception) -> MachineError:
    return MachineError(
        f"run {planned.position} can't be stored ({error}): those before it are; "
        f"mend that and continue with `harness sweep --resume {bench.sweep_id}`"
    )
