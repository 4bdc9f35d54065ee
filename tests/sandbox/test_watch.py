"""The watch on a real folder, through the real kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

from harness.sandbox import tree
from harness.sandbox.watch import NOTHING, Watch, is_leftover, originals


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    (root / "package" / "deep").mkdir(parents=True)
    (root / "package" / "a.py").write_text("a = 1\n")
    (root / "package" / "deep" / "é.py").write_text("b = 2\n")
    (root / "run.sh").write_text("true\n")
    (root / "run.sh").chmod(0o755)
    (root / "link").symlink_to("package/a.py")
    for command in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", "-C", str(root), *command], check=True)
    return root


def test_nothing_has_changed_at_the_start(repository: Path) -> None:
    assert Watch(str(repository)).fingerprint() == NOTHING


def test_the_originals_are_what_the_files_hold(repository: Path) -> None:
    watch = Watch(str(repository))
    known = originals(str(repository))
    assert set(known) == {"package/a.py", "package/deep/é.py", "run.sh", "link"}
    assert all(watch._content(path) == content for path, content in known.items())


def test_equal_contents_have_equal_fingerprints_whatever_happened_between(repository: Path) -> None:
    watch = Watch(str(repository))
    file = repository / "package" / "a.py"
    seen = []
    for text in ("a = 2\n", "a = 1\n", "a = 2\n", "a = 1\n", "a = 3\n"):
        file.write_text(text)
        seen.append(watch.fingerprint())
    assert seen[0] == seen[2] != NOTHING
    assert seen[1] == seen[3] == NOTHING
    assert seen[4] not in (seen[0], NOTHING)


def test_the_order_of_changes_does_not_matter_and_which_file_does(repository: Path) -> None:
    first, second = Watch(str(repository)), Watch(str(repository))
    (repository / "x").write_text("1")
    (repository / "y").write_text("2")
    one = first.fingerprint()
    (repository / "x").write_text("2")
    (repository / "y").write_text("1")
    assert first.fingerprint() != one
    (repository / "y").write_text("2")
    (repository / "x").write_text("1")
    assert first.fingerprint() == second.fingerprint() == one


def test_folders_that_come_move_and_go_are_followed(repository: Path) -> None:
    watch = Watch(str(repository))
    (repository / "new" / "er").mkdir(parents=True)
    (repository / "new" / "er" / "file").write_text("1")
    made = watch.fingerprint()
    assert made != NOTHING
    (repository / "new").rename(repository / "other")
    moved = watch.fingerprint()
    assert moved not in (made, NOTHING)
    (repository / "other" / "er" / "file").write_text("2")
    assert watch.fingerprint() not in (moved, made, NOTHING)
    (repository / "other" / "er" / "file").write_text("1")
    (repository / "other").rename(repository / "new")
    assert watch.fingerprint() == made
    shutil.rmtree(repository / "new")
    assert watch.fingerprint() == NOTHING
    shutil.move(repository / "package", repository.parent / "elsewhere")
    assert watch.fingerprint() != NOTHING
    shutil.move(repository.parent / "elsewhere", repository / "package")
    assert watch.fingerprint() == NOTHING


def test_modes_and_links_count(repository: Path) -> None:
    watch = Watch(str(repository))
    (repository / "run.sh").chmod(0o644)
    assert watch.fingerprint() != NOTHING
    (repository / "run.sh").chmod(0o755)
    assert watch.fingerprint() == NOTHING
    (repository / "link").unlink()
    (repository / "link").symlink_to("run.sh")
    assert watch.fingerprint() != NOTHING


def test_leftovers_of_running_code_do_not_count(repository: Path) -> None:
    watch = Watch(str(repository))
    (repository / "package" / "__pycache__").mkdir()
    (repository / "package" / "__pycache__" / "a.cpython-313.pyc").write_text("1")
    (repository / "package" / "a.pyc").write_text("1")
    subprocess.run(["git", "-C", str(repository), "rm", "-q", "--cached", "run.sh"], check=True)
    assert watch.fingerprint() == NOTHING


@pytest.mark.parametrize(
    "name",
    ["__pycache__", "a.pyc", "a.pyo", "a.pyd", "a.py", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".tox",
     "a.egg-info", "pycache", "cache", "tox", "pyc"],
)  # fmt: skip
def test_leftovers_are_what_a_patch_leaves_out_too(name: str) -> None:
    """The watch runs alone in a sandbox and can't ask the other table."""
    assert is_leftover(name) == any(fnmatch(name, pattern.rstrip("/")) for pattern in tree.LEFTOVERS)


def test_a_file_that_is_still_being_written_counts(repository: Path) -> None:
    watch = Watch(str(repository))
    with (repository / "log").open("wb", buffering=0) as log:
        seen = set()
        for _ in range(3):
            log.write(b"line\n")
            seen.add(watch.fingerprint())
    assert len(seen) == 3
    assert NOTHING not in seen


def test_large_files_are_known_by_size_and_time(repository: Path) -> None:
    watch = Watch(str(repository))
    large = repository / "large"
    large.write_bytes(bytes(3 << 20))
    first = watch.fingerprint()
    os.utime(large, ns=(1, 1))
    assert watch.fingerprint() not in (first, NOTHING)


def test_more_events_than_the_queue_holds_lose_nothing(repository: Path) -> None:
    watch = Watch(str(repository))
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    for number in range(most // 4 + 100):  # each makes at least create, open for writing and close
        (repository / f"{number}").write_text("")
        (repository / f"{number}").unlink()
    (repository / "package" / "a.py").write_text("a = 2\n")
    found = watch.fingerprint()
    other = Watch(str(repository))
    (repository / "package" / "a.py").write_text("a = 3\n")
    (repository / "package" / "a.py").write_text("a = 2\n")
    assert found == other.fingerprint() != NOTHING


def test_names_that_are_no_text_are_files_like_others(repository: Path) -> None:
    watch = Watch(str(repository))
    name = os.fsdecode(b"\xff\xfe")
    (repository / name).write_text("1")
    assert watch.fingerprint() != NOTHING


@pytest.mark.parametrize("content", [b"", b"DIRC", b"DIRC\0\0\0\4\0\0\0\1", b"DIRC\0\0\0\2\0\0\0\x09" + bytes(70)])
def test_an_index_that_can_not_be_read_is_none(repository: Path, content: bytes) -> None:
    (repository / ".git" / "index").write_bytes(content)
    assert originals(str(repository)) == {}
    watch = Watch(str(repository))
    (repository / "package" / "a.py").write_text("a = 2\n")
    changed = watch.fingerprint()
    (repository / "package" / "a.py").write_text("a = 1\n")
    reverted = watch.fingerprint()
    (repository / "package" / "a.py").write_text("a = 2\n")
    assert NOTHING not in (changed, reverted)
    assert watch.fingerprint() == changed


def test_a_folder_that_is_not_there_is_an_empty_one(tmp_path: Path) -> None:
    assert Watch(str(tmp_path / "none")).fingerprint() == NOTHING
