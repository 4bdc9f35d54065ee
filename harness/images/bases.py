"""The images that others start from: pulled where a registry answers, else made here out of Debian's packages.

What is made here gets the same tag, so that a Dockerfile stays ordinary.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from typing import IO

import docker
from docker.errors import ImageNotFound

from harness.errors import MachineError
from harness.sandbox.daemon import DockerFault

Say = Callable[[str], None]

DEBIAN = re.compile(r"^debian:(bullseye|bookworm|trixie)(-slim)?$")


def ensure_base(client: docker.DockerClient, tag: str, say: Say) -> None:
    """Make `tag` available: there already, pulled, or made by mmdebstrap.

    Raises MachineError when none of the three works; the sentence names what was tried.
    """
    try:
        client.images.get(tag)
        return
    except ImageNotFound:
        pass
    say(f"pulling {tag}")
    try:
        client.images.pull(tag)
        return
    except DockerFault as error:
        pull_error = (getattr(error, "explanation", None) or str(error)).splitlines()[0]
    made_here = DEBIAN.match(tag)
    if made_here is None:
        raise MachineError(
            f"the base image {tag} can't be pulled ({pull_error}) and is none that can be made here "
            "(debian:bullseye, bookworm or trixie, with or without -slim): load it with `docker load`"
        )
    if shutil.which("mmdebstrap") is None:
        raise MachineError(
            f"the base image {tag} can't be pulled ({pull_error}), and mmdebstrap, which can make it here, is not "
            "installed: `sudo apt-get install mmdebstrap`"
        )
    say(f"making {tag} out of Debian's packages")
    _debootstrap(client, made_here[1], tag)


def _debootstrap(client: docker.DockerClient, suite: str, tag: str) -> None:
    mode = "root" if os.geteuid() == 0 else "unshare"
    maker = subprocess.Popen(
        ["mmdebstrap", "--quiet", f"--mode={mode}", "--variant=minbase", suite, "-"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert maker.stdout is not None
    assert maker.stderr is not None
    repository, _, version = tag.partition(":")
    complaint: list[str] = []
    errors = maker.stderr
    reader = threading.Thread(target=lambda: complaint.extend(_lines(errors)))
    reader.start()
    try:
        client.api.import_image_from_stream(maker.stdout, repository, version, changes=['CMD ["bash"]'])
        refused = None
    except DockerFault as error:
        refused = f"Docker said: {error}"
    finally:
        maker.stdout.close()
        code = maker.wait()
        reader.join()
    if code != 0 or refused:
        # An archive that broke off may have been imported half.
        with contextlib.suppress(*DockerFault):
            client.images.remove(tag)
        raise MachineError(
            f"mmdebstrap could not make {tag}: {refused or ' / '.join(complaint[-2:]) or f'exit code {code}'}"
        )


def _lines(stream: IO[bytes]) -> list[str]:
    return [line.strip() for line in stream.read().decode(errors="replace").splitlines() if line.strip()]
