"""The check that the repository an agent gets is the one commit that it was cut to, before the agent starts."""

from __future__ import annotations

import functools
import io
import tarfile
from pathlib import Path, PurePosixPath

from harness.sandbox.command import SandboxError
from harness.sandbox.container import Container
from harness.sandbox.tree import Base, agents_repository

# Every file's name, and the content of all but the objects and the index: packs are named by what is in them.
LOOK = (
    'cd "$1/.git" && export LC_ALL=C && find . ! -type d | sort && '
    "find . -type f ! -path './objects/*' ! -name index | sort | xargs cat"
)


def check(container: Container, workdir: str, base: Base) -> None:
    """Raises SandboxError when `.git` in the work directory holds anything but the base's one commit."""
    seen = bytearray()
    done = container.exec(["sh", "-c", LOOK, "sh", workdir], sink=seen.extend)
    if done.code != 0 or bytes(seen) != expected(base.git_dir):
        raise SandboxError("the repository in the sandbox is not the one commit that its history was cut to")


@functools.cache
def expected(git_dir: Path) -> bytes:
    """What the check prints for the repository that was made from a base."""
    names, contents = [], {}
    with tarfile.open(fileobj=io.BytesIO(agents_repository(Base(git_dir), "r"))) as tar:
        for member in tar:
            path = PurePosixPath(*PurePosixPath(member.name).parts[2:])
            if not member.isdir():
                names.append(f"./{path}")
            if member.isfile() and path.parts[0] != "objects" and path.name != "index":
                stream = tar.extractfile(member)
                contents[f"./{path}"] = stream.read() if stream else b""
    listing = "".join(f"{name}\n" for name in sorted(names)).encode()
    return listing + b"".join(contents[name] for name in sorted(contents))
