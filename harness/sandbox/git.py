"""Git, cut off from every configuration: the user's, the machine's, and that of whatever tree it is asked about."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from harness.errors import MachineError
from harness.sandbox.room import lack_of_room

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
# A name that other systems would not take is a name like any other here.
NAMES = ("-c", "core.quotePath=false", "-c", "core.protectNTFS=false", "-c", "core.protectHFS=false")
LEAST_TEMPORARY_BYTES = 64 << 10  # with less than this left, a git that failed may have failed for it
MISSING = "git is not installed: `sudo apt-get install git`"


def git(arguments: Sequence[str], *, git_dir: Path, stdin: bytes = b"", env: Mapping[str, str] = {}) -> bytes:
    """What git prints. Raises CalledProcessError, and MachineError when there is no git or no room for its files."""
    try:
        done = subprocess.run(
            ["git", *NAMES, f"--git-dir={git_dir}", *arguments],
            input=stdin,
            capture_output=True,
            env={**ENVIRONMENT, **env},
            check=False,
        )
    except FileNotFoundError as error:
        raise MachineError(MISSING) from error
    if done.returncode != 0:
        # Git often gives another reason, and a patch must not be refused for this one.
        if lacking := lack_of_room(Path(tempfile.gettempdir()), LEAST_TEMPORARY_BYTES):
            raise MachineError(f"{lacking}: make room, or set TMPDIR")
        raise subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
    return done.stdout


class Ignored:
    """Which paths are named by the .gitignore files below `rules`, or by `info/exclude` of the git directory.

    One process answers for any number of paths, so that they can be asked about one at a time.
    """

    def __init__(self, git_dir: Path, rules: Path) -> None:
        command = [
            "git", *NAMES, f"--git-dir={git_dir}", f"--work-tree={rules}", "check-ignore", "--no-index", "--verbose",
            "--non-matching", "-z", "--stdin",
        ]  # fmt: skip
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=rules,
                env=ENVIRONMENT,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise MachineError(MISSING) from error
        self._unread = bytearray()

    def __enter__(self) -> Ignored:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        with self._process:  # closes its pipes and waits
            pass

    def __contains__(self, path: object) -> bool:
        """Raises MachineError when git does not answer."""
        assert self._process.stdin
        try:
            # With the dot a file that is called ":!x" is no pattern.
            self._process.stdin.write(b"./" + os.fsencode(str(path)) + b"\0")
            self._process.stdin.flush()
            _source, _line, pattern, _path = (self._field() for _ in range(4))
        except (OSError, EOFError) as error:
            raise MachineError(f"git check-ignore failed: {self._said()}") from error
        return bool(pattern) and not pattern.startswith(b"!")

    def _field(self) -> bytes:
        assert self._process.stdout
        while (end := self._unread.find(b"\0")) < 0:
            more = os.read(self._process.stdout.fileno(), 1 << 16)
            if not more:
                raise EOFError
            self._unread += more
        field = bytes(self._unread[:end])
        del self._unread[: end + 1]
        return field

    def _said(self) -> str:
        assert self._process.stderr
        self._process.kill()
        return self._process.stderr.read().decode(errors="replace").strip()
