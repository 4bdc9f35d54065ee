"""`harness agents sbom`: what an agent is made of."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.agents_check import one_agent
from harness.errors import MachineError, UserError


def sbom(
    agent: Annotated[str, typer.Argument(help="A name, or the path of an agent's folder.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file, in place of standard output.")] = None,
) -> None:
    """Print a software bill of materials of an agent and its bundle (CycloneDX 1.6, JSON), building that if need be."""
    chosen = one_agent(agent)
    if importlib.util.find_spec("cyclonedx") is None:
        raise UserError(
            "a bill of materials needs the package cyclonedx-python-lib: `pip install 'agent-energy-harness[sbom]'`"
        )
    if output is not None and not output.absolute().parent.is_dir():
        raise UserError(f"--output {output}: there is no folder {output.absolute().parent}")
    from harness.images import bundle
    from harness.images.sbom import bill
    from harness.images.upstream import leave_out_unreachable
    from harness.sandbox.daemon import connect
    from harness.sandbox.removal import wait_for_removals

    def say(text: str) -> None:
        typer.echo(text, err=True)

    client = connect()
    leave_out_unreachable([chosen], [chosen.name])
    try:
        text = bill(client, chosen, bundle.ensure(client, chosen, say), say)
    finally:
        wait_for_removals()
    if output is None:
        print(text, end="")
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise MachineError(f"{output} can't be written: {error.strerror}") from error
    say(f"written: {output}")
