"""The work directory as git sees it, computed here from an archive and never with the agent's own git.

A base is the state an agent starts from: a bare repository with one commit, kept in the cache under the id of
the image that it was read from. A patch is the difference between a base and an archive that was taken when
every process in the sandbox was dead. Files of the archive are hashed in memory; none is unpacked on the host, so
no link, filter, attribute, hook or configuration that an agent left behind is followed.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from harness import owned
from harness.errors import UserError
from harness.sandbox.archive import File, HardLink, Readable, Unnameable, files, paths
from harness.sandbox.git import Ignored, git

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

# Of all that is new together, in the order of the archive; what is beyond is left out of a patch and named.
LARGEST_CHANGE_BYTES = 64 << 20
MOST_CHANGED_FILES = 20_000

# In force whatever .gitattributes the tree holds: bytes are bytes.
ATTRIBUTES = "* -text -filter -ident !eol !working-tree-encoding !diff !merge\n"

Applied = Literal["git_apply", "three_way", "patch_fuzz"]


class PatchRejected(Exception):
    """A patch that does not apply to its base."""


@dataclass(frozen=True)
class Difference:
    patch: bytes  # empty when nothing changed
    too_large: tuple[str, ...] = ()  # paths that were left out, or changes of paths
    unnameable: tuple[str, ...] = ()  # paths that git takes into no tree


@dataclass(frozen=True)
class Base:
    """The state an agent starts from. `git_dir` is a bare repository whose HEAD is its one commit."""

    git_dir: Path

    @cached_property
    def entries(self) -> dict[str, tuple[str, str]]:
        """Path to (mode, blob) of every file in the base."""
        listing = git(["ls-tree", "-r", "-z", "HEAD"], git_dir=self.git_dir)
        entries = {}
        for line in listing.split(b"\0"):
            if line:
                facts, path = line.split(b"\t", 1)
                mode, _, blob = facts.decode().split(" ")
                entries[os.fsdecode(path)] = (mode, blob)
        return entries

    def difference(self, archive: Readable) -> Difference:
        """What changed from this base to `archive`, a tar of the work directory.

        New files that the base's ignore rules name are left out; a file of the base is compared whatever they say.
        Raises TooMuch.
        """
        known = {blob for _, blob in self.entries.values()}
        state: dict[str, tuple[str, str]] = {}  # path to (mode, blob), as it is now
        too_large: list[str] = []
        unnameable: list[str] = []
        new_bytes = new_files = 0
        with self._scratch() as env, Ignored(self.git_dir, self.git_dir / "ignore") as ignored:
            for file in files(archive):
                new = file.path not in self.entries
                if isinstance(file, Unnameable):
                    unnameable.append(file.path)
                elif new and PurePosixPath(file.path).name != ".gitignore" and file.path in ignored:
                    pass
                elif isinstance(file, HardLink) and file.target in state:
                    state[file.path] = state[file.target]
                elif not isinstance(file, File) or (new and new_files == MOST_CHANGED_FILES):
                    # A hard link's content was left out by its first name.
                    too_large.append(file.path)
                elif file.blob not in known and new_bytes + len(file.content) > LARGEST_CHANGE_BYTES:
                    too_large.append(file.path)
                else:
                    state[file.path] = (file.mode, file.blob)
                    new_files += new
                    if file.blob not in known:
                        new_bytes += len(file.content)
                        _write_object(Path(env["GIT_OBJECT_DIRECTORY"]), file)
            changed = {path: entry for path, entry in state.items() if self.entries.get(path) != entry}
            deleted = self.entries.keys() - state.keys() - set(too_large)
            if not changed and not deleted:
                return Difference(b"", tuple(too_large), tuple(unnameable))
            lines = [f"0 {'0' * 40}\t{path}\0" for path in deleted]
            lines += [f"{mode} {blob}\t{path}\0" for path, (mode, blob) in changed.items()]
            git(
                ["update-index", "-z", "--index-info"],
                git_dir=self.git_dir,
                stdin=os.fsencode("".join(lines)),
                env=env,
            )
            patch = git(
                ["diff", "--cached", "--binary", "--full-index", "--find-renames", "--no-ext-diff",
                 "--no-textconv", "--no-color", "HEAD"],
                git_dir=self.git_dir,
                env=env,
            )  # fmt: skip
        return Difference(patch, tuple(too_large), tuple(unnameable))

    def apply(self, patch: bytes) -> tuple[list[File], list[str], Applied]:
        """The files that a patch of this base changes, the paths that it removes, and what it took to apply it.

        Raises PatchRejected with git's own words.
        """
        with self._scratch() as env:
            applied: Applied = "git_apply"
            arguments = ["apply", "--cached", "--whitespace=nowarn"]
            try:
                git([*arguments, "-"], git_dir=self.git_dir, stdin=patch, env=env)
            except subprocess.CalledProcessError as error:
                try:
                    git([*arguments, "--3way", "-"], git_dir=self.git_dir, stdin=patch, env=env)
                except subprocess.CalledProcessError:
                    # The first complaint is about the patch, the second often about blobs that nobody has.
                    raise PatchRejected(error.stderr.decode(errors="replace").strip()) from error
                applied = "three_way"
            raw = git(
                ["diff", "--cached", "--raw", "-z", "--no-renames", "--full-index", "HEAD"],
                git_dir=self.git_dir,
                env=env,
            )
            fields = raw.split(b"\0")[:-1]
            modes, removed = [], []
            for facts, name in zip(fields[::2], fields[1::2], strict=True):
                _, mode, _, blob, status = facts.decode().split(" ")
                if status == "D":
                    removed.append(os.fsdecode(name))
                else:
                    modes.append((os.fsdecode(name), mode, blob))
            contents = self._contents([blob for *_, blob in modes], env)
            changed = [File(path, mode, content) for (path, mode, _), content in zip(modes, contents, strict=True)]
        return changed, removed, applied

    def _contents(self, blobs: Sequence[str], env: Mapping[str, str]) -> Iterator[bytes]:
        asked = "".join(f"{blob}\n" for blob in blobs).encode()
        answers = io.BytesIO(git(["cat-file", "--batch"], git_dir=self.git_dir, stdin=asked, env=env))
        for _ in blobs:
            _, _, size = answers.readline().split()
            yield answers.read(int(size))
            answers.read(1)

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
            git(["read-tree", "HEAD"], git_dir=self.git_dir, env=env)
            yield env


def touched(patch: bytes) -> list[str]:
    """The paths that a patch names, whether or not it applies. Raises PatchRejected for what is no patch."""
    with tempfile.TemporaryDirectory(prefix="harness-touched-") as folder:
        try:
            listing = git(["apply", "--numstat", "-z", "-"], git_dir=Path(folder), stdin=patch)
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
        try:
            listing = git(["ls-files", "-z"], git_dir=git_dir, env={"GIT_INDEX_FILE": copy.name})
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip()
            raise UserError(f"the index of the image's own repository can't be read: {said}") from error
    return {os.fsdecode(path) for path in listing.split(b"\0") if path}


def create_base(git_dir: Path, archive: IO[bytes], *, everything: bool = False) -> Base:
    """Read a base out of `archive`, a seekable tar of the work directory of a fresh container.

    Left out are leftovers of running code and, unless `everything` belongs to it, what the ignore rules name.
    The repository appears under `git_dir` only when it is whole. Raises UserError for an image's index that is none.
    """
    git_dir.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=owned.prefix(), dir=git_dir.parent))
    try:
        git(["init", "--quiet", "--bare", "--initial-branch=main", "--template="], git_dir=part)
        (part / "info").mkdir(exist_ok=True)
        (part / "info" / "attributes").write_text(ATTRIBUTES, encoding="utf-8")
        (part / "info" / "exclude").write_text("\n".join(LEFTOVERS) + "\n", encoding="utf-8")
        rules = part / "ignore"
        rules.mkdir()
        archive.seek(0)
        for file in files(archive):
            if isinstance(file, File) and PurePosixPath(file.path).name == ".gitignore" and file.mode != "120000":
                target = rules / file.path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.content)
        # What the image's own repository tracks is part of the base, whatever its ignore rules say.
        with (
            tempfile.TemporaryDirectory(prefix="harness-rules-") as none,
            Ignored(part, Path(none) if everything else rules) as ignored,
        ):
            left_out = {path for path in paths(archive) if path in ignored} - _tracked(archive, part)
        entries: dict[str, tuple[str, str]] = {}
        archive.seek(0)
        for file in files(archive, skip=left_out):
            if isinstance(file, HardLink) and file.target in entries:
                entries[file.path] = entries[file.target]
            elif isinstance(file, File):
                _write_object(part / "objects", file)
                entries[file.path] = (file.mode, file.blob)
        index = "".join(f"{mode} {blob}\t{path}\0" for path, (mode, blob) in entries.items())
        git(["update-index", "-z", "--index-info"], git_dir=part, stdin=os.fsencode(index))
        tree = git(["write-tree"], git_dir=part).decode().strip()
        commit = git(["commit-tree", "-m", "base", tree], git_dir=part).decode().strip()
        git(["update-ref", "refs/heads/main", commit], git_dir=part)
        git(["repack", "-adq"], git_dir=part)
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
        git(["config", "core.bare", "false"], git_dir=git_dir)
        git(["read-tree", "HEAD"], git_dir=git_dir)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            tar.add(git_dir, arcname=f"{archive_prefix}/.git", filter=_as_root)
        return buffer.getvalue()


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
