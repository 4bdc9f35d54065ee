"""Looks for what the agent must not see in the repository, and for any other commit than the one that it was given."""

import pathlib
import subprocess

from attempts import FACTS, Refused, attempt
from search import found, or_refused


def git(*words):
    return subprocess.run(["git", *words], cwd=FACTS["workdir"], capture_output=True, check=False).stdout


@attempt
def in_every_object_that_git_knows():
    """Those that nothing leads to, too, and those of other repositories that this one borrows from."""
    listing = git("cat-file", "--batch-all-objects", "--batch-check=%(objectname) %(objecttype)").decode().split("\n")
    hits = [
        f"{line} has {word!r}"
        for line in filter(None, listing)
        if (word := found(git("cat-file", line.split()[1], line.split()[0])))
    ]
    return or_refused(hits, len(listing) - 1)


@attempt
def in_what_git_has_lost():
    lost = git("fsck", "--lost-found", "--no-progress", "--unreachable").decode().split("\n")
    if any(lost):
        return "; ".join(lost)
    raise Refused("nothing")


@attempt
def more_than_one_commit():
    """By any name, by what the reflog remembers, by what is stashed, or from elsewhere."""
    commits = set(git("log", "--all", "--reflog", "--format=%H", "HEAD").decode().split())
    elsewhere = git("remote", "-v").decode() + git("config", "--get-regexp", "^(remote|url|branch)").decode()
    alternates = pathlib.Path(FACTS["workdir"], ".git", "objects", "info", "alternates")
    if len(commits) != 1 or elsewhere or alternates.exists():
        return f"{len(commits)} commits; {elsewhere}"
    raise Refused("one commit, nothing elsewhere")
