"""A repository at one commit, as a tar, from GitHub or any git server or folder that the user names."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from harness import paths
from harness.errors import MachineError, UserError

GITHUB = "https://github.com/{repo}.git"
FETCH_LIMIT_S = 1800

# Above the attributes of the tree itself, which could leave files out or write into them.
ATTRIBUTES = "* -export-ignore -export-subst\n"


def fetch(repo: str, commit: str, source: str) -> Path:
    """A tar of the tree of `commit`, below one top folder. `source` is a URL or a path in which {repo} is filled in.

    Raises UserError when there is no such repository or commit, MachineError when git is missing.
    """
    address = source.replace("{repo}", repo)
    name = repo.replace("/", "__")
    target = paths.cache() / "archives" / f"{name}-{commit}.tar"
    if target.is_file():
        return target
    with paths.lock(f"repository-{name}"):
        _fetch_and_archive(repo, commit, address, target)
    return target


def _fetch_and_archive(repo: str, commit: str, address: str, target: Path) -> None:
    git_dir = paths.cache() / "repositories" / f"{repo.replace('/', '__')}.git"
    git_dir.parent.mkdir(exist_ok=True)
    _git(["init", "--quiet", "--bare", "--template=", str(git_dir)], "a repository can't be made in the cache")
    (git_dir / "info").mkdir(exist_ok=True)
    (git_dir / "info" / "attributes").write_text(ATTRIBUTES, encoding="utf-8")
    if _git(["-C", str(git_dir), "cat-file", "-e", f"{commit}^{{commit}}"], None).returncode != 0:
        _git(
            ["-C", str(git_dir), "fetch", "--quiet", "--no-tags", "--depth=1", "--end-of-options", address, commit],
            f"commit {commit[:12]} of {repo} can't be fetched from {address}",
        )
    target.parent.mkdir(exist_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    _git(
        ["-C", str(git_dir), "archive", "--format=tar", "--prefix=repository/", f"--output={part}", commit],
        f"commit {commit[:12]} of {repo} can't be read",
    )
    part.rename(target)


def _git(arguments: list[str], what: str | None) -> subprocess.CompletedProcess[str]:
    """Run git with the user's own proxies and credentials. `what` begins the sentence of a failure; None: it may."""
    try:
        done = subprocess.run(
            ["git", "-c", "core.hooksPath=/dev/null", *arguments],
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
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
        said = done.stderr.strip().splitlines()
        fatal = next((line for line in said if line.startswith("fatal:")), said[-1] if said else "")
        raise UserError(f"{what}: {fatal or f'exit code {done.returncode}'}")
    return done
