"""Patches are computed from archives: every kind of change, and what an agent might leave to mislead."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.sandbox import tree
from harness.sandbox.archive import File
from harness.sandbox.tree import Base, PatchRejected, agents_repository, create_base


def archive(entries: dict[str, bytes | str | tuple[bytes, int]], hard: dict[str, str] | None = None) -> io.BytesIO:
    """A tar as Docker gives it: everything below one top folder. A str is a link's target; `hard` are hard links."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, value in entries.items():
            member = tarfile.TarInfo(f"testbed/{name}")
            if isinstance(value, str):
                member.type, member.linkname = tarfile.SYMTYPE, value
                tar.addfile(member)
                continue
            content, mode = value if isinstance(value, tuple) else (value, 0o644)
            member.mode, member.size = mode, len(content)
            tar.addfile(member, io.BytesIO(content))
        for name, target in (hard or {}).items():
            member = tarfile.TarInfo(f"testbed/{name}")
            member.type, member.linkname = tarfile.LNKTYPE, f"testbed/{target}"
            tar.addfile(member)
    buffer.seek(0)
    return buffer


START: dict[str, bytes | str | tuple[bytes, int]] = {
    ".gitignore": b"*.log\nbuild/\n",
    "a.py": b"x = 1\n",
    "crlf.txt": b"one\r\ntwo\r\n",
    "old_name.py": b"".join(b"line %d\n" % i for i in range(30)),
    "logo.png": b"\x89PNG\0\1\2\3",
    "run.sh": (b"#!/bin/sh\n", 0o755),
    "link": "a.py",
    "gone.txt": b"bye\n",
    "ümlaut name.txt": "grüße\n".encode(),
    "debug.log": b"ignored from the start\n",
}


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return create_base(tmp_path / "base.git", archive(START))


def changed(base: Base, **changes: bytes | str | tuple[bytes, int] | None) -> dict[str, File | None]:
    """Take the difference, apply it to the base again, and return what it says: path to file, None if removed."""
    state = dict(START)
    for name, value in changes.items():
        if value is None:
            del state[name]
        else:
            state[name] = value
    files, removed, _ = base.apply(base.difference(archive(state)).patch)
    return {file.path: file for file in files} | dict.fromkeys(removed)


def test_no_change_is_an_empty_patch(base: Base) -> None:
    assert base.difference(archive(START)).patch == b""


def test_every_kind_of_change_survives_the_way_through_a_patch(base: Base) -> None:
    result = changed(
        base,
        **{
            "a.py": b"x = 2",  # and no newline at the end
            "crlf.txt": b"one\r\nthree\r\n",
            "new/deep/file.py": b"y = 1\n",
            "empty.py": b"",
            "logo.png": bytes(range(256)),
            "run.sh": (b"#!/bin/sh\n", 0o644),
            "link": "run.sh",
            "gone.txt": None,
            "ümlaut name.txt": b"\xff\xfe not utf-8",
        },
    )
    content = {path: file.content if file else None for path, file in result.items()}
    assert content == {
        "a.py": b"x = 2",
        "crlf.txt": b"one\r\nthree\r\n",
        "new/deep/file.py": b"y = 1\n",
        "empty.py": b"",
        "logo.png": bytes(range(256)),
        "run.sh": b"#!/bin/sh\n",
        "link": b"run.sh",
        "gone.txt": None,
        "ümlaut name.txt": b"\xff\xfe not utf-8",
    }
    assert result["run.sh"].mode == "100644"  # type: ignore[union-attr]
    assert result["link"].mode == "120000"  # type: ignore[union-attr]


def test_a_rename_is_shown_as_one(base: Base) -> None:
    state = dict(START)
    state["new_name.py"] = state.pop("old_name.py")
    patch = base.difference(archive(state)).patch
    assert b"rename from old_name.py\nrename to new_name.py\n" in patch
    files, removed, _ = base.apply(patch)
    assert ([f.path for f in files], removed) == (["new_name.py"], ["old_name.py"])


def test_leftovers_are_left_out_by_the_rules_of_the_base(base: Base) -> None:
    result = changed(
        base,
        **{
            "build/out.o": b"x",
            "new.log": b"x",
            "pkg/__pycache__/a.cpython-311.pyc": b"x",
            ".gitignore": b"*.py\n",  # the agent's own rules hide nothing
            "b.py": b"fix\n",
        },
    )
    assert set(result) == {".gitignore", "b.py"}


def test_an_agents_ignore_file_cannot_bring_leftovers_in_or_hide_a_fix(base: Base) -> None:
    result = changed(base, **{"pkg/.gitignore": b"*\n!*.log\n", "pkg/fix.py": b"1\n", "pkg/x.log": b"1\n"})
    assert set(result) == {"pkg/.gitignore", "pkg/fix.py"}


def test_attributes_and_a_planted_repository_change_nothing(base: Base) -> None:
    result = changed(
        base,
        **{
            ".gitattributes": b"* text=auto eol=lf\n*.txt filter=evil -diff\n*.py binary\n",
            ".git/config": b'[filter "evil"]\n clean = touch /tmp/owned\n',
            "sub/.git/HEAD": b"ref: refs/heads/x\n",
            "crlf.txt": b"a\r\nb\r\n",
            "a.py": b"x = 3\n",
        },
    )
    assert {path: f.content for path, f in result.items() if f} == {
        ".gitattributes": b"* text=auto eol=lf\n*.txt filter=evil -diff\n*.py binary\n",
        "crlf.txt": b"a\r\nb\r\n",
        "a.py": b"x = 3\n",
    }


def test_a_file_that_became_a_folder(base: Base) -> None:
    result = changed(base, **{"gone.txt": None, "gone.txt/now.py": b"1\n"})
    assert result["gone.txt/now.py"] is not None
    assert result["gone.txt"] is None


def test_a_hard_link_is_a_file_like_any_other(base: Base, tmp_path: Path) -> None:
    patch = base.difference(archive(START, hard={"copy.py": "a.py"})).patch
    files, removed, _ = base.apply(patch)
    assert ([(f.path, f.content) for f in files], removed) == ([("copy.py", b"x = 1\n")], [])
    without = {name: value for name, value in START.items() if name != "a.py"} | {"z.py": b"x = 1\n"}
    assert base.apply(base.difference(archive(without, hard={"a.py": "z.py"})).patch)[1] == []
    linked = create_base(tmp_path / "linked.git", archive({"a": b"1"}, hard={"b": "a"}))
    assert set(linked.entries) == {"a", "b"}


def test_names_that_git_would_take_for_patterns(base: Base) -> None:
    assert set(changed(base, **{":!x": b"1", ":(bad)y": b"2", "*.py": b"3"})) == {":!x", ":(bad)y", "*.py"}


def test_an_empty_work_directory_is_every_file_deleted(base: Base) -> None:
    files, removed, _ = base.apply(base.difference(archive({})).patch)
    assert (files, set(removed)) == ([], set(base.entries))


def test_a_tracked_file_is_compared_whatever_the_ignore_rules_say(tmp_path: Path) -> None:
    repository = tmp_path / "testbed"
    (repository / "build").mkdir(parents=True)
    (repository / ".gitignore").write_text("build/\n")
    (repository / "build" / "tracked.py").write_text("x = 1\n")
    (repository / "build" / "left.o").write_text("x")
    for words in (["init", "-q"], ["add", "-f", ".gitignore", "build/tracked.py"]):
        subprocess.run(["git", "-C", str(repository), *words], check=True)

    def taken() -> io.BytesIO:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            tar.add(repository, "testbed")
        buffer.seek(0)
        return buffer

    base = create_base(tmp_path / "base.git", taken())
    assert set(base.entries) == {".gitignore", "build/tracked.py"}
    (repository / "build" / "tracked.py").write_text("x = 2\n")
    assert [f.path for f in base.apply(base.difference(taken()).patch)[0]] == ["build/tracked.py"]


@pytest.mark.parametrize("index", [b"", b"no index", b"DIRC\0\0\0\2\xff\xff\xff\xff" + bytes(20)])
def test_an_image_whose_index_is_none_is_refused(tmp_path: Path, index: bytes) -> None:
    try:
        base = create_base(tmp_path / "base.git", archive(START | {".git/index": index}))
    except UserError as error:
        assert "index" in str(error)  # noqa: PT017 - an empty one is as good as none
        assert not (tmp_path / "base.git").exists()
    else:
        assert (index, "a.py" in base.entries) == (b"", True)


def test_a_repository_that_is_a_file_or_a_link_elsewhere_is_left_alone(tmp_path: Path) -> None:
    for number, git_entry in enumerate([b"gitdir: /etc\n", "/etc"]):
        base = create_base(tmp_path / f"{number}.git", archive(START | {".git": git_entry}))
        assert "a.py" in base.entries
        assert ".git" not in base.entries


def test_a_huge_file_is_named_and_left_out(base: Base) -> None:
    state = dict(START) | {"core.dump": b"\0" * (33 << 20), "b.py": b"1\n"}
    difference = base.difference(archive(state))
    assert difference.too_large == ("core.dump",)
    assert [f.path for f in base.apply(difference.patch)[0]] == ["b.py"]


def test_much_that_is_new_is_left_out_from_a_point_on(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "LARGEST_CHANGE_BYTES", 100)
    added: dict[str, str | bytes | tuple[bytes, int]] = {f"{n}.txt": f"{n}" * 40 for n in range(4)}
    difference = base.difference(archive({**START, **added}))
    kept = {file.path for file in base.apply(difference.patch)[0]}
    assert len(kept) == 2
    assert kept | set(difference.too_large) == set(added)


def test_a_patch_of_another_base_is_rejected_with_gits_words(base: Base) -> None:
    with pytest.raises(PatchRejected, match=r"no\.py"):
        base.apply(b"diff --git a/no.py b/no.py\n--- a/no.py\n+++ b/no.py\n@@ -1 +1 @@\n-a\n+b\n")


def test_bases_of_one_state_are_one_commit_and_the_agents_copy_has_no_more(tmp_path: Path, base: Base) -> None:
    again = create_base(tmp_path / "again.git", archive(START))

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()

    head = git(f"--git-dir={base.git_dir}", "rev-parse", "HEAD")
    assert git(f"--git-dir={again.git_dir}", "rev-parse", "HEAD") == head

    work = tmp_path / "work"
    work.mkdir()
    for tar_bytes in (archive(START).getvalue(), agents_repository(base, "testbed")):
        subprocess.run(["tar", "-x", "--no-same-owner", "-C", str(work)], input=tar_bytes, check=True)
    repository = str(work / "testbed")
    assert git("-C", repository, "log", "--all", "--format=%H") == head
    assert git("-C", repository, "status", "--porcelain") == ""
    assert git("-C", repository, "remote") == ""
    assert git("-C", repository, "count-objects", "-v").splitlines()[0] == "count: 0"
    (work / "testbed" / "a.py").write_text("x = 9\n")
    assert "+x = 9" in git("-C", repository, "diff")
