"""What goes into a rebuilt image: recipes, archives checked by their hash, commits as they are, room on the disk."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness import paths
from harness.errors import MachineError, UserError
from harness.images import archives, commits, rebuilt, recipes
from harness.sandbox.daemon import connect
from harness.suites import swebench

MINI = paths.builtin("tasks") / "swe-bench-verified-mini"


def test_each_of_the_fifty_has_a_recipe_and_its_environment_a_lock() -> None:
    known = recipes.read(MINI)
    assert set(known) == set(swebench.read_file(MINI).ids or ())
    assert len({recipe.environment for recipe in known.values()}) == 9
    for name, recipe in known.items():
        assert "3.9" in recipe.pythons()
        assert (recipe.archive is None) == (recipe.only_from_commit is not None), name
        lock = recipe.lock("3.9").read_text()
        pinned = [line for line in lock.splitlines() if "==" in line]
        assert len(pinned) >= 30
        assert all(line.endswith("\\") for line in pinned), "a package without a hash"
    assert known["django__django-11790"].pythons() == ["3.6", "3.9"]
    assert recipes.read(paths.builtin("tasks") / "smoke") == {}


def test_a_malformed_recipe_is_refused(tmp_path: Path) -> None:
    for text, said in {
        '["a__a-1"]\narchive = "x.tar.gz"\n': "environment: expected",
        '["a__a-1"]\nenvironment = "e"\nsha256 = "12"\n': "sha256: expected",
        '["a__a-1"]\nenvironment = "e"\nundone = true\n': "undone: expected no such field",
        '["a__a-1"]\nenvironment = "/etc"\narchive = "x"\n': "environment: expected a text that matches",
        '["a__a-1"]\nenvironment = "e"\narchive = "x.tar.gz"\n': "archive and sha256 belong together",
        '["a__a-1"]\nenvironment = "e"\n': "expected either an archive or only_from_commit",
        "no toml": "not valid TOML",
    }.items():
        (tmp_path / recipes.FILE).write_text(text)
        with pytest.raises(UserError) as raised:
            recipes.read(tmp_path)
        assert said in str(raised.value)


def test_a_python_is_the_users_only_where_an_environment_is_for_it(tmp_path: Path) -> None:
    known = recipes.read(MINI)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3.6").write_text("#!/bin/sh\n")
    for word, said in {
        "3.6": "expected VERSION=PREFIX",
        "3.8=/usr": "no environment of this suite is for Python 3.8: 3.6 and 3.9 are",
        f"3.6={tmp_path}": "that can be run",
    }.items():
        with pytest.raises(UserError, match=said):
            rebuilt.read_pythons([word], known)
    (tmp_path / "bin" / "python3.6").chmod(0o755)
    pythons = rebuilt.read_pythons([f"3.6={tmp_path}"], known)
    assert pythons.choose(known["django__django-11790"]) == ("3.6", tmp_path)
    assert pythons.choose(known["sphinx-doc__sphinx-7590"]) == ("3.9", None)


@contextmanager
def index(pages: dict[str, tuple[str, bytes]]) -> Iterator[str]:
    """A package index of this test's own: path to (content type, body)."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, body = pages.get(self.path, ("", b""))
            self.send_response(200 if kind else 404)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/simple"
        server.shutdown()


@pytest.mark.parametrize("kind", ["json", "html"])
def test_an_archive_is_found_in_the_index_checked_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    content = b"a release"
    sha256 = hashlib.sha256(content).hexdigest()
    listing = {
        "json": (
            archives.JSON_TYPE,
            json.dumps({"files": [{"filename": "Thing-1.0.tar.gz", "url": "../../f"}]}).encode(),
        ),
        "html": ("text/html", b'<a href="/f/Thing-1.0.tar.gz#sha256=0">Thing</a>'),
    }[kind]
    pages = {"/simple/thing/": listing, "/f": ("a/b", content), "/f/Thing-1.0.tar.gz": ("a/b", content)}
    with index(pages) as address:
        monkeypatch.setenv("UV_DEFAULT_INDEX", address)
        found = archives.fetch("Thing-1.0.tar.gz", sha256)
        assert found.read_bytes() == content
        with pytest.raises(MachineError, match=r"has no Thing-2\.0\.tar\.gz"):
            archives.fetch("Thing-2.0.tar.gz", sha256)
        with pytest.raises(MachineError, match="can't be fetched from the package index"):
            archives.fetch("Other-1.0.tar.gz", sha256)
        with pytest.raises(MachineError, match="is not the file it should be"):
            archives.fetch("Thing-1.0.tar.gz", "0" * 64)
    assert archives.fetch("Thing-1.0.tar.gz", sha256) == found  # without an index by now


def test_a_commit_is_taken_whole_whatever_its_attributes_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    origin = tmp_path / "servers" / "a" / "b"
    origin.mkdir(parents=True)

    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        return subprocess.run(
            ["git", "-C", str(origin), *who, *words], check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "-q")
    (origin / ".gitattributes").write_text("secret export-ignore\nversion export-subst\n")
    (origin / "secret").write_text("kept")
    (origin / "version").write_text("$Format:%H$")
    git("add", "-A")
    git("commit", "-qm", "base")
    base = git("rev-parse", "HEAD")
    (origin / "later").write_text("no")
    git("add", "-A")
    git("commit", "-qm", "later")

    archive = commits.fetch("a/b", base, f"{tmp_path}/servers/{{repo}}")
    with tarfile.open(archive) as tar:
        assert sorted(m.name for m in tar) == [f"repository{n}" for n in ("", "/.gitattributes", "/secret", "/version")]
        stream = tar.extractfile("repository/version")
        assert stream is not None
        assert stream.read() == b"$Format:%H$"
    with pytest.raises(UserError, match="commit 000000000000 of a/b can't be fetched from"):
        commits.fetch("a/b", "0" * 40, f"{tmp_path}/servers/{{repo}}")
    with pytest.raises(UserError, match="can't be fetched from /nowhere/c/d"):
        commits.fetch("c/d", base, "/nowhere/{repo}")


@pytest.mark.docker
def test_a_disk_without_room_is_refused_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    client = connect()
    if not Path(client.info()["DockerRootDir"]).is_dir():
        pytest.skip("Docker's disk is another machine's")
    known = recipes.read(MINI)
    monkeypatch.setattr(rebuilt, "find", lambda client, task: None)
    tasks = [SimpleNamespace(name=name) for name in known]
    needed = rebuilt.missing_bytes(client, tasks, known)  # type: ignore[arg-type]
    assert 50 * rebuilt.INSTANCE_BYTES <= needed < 6_000_000_000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed))
    with pytest.raises(MachineError, match="and the images will take about"):
        rebuilt.check_space(client, tasks, known)  # type: ignore[arg-type]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed + rebuilt.SPARE_BYTES))
    rebuilt.check_space(client, tasks, known)  # type: ignore[arg-type]
