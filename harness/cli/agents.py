"""`harness agents list`: which frameworks there are, and how they stand."""

from __future__ import annotations

from typing import Any

import typer

from harness.cli.agents_build import build
from harness.cli.agents_check import check
from harness.cli.agents_new import new
from harness.cli.agents_record import record
from harness.cli.agents_sbom import sbom
from harness.cli.options import Json, print_or_json

app = typer.Typer(help="Agent frameworks.", no_args_is_help=True)
app.command("build")(build)
app.command("check")(check)
app.command("new")(new)
app.command("record")(record)
app.command("sbom")(sbom)


@app.command("list")
def list_agents(as_json: Json = False) -> None:
    """Every agent that was found, with its state."""
    from harness.errors import MachineError
    from harness.images import upstream
    from harness.manifests import find_agents
    from harness.sandbox.daemon import connect

    try:
        client = connect(timeout_s=10)
    except MachineError:
        client = None
    agents, unusable = find_agents()
    rows: list[dict[str, Any]] = []
    reasons: list[str] = []
    for agent, standing in zip(agents, upstream.standings(client, agents), strict=True):
        manifest, bundle = agent.manifest, standing.bundle
        if standing.unreachable:
            state = "unreachable"
            reasons.append(f"{agent.name}: {standing.unreachable}; {upstream.how_to_provide(agent)}")
        elif not agent.needs_python or bundle:
            state = "ready"
        else:
            state = "not built" if client else "unknown (no Docker)"
        rows.append(
            {
                "agent": agent.name,
                "group": manifest.group,
                "version": manifest.version,
                "modes": ", ".join(manifest.protocols) if manifest.calls_model else None,
                "licence": manifest.licence,
                "state": state,
                "bundle MB": round(bundle.size_bytes / 1e6) if bundle else None,
                "from": agent.origin,
                "commit": manifest.source.commit if manifest.source else None,
                "upstream": manifest.upstream,
                "reason": standing.unreachable,
                "summary": manifest.summary,
                "weaknesses": manifest.weaknesses,
                "overrides": manifest.overrides,
                "folder": str(agent.folder),
            }
        )
    for broken in unusable:
        rows.append({"agent": broken.name, "from": broken.origin, "state": "unusable", "reason": broken.reason})
        reasons.append(f"{broken.name}: {broken.reason}")
    columns = ["agent", "group", "version", "modes", "licence", "state", "bundle MB", "from"]
    print_or_json(as_json, None, rows, columns)
    if not as_json:
        for reason in reasons:
            print(reason)
