"""`harness agents new`: a folder that works at once, to be made into an agent of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.errors import MachineError, UserError

TEMPLATE = "new_agent"


def new(
    name: Annotated[str, typer.Argument(help="The agent's name; its folder is made in the current one.")],
) -> None:
    """Write the folder of a small working agent, to start from."""
    import shutil

    from harness import paths
    from harness.manifests import MANIFEST, check_name, find_agents

    check_name(name)
    for agent in find_agents()[0]:
        if agent.name == name:
            raise UserError(f"there is an agent {name} already ({agent.origin}): choose another name")
    folder = Path(name)
    try:
        folder.mkdir()
    except FileExistsError:
        raise UserError(f"{folder.absolute()} exists already: choose another name, or remove it") from None
    except OSError as error:
        raise MachineError(f"{folder.absolute()} can't be made: {error.strerror}") from error
    try:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(paths.PACKAGE / TEMPLATE, folder, ignore=ignored, dirs_exist_ok=True)
        manifest = folder / MANIFEST
        manifest.write_text(manifest.read_text(encoding="utf-8").replace("{name}", name), encoding="utf-8")
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise MachineError(f"{folder.absolute()} can't be written: {error.strerror}") from error
    print(f"written: {', '.join(str(file) for file in sorted(folder.rglob('*')) if file.is_file())}")
    print(f"next     harness agents check ./{name}")
    print(f"         harness sweep --agents ./{name} --models llamacpp/smollm2:135m --tasks smoke --limit 1")
