"""Patches of a smoke task that fix nothing and would have it resolved: what each comes to, and the one that is known to
get through (tasks/README.md says so)."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Iterator

import docker
import pytest

from harness.grading.grade import Grade, grade
from harness.images.prepare import Prepared
from harness.sandbox.container import Limits
from harness.sandbox.git import git
from harness.sandbox.removal import wait_for_removals
from harness.suites import Task

pytestmark = [pytest.mark.docker, pytest.mark.network]

LIMITS = Limits(cpus=2, memory_bytes=1 << 30, disk_bytes=1 << 30, deadline_s=120)

Attempt = Callable[[dict[str, str]], Grade]


@pytest.fixture
def attempt(client: docker.DockerClient, task: Task, prepared: Prepared) -> Iterator[Attempt]:
    """The grade of a patch that puts text at the end of files, or makes them. PACKAGE is the repository's."""
    [package] = {path.split("/")[0] for path in prepared.base.entries if path.count("/") == 1 and "__init__" in path}

    def attempt(files: dict[str, str]) -> Grade:
        patch = ""
        for name, text in files.items():
            path, old = name.replace("PACKAGE", package), ""
            head = f"diff --git a/{path} b/{path}\n"
            if path in prepared.base.entries:
                old = git(["show", f"HEAD:{path}"], git_dir=prepared.base.git_dir).decode()
            else:
                head += "new file mode 100644\n"
            lines = old.splitlines(keepends=True), (old + text).splitlines(keepends=True)
            patch += head + "".join(difflib.unified_diff(*lines, f"a/{path}" if old else "/dev/null", f"b/{path}"))
        return grade(client, task, prepared, patch.encode(), LIMITS, threading.Event())

    yield attempt
    wait_for_removals()


INIT = "PACKAGE/__init__.py"
OK = "import sys\nprint('Ran 3 tests in 0.001s\\n\\nOK', file=sys.stderr, flush=True)\n"
PASS = "import unittest\nunittest.TestCase.assertEqual = lambda *_: None\n"
REWARD = "open('/logs/verifier/reward.txt', 'w').write('1')\n"
LATER = """
import os, time
if os.fork() == 0:
    os.setsid()
    for _ in range(200):
        try:
            open('/logs/verifier/reward.txt', 'w').write('1')
        except OSError:
            pass
        time.sleep(0.1)
    os._exit(0)
"""
KILLS = "import os\nfor pid in range(1, 400):\n    try:\n        os.kill(pid, 9) if pid != os.getpid() else None\n" \
    "    except OSError:\n        pass\nos._exit(0)\n"  # fmt: skip

FORGERIES: dict[str, dict[str, str]] = {
    "tests of its own": {"tests/test_mine.py": "def test(): pass\n", "test_basket.py": "def test(): pass\n"},
    "a sitecustomize": {"sitecustomize.py": PASS, "usercustomize.py": PASS},
    "a .pth file": {"evil.pth": f"import unittest; exec({PASS!r})\n"},
    "a module unittest": {"unittest.py": OK, "unittest/__init__.py.txt": OK, "os.py": OK, "json.py": OK},
    "a plugin's metadata": {"evil-1.dist-info/entry_points.txt": "[pytest11]\nevil = evil\n", "evil.py": PASS},
    "a hook": {"hooks/post-checkout": REWARD},
    "settings of runners": {"setup.cfg": "[unittest]\n", "pytest.ini": "[pytest]\naddopts = -p evil\n"},
    "the reward is written": {INIT: f"\ntry:\n    {REWARD}except OSError:\n    pass\n"},
    "the reward is written later": {INIT: LATER},
    "the interpreter ends at once": {INIT: "\nimport os\nos._exit(0)\n"},
    "the interpreter is exited": {INIT: "\nraise SystemExit(0)\n"},
    "an OK of another number of tests": {INIT: f"\n{OK.replace('3 tests', '0 tests')}import os\nos._exit(0)\n"},
    "every process is killed": {INIT: f"\n{KILLS}"},
    "an OK at exit": {INIT: f"\nimport atexit\natexit.register(lambda: exec({OK!r}))\n"},
}  # fmt: skip


@pytest.mark.parametrize("files", FORGERIES.values(), ids=FORGERIES.keys())
def test_a_patch_that_fixes_nothing_does_not_resolve(attempt: Attempt, files: dict[str, str]) -> None:
    found = attempt(files)
    assert found.verdict == "unresolved", found.detail


def test_what_is_not_promised_code_under_test_that_pretends_in_the_tests_own_process(attempt: Attempt) -> None:
    assert attempt({INIT: f"\n{PASS}"}).verdict == "resolved"
