"""`harness doctor` and `harness clean`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from harness.cli.options import Db, Json, RunsDir, places, print_json, print_table


def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Mend what is safe to mend, and say what was done.")] = False,
    tasks: Annotated[str, typer.Option(help="The suite that the disk must have room for.")] = "smoke",
    db: Db = None,
    runs_dir: RunsDir = None,
    as_json: Json = False,
) -> None:
    """Say what this machine has, what is missing, why it matters and how to mend it."""
    from harness.checkup import Place
    from harness.doctor import examine
    from harness.suites import find_suite

    find_suite(tasks)
    findings = list(examine(Place(*places(db, runs_dir), tasks), fix))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        print_table(None, ["check", "state", "found"], [[each.check, each.state, each.found] for each in findings])
        for finding in findings:
            if finding.fixed:
                print(f"{finding.check}: {finding.fixed}")
            if finding.state != "ok":
                mend = f"; mend it with: {finding.mend}" if finding.mend else ""
                print(f"{finding.check}: {finding.why}{mend}")
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(1)


def clean(runs_dir: RunsDir = None, as_json: Json = False) -> None:
    """Remove what a killed harness left behind, and nothing else."""
    from harness.images import bundle
    from harness.sandbox import leftovers
    from harness.sandbox.daemon import connect

    client = connect()
    folder = places(None, runs_dir)[1]
    found = leftovers.find(client, folder)
    leftovers.remove(client, found)
    bundles = bundle.remove_leftovers(client)
    left = leftovers.find(client, folder)
    removed = {
        "containers": len(found.containers) - len(left.containers),
        "files": len(found.files) - len(left.files),
        "half_built_bundles": len(bundles),
    }
    if as_json:
        print_json(removed)
    else:
        print("removed: " + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in removed.items()))
    if left:
        for container in left.containers:
            typer.echo(f"still there: container {container[:12]} (docker rm --force {container[:12]})", err=True)
        for path in left.files:
            typer.echo(f"still there: {path}", err=True)
        raise typer.Exit(1)
