"""`harness sweep`: from flags or a file to a table."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli import interrupts
from harness.cli.options import Data, Db, Json, RunsDir, places, print_json, print_table, words
from harness.errors import MachineError, UserError

if TYPE_CHECKING:
    from harness.manifests import Agent, Unusable
    from harness.plan import Model, Plan
    from harness.spec import Spec
    from harness.sweep import Result


def sweep(
    sweep_id: Annotated[str | None, typer.Argument(help="With --resume: the sweep, if not the newest.")] = None,
    agents: Annotated[str | None, typer.Option(help='Agents: names, paths of folders, or "all".')] = None,
    models: Annotated[str | None, typer.Option(help="Models: [engine/]name; no prefix means Ollama.")] = None,
    gguf: Annotated[list[Path] | None, typer.Option(help="A model file for the embedded llama.cpp.")] = None,
    tasks: Annotated[str | None, typer.Option(help="A suite, or the path of a folder of tasks.")] = None,
    data: Data = None,
    only: Annotated[str | None, typer.Option(help="Names of tasks, to take no others.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most this many tasks.")] = None,
    repeats: Annotated[int | None, typer.Option(help="Runs of each agent, model and task.")] = None,
    seed: Annotated[int | None, typer.Option(help="All chance follows from it.")] = None,
    order: Annotated[str | None, typer.Option(help="blocks or listed.")] = None,
    warmup: Annotated[int | None, typer.Option(help="Runs before the first that are not counted.")] = None,
    rest_s: Annotated[float | None, typer.Option("--rest", help="Seconds of rest between runs.")] = None,
    rest_band_c: Annotated[float | None, typer.Option("--rest-band", help="Rest until as near to idle, in °C.")] = None,
    control_every: Annotated[int | None, typer.Option(help="A control job before every so many runs.")] = None,
    when_busy: Annotated[str | None, typer.Option(help="On a busy machine: warn, wait or refuse.")] = None,
    idle_s: Annotated[float | None, typer.Option("--idle", help="Seconds of measuring idle power; 0: none.")] = None,
    idle_every: Annotated[int | None, typer.Option(help="Measure it again after so many runs.")] = None,
    engine_state: Annotated[str | None, typer.Option(help="At each start: warm or cold.")] = None,
    slots: Annotated[int | None, typer.Option(help="Runs at the same time.")] = None,
    require: Annotated[str | None, typer.Option(help="measured: start only where energy is measured.")] = None,
    meter: Annotated[str | None, typer.Option(help="A meter: command:... or http://...#path.")] = None,
    meter_at: Annotated[str | None, typer.Option(help="Where it stands: here or engine.")] = None,
    country: Annotated[str | None, typer.Option(help="For CO2: ISO 3166 code of three letters.")] = None,
    memory_bandwidth_gb_s: Annotated[
        float | None, typer.Option("--memory-bandwidth", help="GB/s of the memory that models lie in.")
    ] = None,
    retries: Annotated[int | None, typer.Option(help="Further tries of a run that the machine spoilt.")] = None,
    time_limit_s: Annotated[float | None, typer.Option("--time-limit", help="Seconds for the agent.")] = None,
    max_calls: Annotated[int | None, typer.Option(help="Calls a run may make.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Tokens a run may use, in and out.")] = None,
    guard: Annotated[str | None, typer.Option(help="Against loops: off, observe, nudge or stop.")] = None,
    guard_patience: Annotated[
        int | None, typer.Option(help="Steps for which --guard stop lets a loop go on. Default: 20.")
    ] = None,
    max_energy: Annotated[str | None, typer.Option(help="Energy a run may use, as 50kJ.")] = None,
    num_ctx: Annotated[int | None, typer.Option(help="Window in tokens.")] = None,
    num_predict: Annotated[int | None, typer.Option(help="Longest answer in tokens.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus sampling.")] = None,
    think: Annotated[str | None, typer.Option(help="off or on.")] = None,
    protocol: Annotated[str | None, typer.Option(help="text, tools or auto.")] = None,
    door: Annotated[str | None, typer.Option(help="The sandbox's way to its model: auto, socket or relay.")] = None,
    runtime: Annotated[str | None, typer.Option(help="What runs containers, by Docker's name, as runsc.")] = None,
    sandbox_user: Annotated[str | None, typer.Option(help="Whom agents run as: root or agent.")] = None,
    cpus: Annotated[float | None, typer.Option(help="Cores of the sandbox.")] = None,
    memory_mb: Annotated[int | None, typer.Option(help="Memory of the sandbox.")] = None,
    disk_mb: Annotated[int | None, typer.Option(help="Disk of the sandbox.")] = None,
    spec: Annotated[str | None, typer.Option(help="A TOML file with any of these, or swenergy; flags win.")] = None,
    pull: Annotated[bool, typer.Option("--pull", help="Fetch models that are missing.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a sweep that was ended early.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and do nothing.")] = False,
    db: Db = None,
    runs_dir: RunsDir = None,
    as_json: Json = False,
) -> None:
    """Run agents on tasks with models, measure, grade, store."""
    if think not in (None, "on", "off"):
        raise UserError(f"--think: expected on or off, got {think!r}")
    chosen = words(models)
    if gguf:
        chosen = (chosen or []) + [f"llamacpp/{path.absolute()}" for path in gguf]
    flags: dict[str, Any] = {
        "agents": words(agents), "models": chosen, "tasks": tasks,
        "data": str(data) if data else None, "only": words(only), "limit": limit,
        "repeats": repeats, "seed": seed, "order": order, "rest_s": rest_s, "retries": retries,
        "time_limit_s": time_limit_s, "max_calls": max_calls, "max_tokens": max_tokens,
        "max_energy_j": None if max_energy is None else _joules(max_energy),
        "guard": guard, "guard_patience": guard_patience, "num_ctx": num_ctx, "num_predict": num_predict,
        "temperature": temperature, "top_p": top_p, "think": None if think is None else think == "on",
        "protocol": protocol, "cpus": cpus, "sandbox_user": sandbox_user, "door": door, "runtime": runtime,
        "memory_mb": memory_mb, "disk_mb": disk_mb, "warmup": warmup, "rest_band_c": rest_band_c,
        "control_every": control_every, "when_busy": when_busy, "idle_s": idle_s, "idle_every": idle_every,
        "engine_state": engine_state, "slots": slots, "require": require, "meter": meter, "meter_at": meter_at,
        "country": country, "memory_bandwidth_gb_s": memory_bandwidth_gb_s,
    }  # fmt: skip
    if sweep_id is not None and not resume:
        raise UserError(f"{sweep_id!r}: a sweep is named only to continue it: harness sweep --resume {sweep_id}")
    from harness.spec import absolute, find_spec, read_spec

    database, folder = places(db, runs_dir)
    file = find_spec(spec) if spec is not None else None
    if resume:
        stored, wanted = _stored(sweep_id, file, flags, database)
    else:
        stored, wanted = None, _with_rows(absolute(read_spec(file, flags)))
    if dry_run:
        plan = _plan(wanted, False, stored)
        _print_plan(plan, as_json)
        for model in plan.models:
            model.engine.close()
        return
    result, plan = _run(wanted, pull, database, folder, as_json, stored)
    _finish(result, plan, database, folder, as_json)


def _joules(text: str) -> float:
    from harness.meter.budget import joules_of

    return joules_of(text)


def _with_rows(wanted: Spec) -> Spec:
    """The same spec with the file that HARNESS_DATA names in it, so that the sweep can be continued without it."""
    from harness.suites import find_suite, rows, swebench

    file = os.environ.get(rows.DATA_VARIABLE)
    if wanted.data or not file or not Path(file).is_file() or not swebench.is_suite(find_suite(wanted.tasks)):
        return wanted
    return wanted.model_copy(update={"data": str(Path(file).absolute())})


def _stored(
    sweep_id: str | None, file: Path | None, flags: dict[str, Any], database: Path
) -> tuple[dict[str, Any], Spec]:
    """The sweep to continue, and the spec to continue it with."""
    from harness.spec import absolute, read_spec
    from harness.store.db import damage, read_store
    from harness.store.records import find_sweep

    with contextlib.closing(read_store(database)) as db:
        if wrong_pages := damage(db):  # nothing may be added to what can't be trusted
            raise MachineError(f"{database} is damaged ({wrong_pages}): `harness doctor` says how to rescue it")
        stored = find_sweep(db, sweep_id)
    # Without a spec file the stored spec is the file; what is given besides must come to the same sweep.
    return stored, absolute(read_spec(file, flags, json.loads(stored["spec"])))


def _run(
    wanted: Spec, pull: bool, database: Path, folder: Path, quiet: bool, stored: dict[str, Any] | None
) -> tuple[Result, Plan]:
    from rich.console import Console

    from harness.checks import check_space
    from harness.cli.progress import SweepView
    from harness.sandbox.daemon import connect
    from harness.store.db import open_store, writer_lock
    from harness.sweep import run_sweep

    plan = _plan(wanted, pull, stored)
    try:
        client = connect()
        check_space(folder)
        console = Console(stderr=quiet)
        _print_unusable(plan.unusable, quiet)
        if not quiet:
            print_left_out(plan)
        cancelled = threading.Event()
        owner = f"sweep {stored['sweep_id']}" if stored else "another sweep"
        with writer_lock(database, owner), contextlib.closing(open_store(database)) as db:
            already = db.table("runs").count_where("sweep_id = ?", [stored["sweep_id"]]) if stored else 0
            if stored and already == len(plan.runs):
                console.print(f"nothing is outstanding in sweep {stored['sweep_id']}")

            def give_up() -> None:
                cancelled.set()
                with contextlib.suppress(OSError):  # a pipe that is gone
                    console.print("stopping: the run under way is given up; once more to stop at once")

            # Before the first run there is none to end: images and bundles clean up after themselves.
            with (
                SweepView(plan, console, already) as view,
                interrupts.first_asking(give_up, lambda: view.running),
            ):
                return run_sweep(plan, client, db, folder, view, cancelled, stored), plan
    finally:
        for model in plan.models:
            model.engine.close()


def _plan(wanted: Spec, pull: bool, stored: dict[str, Any] | None = None) -> Plan:
    """The plan of a sweep; of a stored one with the tasks that it had, whatever could be had or graded by now."""
    from harness.gradable import gradable_here
    from harness.images.upstream import leave_out_unreachable
    from harness.manifests import select_agents
    from harness.plan import make_plan
    from harness.suites import choose, load_suite
    from harness.suites.base import LeftOut

    data = Path(wanted.data) if wanted.data else None
    whole = load_suite(wanted.tasks, data)
    if stored and all(
        json.loads(stored["spec"]).get(name) == getattr(wanted, name) for name in ("tasks", "only", "limit")
    ):
        had = json.loads(stored["resolved"])["suite"]
        left_out = tuple(LeftOut(*item) for item in had.get("left_out", {}).items())
        suite = gradable_here(choose(whole, had["tasks"], None), had["tasks"])
        suite = dataclasses.replace(suite, left_out=left_out)
    else:
        suite = gradable_here(choose(whole, wanted.only, wanted.limit), wanted.only)
    chosen, unusable = select_agents(wanted.agents)
    pairs = None
    named = wanted.agents
    if stored and all(json.loads(stored["spec"]).get(name) == getattr(wanted, name) for name in ("agents", "models")):
        had_runs = json.loads(stored["resolved"])["runs"]
        pairs = {(agent, model) for agent, model, *_ in had_runs}
        named = sorted({agent for agent, _ in pairs})
        chosen = [agent for agent in chosen if agent.name in named]
    chosen, unreachable = leave_out_unreachable(chosen, named)
    return make_plan(wanted, suite, chosen, [*unusable, *unreachable], _models(wanted, chosen, pull), pairs)


def _models(wanted: Spec, agents: list[Agent], pull: bool) -> dict[str, Model]:
    """The sweep's models by the names the user gave; empty when no agent calls one."""
    from harness.cli.models import pull_with_progress
    from harness.engines import open_engine, split_model
    from harness.engines.base import Engine
    from harness.plan import resolve_model

    if not any(agent.manifest.calls_model for agent in agents):
        for text in wanted.models:
            split_model(text)
        if wanted.models:
            typer.echo("no agent of this sweep calls a model: --models is left aside", err=True)
        return {}
    by_engine: dict[str, list[str]] = {}
    for text in dict.fromkeys(wanted.models):
        engine_name, name = split_model(text)
        if engine_name != "none":
            by_engine.setdefault(engine_name, []).append(name)
    models: dict[str, Model] = {}
    engines: list[Engine] = []
    try:
        for engine_name, names in by_engine.items():
            engine = open_engine(engine_name, names)
            engines.append(engine)
            for name in names:
                if pull:
                    pull_with_progress(engine, name)
                models[f"{engine_name}/{name}"] = resolve_model(engine, engine.describe(name), wanted)
    except BaseException:
        for engine in engines:
            engine.close()
        raise
    return models


def _print_unusable(unusable: tuple[Unusable, ...], quiet: bool) -> None:
    if unusable and not quiet:
        print_table(
            "agents that can't be used",
            ["agent", "from", "why"],
            [[u.name, u.origin, u.reason] for u in unusable],
        )


def _left_out(plan: Plan) -> dict[str, str]:
    """The agents, and pairs of agent and model, that "all" had to leave out, each with the reason."""
    return {each.name: each.reason for each in plan.unusable}


def print_left_out(plan: Plan) -> None:
    """What of the suite can't be graded here: a reader must not take its n for the suite's."""
    if plan.suite.left_out:
        count = len(plan.suite.tasks)
        print(f"n = {count} of {count + len(plan.suite.left_out)} tasks of {plan.suite.name}; left out:")
        for task in plan.suite.left_out:
            print(f"  {task.name}: {task.reason}")


def _print_plan(plan: Plan, as_json: bool) -> None:
    if as_json:
        print_json({"spec": plan.spec.model_dump(), "resolved": plan.resolved(), "left_out": _left_out(plan)})
        return
    _print_unusable(plan.unusable, False)
    print_left_out(plan)
    rows = [
        [
            r.position,
            r.agent.name,
            r.model.label if r.model else "none",
            r.protocol,
            r.task.name,
            r.repetition,
        ]
        for r in plan.runs
    ]
    print_table(
        f"{len(plan.runs)} run{'' if len(plan.runs) == 1 else 's'}",
        ["#", "agent", "model", "protocol", "task", "repetition"],
        rows,
    )
    windows = ", ".join(f"{m.label}: {m.num_ctx} tokens" for m in plan.models) or "no model"
    print(f"windows: {windows}; temperature {plan.temperature:g}")
    print(f"{_rules(plan)}; nothing was run")


def _rules(plan: Plan) -> str:
    """The rules of the experiment in words."""
    spec = plan.spec
    loads = [run.model.label for run in plan.runs if run.model]
    changes = sum(1 for number, label in enumerate(loads) if number == 0 or label != loads[number - 1])
    said = [f"order {spec.order} (seed {spec.seed}, a model is loaded {changes} times)", f"engine {spec.engine_state}"]
    if spec.warmup:
        said.append(f"{spec.warmup} warm-up runs")
    if spec.rest_s:
        said.append(f"rest {spec.rest_s:g} s")
    if spec.rest_band_c:
        said.append(f"rest until within {spec.rest_band_c:g} °C of idle")
    if spec.control_every:
        said.append(f"control job every {spec.control_every} runs")
    if spec.slots > 1:
        said.append(f"{spec.slots} runs at a time")
    if spec.guard != "off":
        said.append(f"guard {spec.guard}" + (f", patience {spec.patience}" if spec.patience else ""))
    return "; ".join(said)


def _runs(database: Path, sweep_id: str) -> list[dict[str, Any]]:
    from harness.store.db import read_store
    from harness.store.records import runs_of

    with contextlib.closing(read_store(database)) as db:
        return runs_of(db, sweep_id)


def _finish(result: Result, plan: Plan, database: Path, folder: Path, as_json: bool) -> None:
    from harness.cli.report import print_cells, write_summary

    page = write_summary(database, folder, result.sweep_id)
    missing = len(plan.runs) - result.stored
    runs = _runs(database, result.sweep_id) if as_json else []
    if as_json:
        print_json(
            {
                "sweep_id": result.sweep_id,
                "missing": missing,
                "stopped": result.stopped,
                "left_out": _left_out(plan),
                "runs": runs,
            }
        )
    else:
        print_cells(database, result.sweep_id)
        where = "" if database == folder / "harness.db" else f" --db {database}"
        where += "" if folder == Path("runs").absolute() else f" --runs-dir {folder}"
        print(f"database    {database}")
        print(f"artefacts   {folder / result.sweep_id}")
        print(f"summary     {page}")
        if result.stopped:
            print(f"stopped     {result.stopped}")
        if missing:
            print(f"outstanding {missing} of {len(plan.runs)} runs; continue with")
            print(f"next        harness sweep --resume {result.sweep_id}{where}")
        else:
            print(f"next        harness runs list{where}")
            print(f"            harness runs show {result.sweep_id}-{plan.runs[0].position:04d}{where}")
    if result.cancelled:
        raise typer.Exit(130)
    if result.failed:
        raise typer.Exit(1)
