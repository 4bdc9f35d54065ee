"""The work directory as git sees it, computed here from an archive and never with the agent's own git.

A base is the state an agent starts from: a bare repository with one commit, kept in the cache under the id of
the image that it was read from. A patch is the difference between a base and an archive that was taken when
every process in the sandbox was dead. Files of the archive are hashed in memory; none is unpacked on the host, so
no link, filter, attribute, hook or configuration that an agent left behind is followed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from harness.errors import MachineError

# Leftovers of running code. The base's own .gitignore files are applied besides.
LEFTOVERS = (
    "__pycache__/",
    "*.py[cod]",
    ".pytest_cache/",
    ".mypy_cache/",
    ".ruff_cache/",
    ".tox/",
    "*.egg-info/",
)

# A file over this is left out of a patch and named: no fix of source code is that large.
LARGEST_FILE_BYTES = 32 << 20
LARGEST_CHANGE_BYTES = 64 << 20  # and of all that is new together, in the order of the archive

# In force whatever .gitattributes the tree holds: bytes are bytes.
ATTRIBUTES = "* -text -filter -ident !eol !working-tree-encoding !diff !merge\n"

ENVIRONMENT = {
    "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_AUTHOR_NAME": "base",
    "GIT_AUTHOR_EMAIL": "base@example.invalid",
    "GIT_AUTHOR_DATE": "2000-01-01T00:00:00+0000",
    "GIT_COMMITTER_NAME": "base",
    "GIT_COMMITTER_EMAIL": "base@example.invalid",
    "GIT_COMMITTER_DATE": "2000-01-01T00:00:00+0000",
    "LC_ALL": "C.UTF-8",
}


Applied = Literal["git_apply", "three_way", "patch_fuzz"]


class PatchRejected(Exception):
    """A patch that does not apply to its base."""


@dataclass(frozen=True)
class File:
    path: str  # relative to the work directory
    mode: str  # git's: 100644, 100755 or 120000
    content: bytes

    @property
    def blob(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Difference:
    patch: bytes  # empty when nothing changed
    too_large: tuple[str, ...] = ()  # paths that were left out


def _git(arguments: Sequence[str], *, git_dir: Path, stdin: bytes = b"", env: Mapping[str, str] = {}) -> bytes:
    try:
        done = subprocess.run(
            ["git", "-c", "core.quotePath=false", f"--git-dir={git_dir}", *arguments],
            input=stdin,
            capture_output=True,
            env={**ENVIRONMENT, **env},
            check=False,
        )
    except FileNotFoundError as error:
        raise MachineError("git is not installed: `sudo apt-get install git`") from error
    if done.returncode != 0:
        raise subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
    return done.stdout


@dataclass(frozen=True)
class TooLarge:
    path: str


@dataclass(frozen=True)
class HardLink:
    """A second name of a file that came before it in the archive."""

    path: str
    target: str


def _relative(name: str) -> str | None:
    """A member's path below the archive's top folder; None for the folder itself and for what is git's own."""
    parts = PurePosixPath(name).parts[1:]
    return None if not parts or ".git" in parts or ".." in parts else "/".join(parts)


def paths(archive: IO[bytes]) -> list[str]:
    """The paths of all that `files` would give, contents unread."""
    archive.seek(0)
    with tarfile.open(fileobj=archive, mode="r:") as tar:
        found = [_relative(m.name) for m in tar if m.issym() or m.isfile() or m.islnk()]
    return [path for path in found if path is not None]


def files(archive: IO[bytes], skip: Container[str] = ()) -> Iterator[File | HardLink | TooLarge]:
    """The files and links below an archive's top folder, `.git` and what is in `skip` left out.

    Devices, sockets and pipes are nothing that a patch could hold.
    """
    archive.seek(0)
    with tarfile.open(fileobj=archive, mode="r|") as tar:
        for member in tar:
            path = _relative(member.name)
            if path is None or path in skip:
                continue
            if member.issym():
                yield File(path, "120000", os.fsencode(member.linkname))
            elif member.islnk():
                target = _relative(member.linkname)
                if target is not None:
                    yield HardLink(path, target)
            elif member.isfile() and member.size > LARGEST_FILE_BYTES:
                yield TooLarge(path)
            elif member.isfile():
                stream = tar.extractfile(member)
                assert stream is not None
                yield File(path, "100755" if member.mode & 0o100 else "100644", stream.read())


@dataclass(frozen=True)
class Base:
    """The state an agent starts from. `git_dir` is a bare repository whose HEAD is its one commit."""

    git_dir: Path

    @cached_property
    def entries(self) -> dict[str, tuple[str, str]]:
        """Path to (mode, blob) of every file in the base."""
        listing = _git(["ls-tree", "-r", "-z", "HEAD"], git_dir=self.git_dir)
        entries = {}
        for line in listing.split(b"\0"):
            if line:
                facts, path = line.split(b"\t", 1)
                mode, _, blob = facts.decode().split(" ")
                entries[os.fsdecode(path)] = (mode, blob)
        return entries

    def difference(self, archive: IO[bytes]) -> Difference:
        """What changed from this base to `archive`, a seekable tar of the work directory.

        New files that the base's ignore rules name are left out; a file of the base is compared whatever they say.
        """
        new = [path for path in paths(archive) if path not in self.entries]
        ignored = self._ignored(new)
        known = {blob for _, blob in self.entries.values()}
        state: dict[str, tuple[str, str]] = {}  # path to (mode, blob), as it is now
        too_large: list[str] = []
        new_bytes = 0
        with self._scratch() as env:
            for file in files(archive, skip=ignored):
                if isinstance(file, TooLarge):
                    too_large.append(file.path)
                elif isinstance(file, HardLink):
                    # A name of something that was left out is left out with it.
                    if file.target in state:
                        state[file.path] = state[file.target]
                elif file.blob not in known and new_bytes + len(file.content) > LARGEST_CHANGE_BYTES:
                    too_large.append(file.path)
                else:
                    state[file.path] = (file.mode, file.blob)
                    if file.blob not in known:
                        new_bytes += len(file.content)
                        _write_object(Path(env["GIT_OBJECT_DIRECTORY"]), file)
            changed = {path: entry for path, entry in state.items() if self.entries.get(path) != entry}
            deleted = self.entries.keys() - state.keys() - set(too_large)
            if not changed and not deleted:
                return Difference(b"", tuple(too_large))
            lines = [f"0 {'0' * 40}\t{path}\0" for path in deleted]
            lines += [f"{mode} {blob}\t{path}\0" for path, (mode, blob) in changed.items()]
            _git(
                ["update-index", "-z", "--index-info"],
                git_dir=self.git_dir,
                stdin=os.fsencode("".join(lines)),
                env=env,
            )
            patch = _git(
                ["diff", "--cached", "--binary", "--full-index", "--find-renames", "--no-ext-diff",
                 "--no-textconv", "--no-color", "HEAD"],
                git_dir=self.git_dir,
                env=env,
            )  # fmt: skip
        return Difference(patch, tuple(too_large))

    def apply(self, patch: bytes) -> tuple[list[File], list[str], Applied]:
        """The files that a patch of this base changes, the paths that it removes, and what it took to apply it.

        Raises PatchRejected with git's own words.
        """
        with self._scratch() as env:
            applied: Applied = "git_apply"
            arguments = ["apply", "--cached", "--whitespace=nowarn"]
            try:
                _git([*arguments, "-"], git_dir=self.git_dir, stdin=patch, env=env)
            except subprocess.CalledProcessError as error:
                try:
                    _git([*arguments, "--3way", "-"], git_dir=self.git_dir, stdin=patch, env=env)
                except subprocess.CalledProcessError:
                    # The first complaint is about the patch, the second often about blobs that nobody has.
                    raise PatchRejected(error.stderr.decode(errors="replace").strip()) from error
                applied = "three_way"
            raw = _git(
                ["diff", "--cached", "--raw", "-z", "--no-renames", "--full-index", "HEAD"],
                git_dir=self.git_dir,
                env=env,
            )
            fields = raw.split(b"\0")[:-1]
            changed, removed = [], []
            for facts, name in zip(fields[::2], fields[1::2], strict=True):
                _, mode, _, blob, status = facts.decode().split(" ")
                path = os.fsdecode(name)
                if status == "D":
                    removed.append(path)
                else:
                    content = _git(["cat-file", "blob", blob], git_dir=self.git_dir, env=env)
                    changed.append(File(path, mode, content))
        return changed, removed, applied

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[dict[str, str]]:
        """An index and an object folder of their own, so that the base is never written to."""
        with tempfile.TemporaryDirectory(prefix="harness-tree-") as folder:
            env = {
                "GIT_INDEX_FILE": f"{folder}/index",
                "GIT_OBJECT_DIRECTORY": f"{folder}/objects",
                "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(self.git_dir / "objects"),
            }
            Path(folder, "objects").mkdir()
            _git(["read-tree", "HEAD"], git_dir=self.git_dir, env=env)
            yield env

    def _ignored(self, names: Iterable[str]) -> set[str]:
        asked = [name for name in names if PurePosixPath(name).name != ".gitignore"]
        return ignored(self.git_dir, self.git_dir / "ignore", asked)


def ignored(git_dir: Path, rules: Path, names: Sequence[str]) -> set[str]:
    """Those paths that the .gitignore files below `rules` and the common leftovers name."""
    if not names:
        return set()
    done = subprocess.run(
        [
            "git",
            f"--git-dir={git_dir}",
            f"--work-tree={rules}",
            "check-ignore",
            "--no-index",
            "-z",
            "--stdin",
        ],
        # With the dot a file that is called ":!x" is no pattern.
        input=os.fsencode("\0".join(f"./{name}" for name in names)),
        capture_output=True,
        cwd=rules,
        env=ENVIRONMENT,
        check=False,
    )
    if done.returncode not in (0, 1):  # 1: none is ignored
        raise MachineError(f"git check-ignore failed: {done.stderr.decode(errors='replace').strip()}")
    return {os.fsdecode(path).removeprefix("./") for path in done.stdout.split(b"\0") if path}


def touched(patch: bytes) -> list[str]:
    """The paths that a patch names, whether or not it applies. Raises PatchRejected for what is no patch."""
    with tempfile.TemporaryDirectory(prefix="harness-touched-") as folder:
        try:
            listing = _git(["apply", "--numstat", "-z", "-"], git_dir=Path(folder), stdin=patch)
        except subprocess.CalledProcessError as error:
            raise PatchRejected(error.stderr.decode(errors="replace").strip()) from error
    # "added TAB deleted TAB path", or for a rename an empty path and then both.
    names: list[str] = []
    for field in listing.split(b"\0")[:-1]:
        name = os.fsdecode(field.split(b"\t", 2)[-1])
        if name:
            names.append(name)
    return names


def _write_object(folder: Path, file: File) -> None:
    target = folder / file.blob[:2] / file.blob[2:]
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(zlib.compress(b"blob %d\0" % len(file.content) + file.content, 1))


def _tracked(archive: IO[bytes], git_dir: Path) -> set[str]:
    """The paths in the index of the repository that the archive holds; none when it holds no repository."""
    archive.seek(0)
    with tarfile.open(fileobj=archive, mode="r:") as tar, tempfile.NamedTemporaryFile(prefix="harness-index-") as copy:
        index = next((m for m in tar if PurePosixPath(m.name).parts[1:] == (".git", "index") and m.isfile()), None)
        stream = tar.extractfile(index) if index else None
        if stream is None:
            return set()
        shutil.copyfileobj(stream, copy)
        copy.flush()
        listing = _git(["ls-files", "-z"], git_dir=git_dir, env={"GIT_INDEX_FILE": copy.name})
    return {os.fsdecode(path) for path in listing.split(b"\0") if path}


def create_base(git_dir: Path, archive: IO[bytes], *, everything: bool = False) -> Base:
    """Read a base out of `archive`, a seekable tar of the work directory of a fresh container.

    Left out are leftovers of running code and, unless `everything` belongs to it, what the ignore rules name.
    The repository appears under `git_dir` only when it is whole.
    """
    git_dir.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=git_dir.name + ".", dir=git_dir.parent))
    try:
        _git(["init", "--quiet", "--bare", "--initial-branch=main", "--template="], git_dir=part)
        (part / "info").mkdir(exist_ok=True)
        (part / "info" / "attributes").write_text(ATTRIBUTES, encoding="utf-8")
        (part / "info" / "exclude").write_text("\n".join(LEFTOVERS) + "\n", encoding="utf-8")
        rules = part / "ignore"
        rules.mkdir()
        for file in files(archive):
            if isinstance(file, File) and PurePosixPath(file.path).name == ".gitignore" and file.mode != "120000":
                target = rules / file.path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.content)
        # What the image's own repository tracks is part of the base, whatever its ignore rules say.
        with tempfile.TemporaryDirectory(prefix="harness-rules-") as none:
            left_out = ignored(part, Path(none) if everything else rules, paths(archive)) - _tracked(archive, part)
        entries: dict[str, tuple[str, str]] = {}
        for file in files(archive, skip=left_out):
            if isinstance(file, HardLink) and file.target in entries:
                entries[file.path] = entries[file.target]
            elif isinstance(file, File):
                _write_object(part / "objects", file)
                entries[file.path] = (file.mode, file.blob)
        index = "".join(f"{mode} {blob}\t{path}\0" for path, (mode, blob) in entries.items())
        _git(["update-index", "-z", "--index-info"], git_dir=part, stdin=os.fsencode(index))
        tree = _git(["write-tree"], git_dir=part).decode().strip()
        commit = _git(["commit-tree", "-m", "base", tree], git_dir=part).decode().strip()
        _git(["update-ref", "refs/heads/main", commit], git_dir=part)
        _git(["repack", "-adq"], git_dir=part)
        try:
            part.rename(git_dir)
        except OSError:
            if not git_dir.is_dir():  # else another process made the same one at the same time
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Base(git_dir)


def agents_repository(base: Base, archive_prefix: str) -> bytes:
    """A tar of the `.git` that the agent gets: the same one commit, nothing else, an index that fits it."""
    with tempfile.TemporaryDirectory(prefix="harness-git-") as folder:
        git_dir = Path(folder) / ".git"
        shutil.copytree(base.git_dir, git_dir, ignore=shutil.ignore_patterns("ignore", "info", "index", "hooks"))
        _git(["config", "core.bare", "false"], git_dir=git_dir)
        _git(["read-tree", "HEAD"], git_dir=git_dir)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            tar.add(git_dir, arcname=f"{archive_prefix}/.git", filter=_as_root)
        return buffer.getvalue()


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
