"""Driving the command line as a user does: another process, its exit code, what it prints, what it stored."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.sandbox.daemon import SWEEP, connect, process_start
from harness.toml import toml_value


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Harness:
    """The `harness` command in a folder of its own. `runs` is its runs folder."""

    folder: Path
    env: Mapping[str, str] = field(default_factory=dict)  # beside what the tests themselves have
    started: list[str] = field(default_factory=list)  # its processes so far: "number/start", as labels name an owner
    own_session: bool = False  # of each process, by which what it started is known

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def popen(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Idle power is not measured before each of these sweeps unless a test asks: hundreds times ten seconds."""
        if words and words[0] == "sweep" and "--idle" not in words and "--help" not in words:
            words = (*words, "--idle", "0")
        process = subprocess.Popen(
            [sys.executable, "-m", "harness", *words],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                name: value
                for name, value in os.environ.items()
                if not name.startswith("HARNESS_") or name in ("HARNESS_CACHE", "HARNESS_DATA")
            }
            | dict(self.env),
            start_new_session=self.own_session,
            **options,
        )
        self.started.append(f"{process.pid}/{process_start(process.pid)}")
        return process

    def __call__(self, *words: str, timeout_s: float = 600) -> Done:
        process = self.popen(*words)
        out, err = process.communicate(timeout=timeout_s)
        return Done(process.returncode, out, err)

    def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        with contextlib.closing(sqlite3.connect(self.runs / "harness.db")) as db:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute(sql, values)]

    def containers(self) -> list[str]:
        """Containers of this folder's sweeps that still exist."""
        sweeps = [row["sweep_id"] for row in self.rows("SELECT sweep_id FROM sweeps")]
        client = connect()
        return [
            container.id
            for sweep in sweeps
            for container in client.containers.list(all=True, filters={"label": f"{SWEEP}={sweep}"})
        ]

    def left(self, name: str) -> str:
        """What the agent of the only run left in its out folder under `name`."""
        with tarfile.open(next(self.runs.rglob("out.tar.gz"))) as out:
            stream = out.extractfile(f"out/{name}")
            assert stream is not None
            return stream.read().decode()

    def agent(self, name: str, script: str, *, calls_model: bool = False, runner: str = "run.sh") -> str:
        """Write an agent's folder; returns its path for --agents."""
        folder = self.folder / "agents" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "agent.toml").write_text(
            f'name = "{name}"\ngroup = "example"\nsummary = "of a test"\nversion = "1"\nrunner = "{runner}"\n'
            f"calls_model = {str(calls_model).lower()}\n"
        )
        (folder / runner).write_text(script)
        return str(folder)

    def script(self, *answers: dict[str, Any], **settings: Any) -> str:
        """Write a play list for the scripted engine; returns the model's name for --models."""
        path = self.folder / f"script-{len(list(self.folder.glob('script-*')))}.toml"
        lines = [f"{name} = {toml_value(value)}" for name, value in settings.items()]
        for answer in answers:
            lines += ["[[answers]]", *(f"{name} = {toml_value(value)}" for name, value in answer.items())]
        path.write_text("\n".join(lines) + "\n")
        return f"scripted/{path}"
