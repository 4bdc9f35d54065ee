"""`harness tasks pull`: the published images of a suite's tasks, fetched before a sweep that fetches nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import Data, Json, names, print_json, print_table

if TYPE_CHECKING:
    import docker
    from rich.console import Console

    from harness.images.published import Progress, Pulled
    from harness.images.registry import Sizes
    from harness.suites.swebench import SweBenchTask

REFRESHES_PER_S = 4


def pull(
    suite: Annotated[str, typer.Argument(help="A suite whose tasks are a published data set's.")],
    only: Annotated[str | None, typer.Option(help="Names of tasks, to take no others.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most this many tasks.")] = None,
    data: Data = None,
    leaky_arm64: Annotated[
        bool, typer.Option("--leaky-arm64", help="On arm64, pull images whose layers may hold later commits.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Pull the published images of a suite's tasks; those that are here are skipped, so run it again to go on."""
    from rich.console import Console

    from harness.errors import HarnessError, UserError
    from harness.images import published
    from harness.sandbox.daemon import connect
    from harness.suites import choose, load_suite
    from harness.suites.swebench import SweBenchTask

    if limit is not None and limit < 1:
        raise UserError(f"--limit: expected 1 or more, found {limit}")
    chosen = choose(load_suite(suite, data), names(only, "--only"), limit)
    tasks = [task for task in chosen.tasks if isinstance(task, SweBenchTask)]
    if not tasks:
        raise UserError(
            f"suite {chosen.name} has nothing to pull: its tasks are folders with a Dockerfile, which a sweep builds"
        )
    client = connect()
    architecture = str(client.version()["Arch"])
    published.refuse_leaky(architecture, leaky_arm64, suite)

    console = Console(stderr=True)  # standard output may be JSON
    rows, missing = _look(client, tasks, architecture)
    present = sum(row["state"] == "here" for row in rows.values())
    _say(console, f"{present} of {len(tasks)} images are here already")
    stopped: published.Stopped | None = None
    if missing:
        sizes = _ask(console, [rows[task.name]["image"] for task in missing], architecture)
        published.check_space(client, sizes)
        for number, task in enumerate(missing, 1):
            row = rows[task.name]
            heading = f"{number} of {len(missing)}: {row['image']}"
            try:
                with _progress(console, heading) as progress:
                    layers = sizes.layers.get(row["image"], {})
                    row |= _is(published.pull(client, task, architecture, layers, progress), "pulled")
            except published.Stopped as error:
                row |= {"state": "failed", "detail": str(error)}
                stopped = error
                break
            except HarnessError as error:
                row |= {"state": "failed", "detail": str(error)}
            except KeyboardInterrupt:
                _say(console, "interrupted: the images that were pulled stay, run the same again to go on")
                raise typer.Exit(130) from None
            _say(console, f"{heading}: {row['state']}")
    _print(list(rows.values()), as_json)
    failures = [row["detail"] for row in rows.values() if row["state"] == "failed"]
    for failure in failures:
        if failure != str(stopped):
            typer.echo(failure, err=True)
    if isinstance(stopped, published.NoRegistry):
        raise published.NoRegistry(
            f"{stopped}: check the network and run the same again, or build the images here with "
            f"`harness tasks build {suite}`"
        )
    if stopped is not None:
        raise stopped
    if failures:
        raise typer.Exit(1)


def _look(
    client: docker.DockerClient, tasks: Sequence[SweBenchTask], architecture: str
) -> tuple[dict[str, dict[str, Any]], list[SweBenchTask]]:
    """A row for each task by its name, and the tasks whose image is not here."""
    from harness.errors import UserError
    from harness.images import published

    rows: dict[str, dict[str, Any]] = {}
    missing = []
    for task in tasks:
        row: dict[str, Any] = {"image": published.image_name(task, architecture), "task": task.name}
        row |= {"state": "not_tried", "digest": None, "size_bytes": None, "detail": None}
        try:
            found = published.find(client, task)
        except UserError as error:  # one of another architecture, or no name
            row |= {"state": "failed", "detail": str(error)}
        else:
            if found is None:
                missing.append(task)
            else:
                row |= _is(found, "here")
        rows[task.name] = row
    return rows, missing


def _is(pulled: Pulled, state: str) -> dict[str, Any]:
    return {"state": state, "digest": pulled.digest, "size_bytes": pulled.size_bytes}


def _ask(console: Console, names: Sequence[str], architecture: str) -> Sizes:
    """Ask how large the images are, and say it."""
    from rich.filesize import decimal

    from harness.images import registry

    with contextlib.ExitStack() as stack:
        what = "asking the registry for the sizes"
        status = None
        if console.is_terminal:
            status = stack.enter_context(console.status(what, refresh_per_second=REFRESHES_PER_S))

        def asked(number: int) -> None:
            if status is not None:
                status.update(f"{what}: {number} of {len(names)}")

        sizes = registry.ask_sizes(names, architecture, asked)
    reason = next(iter(sizes.unknown.values()), None)
    if sizes.download_bytes is None or sizes.disk_bytes is None:
        _say(console, f"{len(names)} to pull; how much that is can't be said: {reason}")
        return sizes
    besides = f"; the size of {len(sizes.unknown)} more is unknown: {reason}" if reason else ""
    _say(
        console,
        f"{len(sizes.layers)} to pull: {decimal(sizes.download_bytes)} to download at most, about "
        f"{decimal(sizes.disk_bytes)} of disk (an estimate: unpacked layers take about "
        f"{registry.UNPACKED_PER_COMPRESSED} times their compressed size){besides}",
    )
    return sizes


@contextlib.contextmanager
def _progress(console: Console, heading: str) -> Iterator[Progress | None]:
    """A bar of the bytes of one image; elsewhere than on a terminal one line, and nothing to call."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    if not console.is_terminal:
        _say(console, heading)
        yield None
        return
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TextColumn("{task.fields[what]}"),
    )  # fmt: skip
    with Bar(*columns, console=console, transient=True, refresh_per_second=REFRESHES_PER_S) as bar:
        task = bar.add_task(heading, total=None, what="")
        yield lambda what, done, total: bar.update(task, completed=done, total=total, what=what)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _print(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(rows)
    elif any(row["state"] != "not_tried" for row in rows):
        columns = ["image", "task", "state", "digest", "size_bytes"]
        print_table(None, columns, [[row[column] for column in columns] for row in rows])
