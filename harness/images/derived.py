"""An image made of another by one command in it, the same for all that the harness derives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import docker
from docker.models.containers import Container
from docker.models.images import Image

from harness.errors import UserError
from harness.sandbox.daemon import KIND, OWNER, owner


def derive(
    client: docker.DockerClient,
    image: str,
    command: Sequence[str],
    tag: str,
    *,
    limit_s: float,
    failed: Callable[[int], str],
    add: Callable[[Container], None] = lambda _: None,
    config: Mapping[str, Any] = {},
    labels: Mapping[str, str] = {},
) -> Image:
    """Run a command as root in a container of `image`, without a network, and keep what comes of it as `tag`.

    `add` is called when the command has ended. Command and entry point stay the image's; `config` and `labels` come
    to what it has. Raises UserError with the words of `failed` for an exit code that is not 0, and Docker's faults.
    """
    container = client.containers.create(
        image,
        list(command),
        labels={KIND: "build", OWNER: owner()},
        network_mode="none",
        user="root",
        entrypoint="",
    )
    try:
        container.start()
        status = container.wait(timeout=limit_s)["StatusCode"]
        if status != 0:
            raise UserError(failed(status))
        add(container)
        had = client.api.inspect_image(image)["Config"]
        repository, _, version = tag.partition(":")
        # The container's labels pass on to the image, and from there to a container that anyone starts.
        kept = {"Cmd": had.get("Cmd"), "Entrypoint": had.get("Entrypoint"), "Labels": {KIND: "", OWNER: "", **labels}}
        return container.commit(repository, version, conf={**kept, **config})
    finally:
        container.remove(force=True, v=True)
