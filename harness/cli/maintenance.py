"""`harness doctor` and `harness clean`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from harness.cli.options import Db, Json, RunsDir, places, print_json, print_table


def doctor(db: Db = None, runs_dir: RunsDir = None, as_json: Json = False) -> None:
    """Say what this machine has, what is missing, and how to mend it."""
    import contextlib
    import shutil

    from harness.engines import open_engine
    from harness.errors import HarnessError, MachineError
    from harness.images import bundle
    from harness.manifests import find_agents
    from harness.sandbox import leftovers
    from harness.sandbox.daemon import connect
    from harness.store.db import read_store

    database, folder = places(db, runs_dir)
    rows: list[dict[str, Any]] = []

    def check(name: str, needed: bool, look: Callable[[], str]) -> None:
        try:
            rows.append({"check": name, "state": "ok", "detail": look()})
        except HarnessError as error:
            rows.append({"check": name, "state": "missing" if needed else "look", "detail": str(error)})

    def docker() -> str:
        version = connect(timeout_s=10).version()
        return f"{version['Version']}, API {version['ApiVersion']}"

    def git() -> str:
        where = shutil.which("git")
        if where is None:
            raise MachineError("git is not installed: `sudo apt-get install git`")
        return where

    def engine(name: str) -> Callable[[], str]:
        def look() -> str:
            with contextlib.closing(open_engine(name, [])) as opened:
                models = [info.name for info in opened.list_models()]
                return f"version {opened.version() or 'unknown'}; " + (", ".join(models) or "no model yet")

        return look

    def bundles() -> str:
        client = connect(timeout_s=10)
        agents, _ = find_agents()
        return ", ".join(
            f"{agent.name}: {'ready' if bundle.find(client, agent) else 'not built (the first sweep builds it)'}"
            for agent in agents
            if agent.needs_python
        )

    def instances() -> str:
        from harness.grading.swebench import check_parsers
        from harness.images.rebuilt import REPOSITORY

        check_parsers()
        tags = [tag for image in connect(timeout_s=10).images.list() for tag in image.tags]
        pulled = sum("/sweb.eval." in tag for tag in tags)
        built = len({tag.partition(":")[0] for tag in tags if tag.startswith(f"{REPOSITORY}/")})
        return f"official parsers; images of instances: {pulled} published, {built} rebuilt"

    def energy() -> str:
        from harness.experiment import describe
        from harness.meter.figures import is_measured
        from harness.meter.meter import Meter

        meter = Meter()
        try:
            lines = [line.strip() for line in describe(meter)]
        finally:
            meter.stop()
        said = "; ".join([lines[0].removeprefix("energy: "), *lines[1:]])
        if not is_measured(meter.by_key):
            raise MachineError(said)
        return said

    def space() -> str:
        place = folder if folder.exists() else folder.parent
        return f"{shutil.disk_usage(place).free >> 30} GiB free for {folder}"

    def store() -> str:
        with contextlib.closing(read_store(database)) as opened:
            return f"{database}, {opened.table('runs').count} runs"

    def left_behind() -> str:
        found = leftovers.find(connect(timeout_s=10))
        if found:
            raise MachineError(
                f"a killed harness left {len(found.containers)} containers and {len(found.socket_dirs)} folders of "
                "sockets: `harness clean` removes them, and so does the next sweep"
            )
        return "none"

    check("docker", True, docker)
    check("git", True, git)
    check("ollama", False, engine("ollama"))
    check("llama.cpp", False, engine("llamacpp"))
    check("bundles", False, bundles)
    check("swe-bench", False, instances)
    check("energy", False, energy)
    check("leftovers", False, left_behind)
    check("space", True, space)
    check("database", False, store)
    if as_json:
        print_json(rows)
    else:
        print_table(None, ["check", "state", "detail"], [[r["check"], r["state"], r["detail"]] for r in rows])
    if any(row["state"] == "missing" for row in rows):
        raise typer.Exit(1)


def clean(as_json: Json = False) -> None:
    """Remove what a killed harness left behind, and nothing else."""
    from harness.images import bundle
    from harness.sandbox import leftovers
    from harness.sandbox.daemon import connect

    client = connect()
    found = leftovers.find(client)
    leftovers.remove(client, found)
    bundles = bundle.remove_leftovers(client)
    left = leftovers.find(client)
    removed = {
        "containers": len(found.containers) - len(left.containers),
        "socket_folders": len(found.socket_dirs) - len(left.socket_dirs),
        "half_built_bundles": len(bundles),
    }
    if as_json:
        print_json(removed)
    else:
        print("removed: " + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in removed.items()))
    if left:
        for container in left.containers:
            typer.echo(f"still there: container {container[:12]} (docker rm --force {container[:12]})", err=True)
        raise typer.Exit(1)
