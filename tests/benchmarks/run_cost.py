"""What the harness adds to a run. Exit code 1 when it is more than two bare container lives, twice over.

A run of `oracle` on a smoke task, from its start to its verdict, less the seconds inside the agent's runner and
inside the test command, against two bare container lives (`docker run -d`, `docker exec true`, `docker rm -f`) of the
same image. Both are made in turns, and the ratio of the medians decides.

The seconds inside are measured in the container: the suite is a copy whose solution and test script say by
`date` how long they took. So what Docker needs to start and end a command stays with the harness, and so do the two
calls of `date`. Images are built beforehand, as in a sweep's second run; energy, memory and disk are watched as in a
sweep. Containers are removed beside the run; the second table shows the cost when that is waited for.

With `--instance`, an instance of SWE-bench Verified Mini whose image is here: its limit is 3 s. Its scripts do not time
themselves, so the seconds inside are the agent stage and the test command as the harness sees them, Docker's way in and
out included.

    python tests/benchmarks/run_cost.py [--runs 12] [--task basket-shared-default | --instance django__django-12774]
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker

from harness.bench import Bench
from harness.experiment import describe
from harness.images.locate import prepare_all
from harness.manifests import select_agents
from harness.meter.meter import Meter
from harness.plan import make_plan
from harness.run import Finished, execute
from harness.sandbox.daemon import KIND, OWNER, connect, owner
from harness.sandbox.removal import wait_for_removals
from harness.spec import Spec
from harness.store.artefacts import read
from harness.suites import choose, load_suite

LIMIT = 2.0
INSTANCE_LIMIT_S = 3.0
INSTANCES = "swe-bench-verified-mini"
WARM_UP = 2
INSIDE = re.compile(rb"^inside_ns (\d+) (\d+)$", re.MULTILINE)

# The script's own exit code is kept: it may be part of what the harness looks at.
TIMED = """#!/bin/bash
began=$(date +%s%N)
bash "$(dirname "${{BASH_SOURCE[0]}}")/{inner}"
code=$?
echo "inside_ns $began $(date +%s%N)"
exit $code
"""


@dataclass(frozen=True)
class Sample:
    """One run, seconds."""

    wall_s: float  # start to verdict
    removed_s: float  # start until both containers are gone
    runner_s: float  # inside the container
    test_s: float  # inside the container
    finished: Finished


class Quiet:
    """Tells nobody anything (harness.sweep.Progress)."""

    def say(self, text: str) -> None:
        print(text, file=sys.stderr)

    def run_started(self, planned: object, attempt: int) -> None: ...

    def stage(self, name: str) -> None: ...

    def run_ended(self, planned: object, row: object) -> None: ...


def timed_suite(folder: Path, task: str) -> Path:
    """A suite of one smoke task, a copy whose scripts time themselves."""
    original = choose(load_suite("smoke"), [task], None).tasks[0]
    # The same name of suite and task, and the same build context, come to the same image.
    suite = folder / "smoke"
    shutil.copytree(original.folder, suite / task)
    for script, inner in (
        (suite / task / "solution" / "solve.sh", "untimed.sh"),
        (suite / task / "tests" / "test.sh", "untimed.sh"),
    ):
        script.rename(script.with_name(inner))
        script.write_text(TIMED.format(inner=inner), encoding="utf-8")
        script.chmod(0o755)
    return suite


@contextmanager
def bench_for(client: docker.DockerClient, folder: Path, task: str, instance: bool) -> Iterator[Bench]:
    suite = INSTANCES if instance else str(timed_suite(folder, task))
    spec = Spec(agents=["oracle"], tasks=suite, order="listed")
    agents, unusable = select_agents(spec.agents)
    plan = make_plan(spec, choose(load_suite(spec.tasks), [task], None), agents, unusable, {})
    images = prepare_all(client, plan.suite, folder, Quiet().say)
    meter = Meter()
    try:
        for line in describe(meter):
            print(line, file=sys.stderr)
        yield Bench(client, client.info()["NCPU"], plan, "benchmark", folder, images, {}, {}, meter, threading.Event())
    finally:
        meter.stop()
        wait_for_removals()


def one_run(bench: Bench, number: int) -> Sample:
    began = time.perf_counter()
    finished = execute(bench, bench.plan.runs[0], f"run-{number}", lambda _: None)
    wall_s = time.perf_counter() - began
    wait_for_removals()
    removed_s = time.perf_counter() - began
    if (finished.ended_by, finished.grade.verdict) != ("submitted", "resolved"):
        raise SystemExit(f"the run failed: {finished.ended_by} {finished.detail}, {finished.grade}")
    log = next(kept for kept in finished.artefacts if kept.name == "agent.log")
    runner_s, test_s = finished.agent_s, finished.grade.test_s or 0.0
    if bench.plan.suite.name != INSTANCES:
        runner_s, test_s = _inside_s(read(bench.runs_dir, log.path)), _inside_s(finished.grade.log)
    return Sample(wall_s, removed_s, runner_s, test_s, finished)


def _inside_s(log: bytes) -> float:
    found = INSIDE.search(log)
    if found is None:
        raise SystemExit(f"a script did not say how long it took: {log[-500:]!r}")
    return (int(found[2]) - int(found[1])) / 1e9


def labels() -> dict[str, str]:
    """Marks of a living owner, so that a sweep beside this benchmark leaves a bare container alone, and a later one
    removes it if the benchmark was killed."""
    return {KIND: "run", OWNER: owner()}


def lives_by_command(image: str) -> None:
    """Two bare container lives, as a person types them."""
    for _ in range(2):
        made = _docker(
            "run", "-d", *(f"--label={name}={value}" for name, value in labels().items()), image, "sleep", "60"
        )
        try:
            _docker("exec", made, "true")
        finally:
            _docker("rm", "-f", made)


def _docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"docker {' '.join(words)}: exit code {done.returncode}: {done.stderr.strip()}")
    return done.stdout.strip()


def lives_by_library(client: docker.DockerClient, image: str) -> None:
    """The same where there is no docker command."""
    for _ in range(2):
        made = client.containers.run(image, ["sleep", "60"], detach=True, labels=labels())
        try:
            made.exec_run(["true"])
        finally:
            made.remove(force=True)


def timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(client: docker.DockerClient, task: str, instance: bool, runs: int) -> tuple[list[Sample], list[float]]:
    """Runs and pairs of bare lives, made in turns."""
    command = shutil.which("docker") is not None
    print(f"bare lives by the docker {'command' if command else 'library'}", file=sys.stderr)
    samples, lives = [], []
    with (
        tempfile.TemporaryDirectory(prefix="run-cost-") as name,
        bench_for(client, Path(name), task, instance) as bench,
    ):
        image = bench.images[task].image
        bare = (lambda: lives_by_command(image)) if command else (lambda: lives_by_library(client, image))
        for number in range(WARM_UP + runs):
            sample, life_s = one_run(bench, number), timed(bare)
            if number >= WARM_UP:
                samples.append(sample)
                lives.append(life_s)
    return samples, lives


def report(samples: list[Sample], lives: list[float], instance: bool) -> bool:
    """Print the tables; whether the limit is kept."""
    print(f"{len(lives)} of each; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    base_s = statistics.median(lives)

    def line(name: str, seconds: list[float], ratio: bool = False) -> None:
        median_s = statistics.median(seconds)
        tail = f"{median_s / base_s:8.2f}" if ratio else ""
        print(f"{name:<44}{median_s:8.3f}{min(seconds):8.3f}{max(seconds):8.3f}{tail}")

    print(f"{'seconds':<44}{'median':>8}{'least':>8}{'most':>8}{'ratio':>8}")
    line("two bare container lives", lives, ratio=True)
    line("start to verdict", [s.wall_s for s in samples], ratio=True)
    line("  inside the runner", [s.runner_s for s in samples])
    line("  inside the test command", [s.test_s for s in samples])
    costs = [s.wall_s - s.runner_s - s.test_s for s in samples]
    line("start to verdict, less both", costs, ratio=True)
    line("the same until both containers are gone", [s.removed_s - s.runner_s - s.test_s for s in samples], ratio=True)
    print("\nstages of the run")
    line("  setup", [s.finished.setup_s for s in samples])
    line("  agent", [s.finished.agent_s for s in samples])
    line(
        "  kill, archive, difference, artefacts",
        [s.wall_s - s.finished.setup_s - s.finished.agent_s - s.finished.grading_s for s in samples],
    )
    line("  grading", [s.finished.grading_s for s in samples])
    cost_s = statistics.median(costs)
    ratio = cost_s / base_s
    passed = cost_s <= INSTANCE_LIMIT_S if instance else ratio <= LIMIT
    limit = f"{INSTANCE_LIMIT_S:g} s" if instance else f"{LIMIT:g} times"
    word = "PASS" if passed else "FAIL"
    print(f"\n{word} cost of a run: {cost_s:.2f} s, {ratio:.2f} times two container lives, at most {limit}")
    return passed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=12)
    parser.add_argument("--task", default="basket-shared-default", help="of the suite smoke")
    parser.add_argument("--instance", help=f"of the suite {INSTANCES}, instead")
    arguments = parser.parse_args()
    instance = arguments.instance is not None
    samples, lives = measure(connect(), arguments.instance or arguments.task, instance, arguments.runs)
    return 0 if report(samples, lives, instance) else 1


if __name__ == "__main__":
    sys.exit(main())
