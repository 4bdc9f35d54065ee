"""`harness agents build`: bundles ahead of a sweep, from where the user has their parts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Json, names, print_json, print_table
from harness.errors import UserError


def build(
    agents: Annotated[str, typer.Argument(help='Names or paths of folders, with commas between; or "all".')],
    checkout: Annotated[
        str | None,
        typer.Option("--from", help="Where the framework's repository is: a checkout, a mirror, or an address."),
    ] = None,
    wheels: Annotated[Path | None, typer.Option(help="A folder of packages, in place of an index.")] = None,
    as_json: Json = False,
) -> None:
    """Build bundles now; a sweep builds those that are missing by itself."""
    from harness.images import bundle
    from harness.images.upstream import leave_out_unreachable
    from harness.manifests import select_agents
    from harness.sandbox.daemon import connect

    wanted = names(agents, "AGENTS")
    chosen, broken = select_agents(wanted)
    if checkout == "":
        raise UserError("--from is empty: name a checkout, a mirror or an address")
    if checkout is not None:
        if len(chosen) != 1 or chosen[0].manifest.source is None:
            raise UserError(f"--from is for one agent with a [source] in its agent.toml, and not for {agents}")
        path = Path(checkout)
        checkout = str(path.absolute()) if path.exists() else checkout
    if wheels is not None and (without := [agent.name for agent in chosen if agent.lock is None]):
        raise UserError(f"--wheels: {', '.join(without)} has no lock file, and so no packages")
    if wheels is not None and not bundle.packages_in(wheels):
        raise UserError(f"--wheels {wheels} has no packages: no such folder, or nothing in it ends in .whl or .tar.gz")
    client = connect()
    if checkout is None and wheels is None:
        chosen, unusable = leave_out_unreachable(chosen, wanted)
        for left_out in [*broken, *unusable]:
            typer.echo(f"{left_out.name} is left out: {left_out.reason}", err=True)
    rows = []
    for agent in chosen:
        made = bundle.ensure(client, agent, lambda text: typer.echo(text, err=True), checkout=checkout, wheels=wheels)
        rows.append(
            {
                "agent": agent.name,
                "version": agent.manifest.version,
                "python": f"{made.python_version} ({made.runtime})" if made else None,
                "packages": len(made.packages) if made else None,
                "bundle MB": round(made.size_bytes / 1e6) if made else None,
                "bundle": made.key if made else None,
            }
        )
    if as_json:
        print_json(rows)
    else:
        columns = ["agent", "version", "python", "packages", "bundle MB", "bundle"]
        print_table(None, columns, [[row[column] for column in columns] for row in rows])
