"""`harness agents`: which frameworks there are, and whether one works."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli.options import Json, print_json, print_or_json, print_table

# What the model says when an agent is tried: an answer without any action.
SCRIPT = """
when_exhausted = "repeat"
[[answers]]
text = "I looked at it and there is nothing to do."
"""

app = typer.Typer(help="Agent frameworks.", no_args_is_help=True)


@app.command("list")
def list_agents(as_json: Json = False) -> None:
    """Every agent that was found, with its state."""
    from harness.errors import MachineError
    from harness.images import bundle
    from harness.manifests import find_agents
    from harness.sandbox.daemon import connect

    try:
        client = connect(timeout_s=10)
    except MachineError:
        client = None
    agents, unusable = find_agents()
    rows: list[dict[str, Any]] = []
    for agent in agents:
        manifest = agent.manifest
        if not agent.needs_python:
            state = "ready"
        elif client is None:
            state = "unknown (no Docker)"
        else:
            found = bundle.find(client, agent)
            state = f"ready ({found.size_bytes / 1e6:.0f} MB)" if found else "not built"
        rows.append(
            {
                "agent": agent.name,
                "group": manifest.group,
                "version": manifest.version,
                "protocols": ", ".join(manifest.protocols) if manifest.calls_model else None,
                "licence": manifest.licence,
                "state": state,
                "from": agent.origin,
                "summary": manifest.summary,
                "folder": str(agent.folder),
            }
        )
    for broken in unusable:
        rows.append({"agent": broken.name, "from": broken.origin, "state": f"unusable: {broken.reason}"})
    print_or_json(as_json, None, rows, ["agent", "group", "version", "protocols", "licence", "state", "from"])


@app.command("check")
def check(
    agent: Annotated[str, typer.Argument(help="A name, or the path of an agent's folder.")],
    as_json: Json = False,
) -> None:
    """Read the manifest, build the bundle, make one run against a scripted model, and say what to mend."""
    import contextlib
    import tempfile
    import threading

    from rich.console import Console

    from harness.cli.progress import SweepView
    from harness.engines import open_engine
    from harness.manifests import load_agent, select_agents
    from harness.plan import make_plan, resolve_model
    from harness.sandbox.daemon import connect
    from harness.spec import Spec
    from harness.store.db import open_store
    from harness.suites import choose, load_suite
    from harness.sweep import run_sweep

    chosen = load_agent(Path(agent)) if "/" in agent or agent in (".", "..") else select_agents([agent])[0][0]
    spec = Spec(agents=[agent], tasks="smoke", limit=1, max_calls=5, time_limit_s=120, retries=0)
    with tempfile.TemporaryDirectory(prefix="harness-check-") as folder:
        script = Path(folder) / "script.toml"
        script.write_text(SCRIPT, encoding="utf-8")
        models = {}
        if chosen.manifest.calls_model:
            engine = open_engine("scripted", [str(script)])
            models["scripted"] = resolve_model(engine, engine.describe(str(script)), spec)
        plan = make_plan(spec, choose(load_suite("smoke"), [], 1), [chosen], [], models)
        with (
            contextlib.closing(open_store(Path(folder) / "check.db")) as db,
            SweepView(plan, Console(stderr=True)) as view,
        ):
            result = run_sweep(plan, connect(), db, Path(folder), view, threading.Event())
        row = result.rows[0]
        output = _output(Path(folder))
    problems = []
    if row["ended_by"] in ("sandbox_error", "model_error"):
        problems.append(f"the run could not be made: {row['ended_detail']}")
    if row["ended_by"] == "crashed":
        problems.append(f"{row['ended_detail']}: a runner ends with 0 when it ends by itself")
    if row["claimed"] is None:
        problems.append("it left no result file: see HARNESS_RESULT_FILE in agents/README.md")
    elif row["claimed"] == "unreadable":
        problems.append("its result file is not what agents/README.md asks for")
    if chosen.manifest.calls_model and not row["calls"]:
        problems.append("it made no call to the model: see OPENAI_BASE_URL in agents/README.md")
    facts = {name: row[name] for name in ("ended_by", "claimed", "exit_code", "calls", "agent_s", "bundle")}
    if as_json:
        print_json({"agent": chosen.name, "problems": problems, **facts, "output": output})
    else:
        print_table(f"agent {chosen.name}", list(facts), [list(facts.values())])
        for problem in problems:
            print(f"to mend: {problem}")
        if problems and output:
            print("the end of what it printed:", *output[-20:], sep="\n  ")
        if not problems:
            print("it can be used")
    if problems:
        raise typer.Exit(1)


def _output(folder: Path) -> list[str]:
    """The lines that the runner printed; empty when it was not started. The folder is gone after the check."""
    from harness.store.artefacts import read_lines

    return [line.rstrip() for log in folder.rglob("agent.log.gz") for line in read_lines(folder, str(log))]
