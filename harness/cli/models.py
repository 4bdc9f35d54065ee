"""`harness models`: what the engines have, and fetching more."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import Json, print_or_json

if TYPE_CHECKING:
    from harness.engines.base import Engine

app = typer.Typer(help="Models and their engines.", no_args_is_help=True)


@app.command("list")
def list_models(as_json: Json = False) -> None:
    """The models that can be used at once, by engine."""
    from harness.engines import open_engine
    from harness.errors import HarnessError

    rows: list[dict[str, Any]] = []
    problems = []
    for name in ("ollama", "llamacpp"):
        try:
            with contextlib.closing(open_engine(name, [])) as engine:
                for info in engine.list_models():
                    label = info.name if name == "ollama" else f"{name}/{info.name}"
                    rows.append(
                        {
                            "model": label,
                            "window": info.context_tokens,
                            "tools": "tools" in info.capabilities,
                            "thinking": "thinking" in info.capabilities,
                            "size_mb": info.size_bytes and round(info.size_bytes / 1e6),
                            "parameters": info.parameters,
                            "quantization": info.quantization,
                            "digest": info.digest,
                        }
                    )
        except HarnessError as error:
            problems.append(f"{name}: {error}")
    columns = ["model", "window", "tools", "thinking", "size_mb", "parameters", "quantization"]
    print_or_json(as_json, None, rows, columns)
    for problem in problems:
        typer.echo(problem, err=True)


@app.command("pull")
def pull(model: Annotated[str, typer.Argument(help="[engine/]name")]) -> None:
    """Fetch a model, with progress."""
    from harness.engines import open_engine, split_model
    from harness.errors import UserError

    engine_name, name = split_model(model)
    if engine_name == "none":
        raise UserError("none stands for agents that call no model: there is nothing to fetch")
    with contextlib.closing(open_engine(engine_name, [name])) as engine:
        pull_with_progress(engine, name)
        info = engine.describe(name)
    print(f"{model} is ready ({(info.size_bytes or 0) / 1e6:.0f} MB, window {info.context_tokens or 'unknown'})")


def pull_with_progress(engine: Engine, name: str) -> None:
    """Fetch a model and show how far it is, on standard error: a sweep's standard output may be JSON."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(transient=True, console=Console(stderr=True)) as bar:
        task = bar.add_task(f"fetching {name}", total=None)

        def progress(what: str, done: int, total: int | None) -> None:
            bar.update(task, description=what, completed=done, total=total)

        engine.pull(name, progress)
