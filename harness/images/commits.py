"""A repository at one commit, as a tar, from GitHub or any git server or folder that the user names."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness import owned, paths
from harness.errors import MachineError, UserError

GITHUB = "https://github.com/{repo}.git"
FETCH_LIMIT_S = 1800
OF_A_REPOSITORY = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR")

# Above the attributes of the tree itself, which could leave files out, write into them, or have them go through a
# program that the user's own configuration names.
ATTRIBUTES = "* -export-ignore -export-subst -filter\n"


def fetch(repo: str, commit: str, source: str, only: Sequence[str] = ()) -> Path:
    """A tar of the tree of `commit`, below one top folder. `source` is a URL or a path in which {repo} is filled in;
    `only` names the files and folders to take, and to fetch, where the server can send a part.

    Raises UserError when there is no such repository or commit, MachineError when git is missing.
    """
    target = _target(repo, commit, only)
    if not target.is_file():
        with paths.lock(f"repository-{_flat(repo)}"):
            _fetch_and_archive(repo, commit, source.replace("{repo}", repo), only, target)
    return target


def is_here(repo: str, commit: str, only: Sequence[str] = ()) -> bool:
    """Whether `fetch` needs no server."""
    return _target(repo, commit, only).is_file()


def _flat(repo: str) -> str:
    return repo.replace("/", "__")


def _target(repo: str, commit: str, only: Sequence[str]) -> Path:
    part = "-" + hashlib.sha256("\0".join(only).encode()).hexdigest()[:8] if only else ""
    return paths.cache() / "archives" / f"{_flat(repo)}-{commit}{part}.tar"


def _fetch_and_archive(repo: str, commit: str, address: str, only: Sequence[str], target: Path) -> None:
    # One that was fetched in part stays so: it is not the one in which whole commits are looked up.
    git_dir = paths.cache() / "repositories" / f"{_flat(repo)}{'-part' if only else ''}.git"
    git_dir.parent.mkdir(exist_ok=True)
    _git(["init", "--quiet", "--bare", "--template=", str(git_dir)], "a repository can't be made in the cache")
    (git_dir / "info").mkdir(exist_ok=True)
    (git_dir / "info" / "attributes").write_text(ATTRIBUTES, encoding="utf-8")
    at, what = [f"--git-dir={git_dir}"], f"commit {commit[:12]} of {repo} can't be fetched from {address}"
    fetch_quietly = [*at, "fetch", "--quiet", "--no-tags"]
    tree = commit
    if only:
        if Path(address).exists():  # git would name the remote after it, and has no names that begin with a slash
            address = Path(address).absolute().as_uri()
        _git([*fetch_quietly, "--depth=1", "--filter=blob:none", "--end-of-options", address, commit], what)
        tree, blobs = _part(at, commit, only, repo)
        _git([*fetch_quietly, "--no-filter", "--stdin", "--end-of-options", address], what, blobs)
    elif _git([*at, "cat-file", "-e", f"{commit}^{{commit}}"], None).returncode != 0:
        _git([*fetch_quietly, "--depth=1", "--end-of-options", address, commit], what)
    target.parent.mkdir(exist_ok=True)
    part = target.with_name(f"{owned.prefix()}{target.name}")
    _git(
        [*at, "archive", "--format=tar", "--prefix=repository/", f"--output={part}", tree],
        f"commit {commit[:12]} of {repo} can't be read",
    )
    part.rename(target)


def _part(at: list[str], commit: str, only: Sequence[str], repo: str) -> tuple[str, str]:
    """A tree with the named files and folders of a commit, and the ids of the files in it, a line each. Their contents
    need not be here yet: git would ask for those of all files, were the commit archived with paths.

    Raises UserError for a path that the commit does not have.
    """
    what = f"commit {commit[:12]} of {repo} can't be read"
    entries = ""
    for path in only:
        below = _git([*at, "ls-tree", "-r", "--full-tree", commit, "--", path], what).stdout
        if not below:
            raise UserError(f"commit {commit[:12]} of {repo} has no {path}: mend [source] paths in agent.toml")
        # A submodule is a commit of another repository.
        entries += "".join(f"{line}\n" for line in below.splitlines() if line.split()[1] == "blob")
    blobs = "".join(f"{line.split()[2]}\n" for line in entries.splitlines())
    with tempfile.TemporaryDirectory(prefix="harness-index-") as folder:
        index = {"GIT_INDEX_FILE": f"{folder}/index"}
        _git([*at, "update-index", "--index-info"], what, entries, index)
        return _git([*at, "write-tree", "--missing-ok"], what, None, index).stdout.strip(), blobs


def git_environment() -> dict[str, str]:
    """The user's own proxies and credentials, no questions, and nothing of a repository that this was started in."""
    mine = {name: value for name, value in os.environ.items() if name not in OF_A_REPOSITORY}
    return {**mine, "GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": mine.get("GIT_SSH_COMMAND", "ssh -oBatchMode=yes")}


def _git(
    arguments: list[str], what: str | None, said: str | None = None, more: Mapping[str, str] = {}
) -> subprocess.CompletedProcess[str]:
    """Run git with the user's own proxies and credentials. `what` begins the sentence of a failure; None: it may."""
    try:
        done = subprocess.run(
            ["git", "-c", "core.hooksPath=/dev/null", *arguments],
            env={**git_environment(), **more},
            input=said or "",
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=FETCH_LIMIT_S,
        )
    except FileNotFoundError as error:
        raise MachineError("git is not installed: `sudo apt-get install git`") from error
    except subprocess.TimeoutExpired as error:
        raise MachineError(f"{what}: git took more than {FETCH_LIMIT_S} s") from error
    if what is not None and done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        fatal = next((line for line in lines if line.startswith("fatal:")), lines[-1] if lines else "")
        raise UserError(f"{what}: {fatal or f'exit code {done.returncode}'}")
    return done
