"""`kill -9` of the harness at any moment of a sweep: what is resumed is whole, and nothing of ours is left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time

import pytest
from command_line import Harness
from invariant import broken, orphans, record
from moments import watched
from small_sweep import words

pytestmark = [pytest.mark.docker, pytest.mark.network]

KILLS = 200
SEED = int(os.environ.get("FAULTS_SEED", "8"))
MOMENTS = [
    'INSERT INTO "sweeps"',
    'INSERT INTO "sessions"',
    "os.rename",  # an artefact is whole, and has no name yet
    'INSERT INTO "artefacts"',
    "DELETE FROM histories",  # the run is stored, what its calls come to is not
    'update "sweeps" set "ended_at"',
]


def check_killed(harness: Harness) -> None:
    """Right after a kill: no child outlives its parent, and what is stored is whole."""
    assert not orphans(harness)
    if (harness.runs / "harness.db").exists():
        assert record(harness.runs, finished=False) == []


def test_a_sweep_killed_at_every_moment_that_matters_is_resumed(harness) -> None:
    command = words(harness)
    for moment in MOMENTS:
        killed = watched(harness, FAULTS_AT=moment)(*command)
        assert killed.code == -signal.SIGKILL, (moment, killed.err)
        check_killed(harness)
        if harness.rows("SELECT sweep_id FROM sweeps"):
            command = ["sweep", "--resume"]
    done = harness(*command)
    assert done.code == 0, done.err
    assert broken(harness) == []


@pytest.mark.at_length
@pytest.mark.timeout(7200)
def test_a_sweep_killed_over_and_over_at_random_moments_ends_whole(harness) -> None:
    rng = random.Random(SEED)
    command = words(harness, repeats=2)
    count = harness.folder / "count"
    began = time.monotonic()
    done = watched(harness, FAULTS_COUNT=str(count))(*command)
    assert done.code == 0, done.err
    events, lasts_s = int(count.read_text()), time.monotonic() - began
    kills, sweeps, resume = 0, 1, False
    while kills < KILLS:
        next_command = ["sweep", "--resume"] if resume else command
        if rng.random() < 0.5:
            at = str(rng.randint(1, events))
            code = watched(harness, FAULTS_AT=at)(*next_command).code
        else:
            at = f"{rng.uniform(0.2, lasts_s):.2f} s"
            process = harness.popen(*next_command)
            try:
                process.communicate(timeout=float(at[:-2]))
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
            code = process.returncode
        print(f"seed {SEED}, sweep {sweeps}, moment {at}: code {code}", flush=True)
        if code == -signal.SIGKILL:
            kills += 1
            check_killed(harness)
            resume = len(harness.rows("SELECT sweep_id FROM sweeps")) > sweeps
        else:
            assert code == 0
            assert broken(harness) == []
            sweeps, resume = sweeps + 1, False
    done = harness("sweep", "--resume")
    assert done.code == 0, done.err
    assert broken(harness) == []
