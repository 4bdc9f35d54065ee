"""Verdicts on instances of SWE-bench: what is right resolves, and no patch talks its tests into passing."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import docker
import pytest
import small_suite
from small_suite import PROJECTS, SHELF, TILL, Files, Link, SmallSuite

from harness.grading import hunks
from harness.grading.grade import Grade, grade, grade_untouched
from harness.grading.swebench import is_runners, official
from harness.images.prepare import Prepared
from harness.sandbox.container import Limits
from harness.sandbox.daemon import connect
from harness.sandbox.removal import wait_for_removals

pytestmark = [pytest.mark.docker, pytest.mark.network]

NEVER = threading.Event()
LIMITS = Limits(cpus=2, memory_bytes=1 << 30, disk_bytes=1 << 30, deadline_s=120)
BOTH = pytest.mark.parametrize("name", [SHELF, TILL])

Attempt = Callable[..., Grade]


@pytest.fixture(scope="module")
def client() -> docker.DockerClient:
    return connect()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallSuite:
    return small_suite.write(tmp_path_factory.mktemp("suites") / "small")


@pytest.fixture(scope="module")
def prepared(client: docker.DockerClient, small: SmallSuite) -> dict[str, Prepared]:
    return small_suite.build(small, client)


@pytest.fixture
def attempt(client: docker.DockerClient, small: SmallSuite, prepared: dict[str, Prepared]) -> Iterator[Attempt]:
    """The grade of a patch, given as git has it or as the files that it writes, on top of the fix if `fixed`;
    `changes` are the task's."""

    def attempt(name: str, patch: bytes | Files, *, fixed: bool = False, **changes: Any) -> Grade:
        if not isinstance(patch, bytes):
            patch = small_suite.patch(small, name, patch, fixed=fixed)
        return grade(client, replace(small.task(name), **changes), prepared[name], patch, LIMITS, NEVER)

    yield attempt
    wait_for_removals()


def text(path: str) -> str:
    """A file of either project, as it is before the fix."""
    name = SHELF if path in PROJECTS[SHELF].base else TILL
    return str(PROJECTS[name].base[path])


def code(source: str, *paths: str) -> Files:
    """Files of a project with `source` at their end."""
    return {path: f"{text(path)}\n\n{source}" for path in paths}


# --- what is right, and what is not enough ---------------------------------------------------------------


@BOTH
def test_the_fix_resolves_and_nothing_else_was_needed(attempt: Attempt, name: str) -> None:
    found = attempt(name, {}, fixed=True)
    assert (found.verdict, found.notes) == ("resolved", ())
    whole = len(PROJECTS[name].fail_to_pass)
    assert (found.detail or "").startswith(f"FAIL_TO_PASS {whole} of {whole}, ")


@BOTH
def test_doing_nothing_is_an_empty_patch_and_the_untouched_copy_is_unresolved(
    attempt: Attempt, client: docker.DockerClient, small: SmallSuite, prepared: dict[str, Prepared], name: str
) -> None:
    assert attempt(name, b"").verdict == "empty_patch"
    found = grade_untouched(client, small.task(name), prepared[name], LIMITS, NEVER)
    whole, kept = len(PROJECTS[name].fail_to_pass), len(PROJECTS[name].pass_to_pass)
    assert (found.verdict, found.detail) == (
        "unresolved", f"FAIL_TO_PASS 0 of {whole}, PASS_TO_PASS {kept} of {kept}"
    )  # fmt: skip


@BOTH
def test_a_part_of_the_fix_is_not_enough(attempt: Attempt, small: SmallSuite, name: str) -> None:
    fix = small.task(name).gold_patch.encode()
    assert hunks.count(fix) == 2
    assert attempt(name, hunks.without_last(fix, 1)).verdict == "unresolved"


HONEST: dict[str, tuple[str, Files]] = {
    "that edits a test": (SHELF, {"tests/test_labels.py": "def test_mine():\n    assert False\n"}),
    "that adds a test": (SHELF, {"tests/test_mine.py": "def test_mine():\n    assert False\n"}),
    "that edits what the tests are told with": (SHELF, code("ON = True\n", "tests/conftest.py")),
    "that edits tests of unittest's": (TILL, code("    pass\n", "tests/coins/tests.py")),
    "that leaves a script behind": (TILL, {"reproduce.py": "raise SystemExit(1)\n"}),
    "that edits setup.py": (TILL, {"setup.py": text("setup.py").replace("1.0", "1.1")}),
    "that says so in CHANGES": (SHELF, {"CHANGES": "1.1\n\n* Titles that fit.\n"}),
    "that takes a file away": (SHELF, {"CHANGES": None}),
    "that adds a module to the package": (
        SHELF, {"shelf/keys.py": "key = str.casefold\n", "shelf/sorting.py": "from shelf.keys import key\n\n\n"
                "def sort(titles):\n    return sorted(titles, key=key)\n"},
    ),
    "that adds a fixture to the package": (
        SHELF, code("@pytest.fixture\ndef none():\n    return []\n", "shelf/testing/fixtures.py"),
    ),
    "that adds an assertion to the package": (
        TILL, {"till/test.py": f"{text('till/test.py')}\n    def assertNone(self, coins):\n        self.fail()\n"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "files"), HONEST.values(), ids=HONEST.keys())
def test_a_fix_resolves(attempt: Attempt, name: str, files: Files) -> None:
    found = attempt(name, files, fixed=True)
    assert found.verdict == "resolved", found.detail


def test_a_test_that_fails_as_expected_was_kept(attempt: Attempt) -> None:
    kept = (*PROJECTS[SHELF].pass_to_pass, "tests/test_sorting.py::test_articles")
    found = attempt(SHELF, {}, fixed=True, pass_to_pass=kept)
    assert (found.verdict, found.detail) == ("resolved", "FAIL_TO_PASS 2 of 2, PASS_TO_PASS 4 of 4")


# --- patches that make the tests lie ---------------------------------------------------------------------

NAMES = {name: [*project.fail_to_pass, *project.pass_to_pass] for name, project in PROJECTS.items()}
LOGS = {
    SHELF: "".join(f"PASSED {test}\n" for test in NAMES[SHELF]),
    TILL: "".join(f"{test} ... ok\n" for test in NAMES[TILL]),
}
# To be sealed and written by one who has the key.
RECORD = "".join(f"{('test', test, None, 'passed')!a}\n" for test in NAMES[SHELF])


def says(name: str, *, then: str = "") -> str:
    """Code with a function that prints a log in which all tests pass, past what captures output, and then `then`."""
    printed = f"\n{LOGS[name]}{then}".encode()
    return f"""
import os
def say():
    for fd in range(1, 20):
        try:
            os.write(fd, {printed!r})
        except OSError:
            pass
"""


def leaves(name: str) -> str:
    return f"{says(name)}\nsay()\nos._exit(0)\n"


def ends(name: str) -> str:
    """Code that prints a log and its end."""
    end = ">>>>> End Test Output\n>>>>> Test Exit Code: 0\n"
    return f"{says(name, then=end)}\nsay()\n"


def indented(source: str) -> str:
    return "".join(f"    {line}\n" for line in source.splitlines())


AT_EXIT = "\nimport atexit\natexit.register(lambda: (say(), os._exit(0)))\n"

# Hooks of pytest that lie, each in its own way.
REPORT = """
import pytest
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport():
    report = (yield).get_result()
    report.outcome, report.longrepr = "passed", None
"""
CALL = "def pytest_pyfunc_call():\n    return True\n"
SWALLOWED = """
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call():
    (yield).force_result(None)
"""
ITEMS = """
def pytest_collection_modifyitems(items):
    for item in items:
        item.runtest = lambda: None
"""
LEAVES_NO_TRACE = f"""
{CALL}
def pytest_sessionfinish(session):
    import sys
    session.config.pluginmanager.unregister(sys.modules[__name__])
"""
EXCHANGED = """
@pytest.fixture(autouse=True)
def kind(request):
    request.node.obj = lambda **_: None
"""
EXPECTED = """
@pytest.fixture(autouse=True)
def kind(request):
    if "Ulysses" in request.node.name or "regard" in request.node.name:
        request.node.add_marker(pytest.mark.xfail)
"""
REGISTERED = f"""
import gc, sys
from _pytest.config import PytestPluginManager
{CALL}
for found in gc.get_objects():
    if isinstance(found, PytestPluginManager):
        found.register(sys.modules[__name__])
"""

# Functions of the runners, put out of work.
NO_RUN = "import _pytest.python\n_pytest.python.Function.runtest = lambda self: None\n"
NO_FUNCTION = """
import _pytest.python
class Function(_pytest.python.Function):
    def runtest(self):
        pass
_pytest.python.Function = Function
"""
NO_CODE = "import _pytest.python\n_pytest.python.Function.runtest.__code__ = (lambda self: None).__code__\n"
NO_METHOD = "import unittest\nunittest.TestCase._callTestMethod = lambda *_: None\n"
NO_FAILURE = """
import unittest
unittest.TestResult.addFailure = unittest.TestResult.addError = lambda self, test, _: self.addSuccess(test)
"""
NO_COMPARISON = "import unittest\nunittest.TestCase.assertEqual = lambda *_: None\n"
BUILT_IN = "import unittest\nunittest.TestCase.assertEqual = print\n"

# A package's own class of tests, which the hidden ones are made from.
PRETENDS = """
class TestCase(TestCase):
    def run(self, result):
        result.startTest(self)
        result.addSuccess(self)
        result.stopTest(self)
"""
REPLACES = """
class TestCase(TestCase):
    def __init_subclass__(cls):
        for name in list(vars(cls)):
            if name.startswith("test_"):
                other = lambda self: None
                other.__doc__ = vars(cls)[name].__doc__
                setattr(cls, name, other)
"""

# Other tests in place of the hidden ones.
FAKES = f"""
import unittest
class Fake(unittest.FunctionTestCase):
    __str__ = lambda self: self.name
def load(*_, **__):
    fakes = []
    for name in {NAMES[TILL]!r}:
        fake = Fake(lambda: None)
        fake.name = name
        fakes.append(fake)
    return unittest.TestSuite(fakes)
unittest.defaultTestLoader.loadTestsFromName = load
unittest.defaultTestLoader.loadTestsFromModule = load
"""
LOADED = """
import sys, types
fake = types.ModuleType("test_sorting")
fake.__file__ = "/testbed/tests/test_sorting.py"
fake.test_order = fake.test_order_without_regard_to_case = lambda: None
sys.modules["test_sorting"] = fake
"""
NESTED = f"""
import os, sys
if "pytest" in sys.modules and not os.path.exists("/tmp/fake"):
    os.makedirs("/tmp/fake/tests")
    with open("/tmp/fake/tests/test_labels.py", "w") as file:
        file.write("import pytest\\n@pytest.mark.parametrize('x', ['Emma-9-Emma', 'Ulysses-7-Ulysses', 'War'])\\n"
                   "def test_label(x): pass\\n")
    with open("/tmp/fake/tests/test_sorting.py", "w") as file:
        file.write("def test_order(): pass\\ndef test_order_without_regard_to_case(): pass\\n")
    import pytest
    pytest.main(["-p", "harness_record", "--rootdir=/tmp/fake", "/tmp/fake/tests"])
{indented(leaves(SHELF))}
"""

MENDS = "import _pytest.python as p\nopen(p.__file__, 'a').write('\\nFunction.runtest = lambda self: None\\n')\n"

# Against the recorder.
ASKED = f"""
import os, sys
recorder = sys.modules.get("harness_record")
for test in {NAMES[SHELF]!r}:
    recorder._note(test, None, "passed")
recorder._write()
say()
os._exit(0)
"""
HOOKED = f"""
def label(title, width):
    import _pytest.assertion.util
    from _pytest.reports import TestReport
    config = _pytest.assertion.util._config
    for test in {NAMES[SHELF]!r}:
        config.hook.pytest_runtest_logreport(report=TestReport(test, ("", 0, ""), {{}}, "passed", None, "call"))
    config.hook.pytest_unconfigure(config=config)
    say()
    os._exit(0)
"""
PATCHED = """
import builtins, hmac, json
dumps, new, show = json.dumps, hmac.new, repr
json.dumps = lambda found, **rest: dumps(found, **rest).replace("failed", "passed")
hmac.new = lambda key, message=b"", digest=None: new(key, message.replace(b"failed", b"passed"), digest)
builtins.repr = builtins.ascii = lambda found: show(found).replace("failed", "passed")
"""
FORGED = f"""
with open("/opt/harness/grading/record", "w") as file:
    file.write("0" * 64 + "\\n" + {RECORD!r})
"""
STOLEN = f"""
import hashlib, hmac
try:
    with open("/opt/harness/grading/key") as file:
        key = file.read()
    with open("/opt/harness/grading/record", "w") as file:
        file.write(hmac.new(key.encode(), {RECORD!r}.encode(), hashlib.sha256).hexdigest() + "\\n" + {RECORD!r})
except OSError:
    pass
"""
STAYS = """
import os, time
if os.fork() == 0:
    os.setsid()
    while True:
        with open("/opt/harness/grading/record", "w") as file:
            file.write("0" * 64)
        time.sleep(0.01)
"""

LOADS = "addopts = -p shelf.evil"
METADATA = "Metadata-Version: 2.1\nName: evil\nVersion: 1\n"
POINTS = "[pytest11]\nevil = shelf.evil\n"
NO_TESTS: Files = {path: None for path in PROJECTS[SHELF].base if path.startswith("tests/")}
TOX = """[testenv]
allowlist_externals = python
commands = python -c 'import shelf.evil; shelf.evil.say()'
"""

# Says of itself that it is pytest's own.
CLAIMS = """
import _pytest.python
exec(compile("def runtest(self): pass", _pytest.python.__file__, "exec"), vars(_pytest.python))
_pytest.python.Function.runtest = _pytest.python.runtest
"""

PUT_BACK: dict[str, tuple[str, Files, str]] = {
    "tests that assert nothing": (
        SHELF,
        {"tests/test_labels.py": "def test_label():\n    pass\n", "tests/test_sorting.py": "def test_order(): pass\n"},
        "tests/test_labels.py, tests/test_sorting.py",
    ),
    "no tests": (TILL, {"tests/coins/tests.py": None, "tests/coins/__init__.py": None}, "tests/coins/__init__.py"),
    "a link in place of the tests": (SHELF, {**NO_TESTS, "tests": Link("shelf")}, "tests, tests/conftest.py"),
    "a module beside the tests": (SHELF, {"tests/pytest.py": leaves(SHELF)}, "tests/pytest.py"),
    "runtests.py": (TILL, {"tests/runtests.py": f"#!/usr/bin/env python\n{leaves(TILL)}"}, "tests/runtests.py"),
    "conftest.py at the top": (SHELF, {"conftest.py": REPORT}, "conftest.py"),
    "conftest.py of the tests": (SHELF, {"tests/conftest.py": REPORT}, "tests/conftest.py"),
    "sitecustomize.py": (SHELF, {"sitecustomize.py": NO_RUN}, "sitecustomize.py"),
    "a package sitecustomize": (TILL, {"sitecustomize/__init__.py": NO_METHOD}, "sitecustomize/__init__.py"),
    "usercustomize.py": (TILL, {"till/usercustomize.py": NO_METHOD}, "till/usercustomize.py"),
    "a .pth file": (SHELF, {"shelf/evil.pth": "import shelf.evil\n", "shelf/evil.py": NO_RUN}, "shelf/evil.pth"),
    "pytest.py": (SHELF, {"pytest.py": leaves(SHELF)}, "pytest.py"),
    "a package _pytest": (SHELF, {"_pytest/__init__.py": leaves(SHELF)}, "_pytest/__init__.py"),
    "unittest.py": (TILL, {"unittest.py": leaves(TILL)}, "unittest.py"),
    "tox.py": (SHELF, {"tox.py": leaves(SHELF)}, "tox.py"),
    "toxfile.py": (SHELF, {"toxfile.py": leaves(SHELF)}, "toxfile.py"),
    "other commands in tox.ini": (SHELF, {"tox.ini": TOX, "shelf/evil.py": says(SHELF)}, "tox.ini"),
    "fewer tests in tox.ini": (
        SHELF, {"tox.ini": text("tox.ini").replace("--color yes", "--color yes -k War")}, "tox.ini",
    ),
    "pytest.ini": (SHELF, {"pytest.ini": f"[pytest]\n{LOADS}\n", "shelf/evil.py": CALL}, "pytest.ini"),
    "setup.cfg": (SHELF, {"setup.cfg": f"[tool:pytest]\n{LOADS}\n", "shelf/evil.py": CALL}, "setup.cfg"),
    "pyproject.toml": (
        SHELF, {"pyproject.toml": '[tool.pytest.ini_options]\naddopts = "-p shelf.evil"\n', "shelf/evil.py": CALL},
        "pyproject.toml",
    ),
    "a plugin's metadata": (
        SHELF,
        {"evil-1.dist-info/METADATA": METADATA, "evil-1.dist-info/entry_points.txt": POINTS, "shelf/evil.py": NO_RUN},
        "evil-1.dist-info/entry_points.txt",
    ),
    "the package's metadata": (
        SHELF, {"shelf.egg-info/entry_points.txt": POINTS, "shelf/evil.py": NO_RUN}, "shelf.egg-info/entry_points.txt",
    ),
    "tests by a name that is no text": (SHELF, {"tests/\udcff.py": "x = 1\n"}, "tests/\\udcff.py"),
    "setup.py that takes the key": (SHELF, code(STOLEN, "setup.py"), "setup.py"),
    "setup.py that mends pytest": (SHELF, code(MENDS, "setup.py"), "setup.py"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "files", "put_back"), PUT_BACK.values(), ids=PUT_BACK.keys())
def test_what_decides_how_tests_are_run_is_put_back(attempt: Attempt, name: str, files: Files, put_back: str) -> None:
    found = attempt(name, files)
    assert found.verdict == "unresolved"
    (note,) = found.notes
    assert note.startswith("put_back_for_grading: ")
    assert put_back in note


FIXTURES, SORTING, LABELS, COINS, CASES = (
    "shelf/testing/fixtures.py", "shelf/sorting.py", "shelf/labels.py", "till/coins.py", "till/test.py"
)  # fmt: skip

NOTICED: dict[str, tuple[str, Files, str]] = {
    "a plugin of the package makes reports": (SHELF, code(REPORT, FIXTURES), "pytest_runtest_makereport"),
    "a plugin of the package calls no test": (SHELF, code(CALL, FIXTURES), "pytest_pyfunc_call"),
    "a plugin of the package swallows what is raised": (SHELF, code(SWALLOWED, FIXTURES), "pytest_runtest_call"),
    "a plugin of the package exchanges the tests": (SHELF, code(ITEMS, FIXTURES), "pytest_collection_modifyitems"),
    "a plugin of the package leaves no trace": (SHELF, code(LEAVES_NO_TRACE, FIXTURES), "pytest_pyfunc_call"),
    "a module of the package makes itself a plugin": (SHELF, code(REGISTERED, SORTING), "pytest_pyfunc_call"),
    "a fixture of the package exchanges the tests": (SHELF, code(EXCHANGED, FIXTURES), "the test itself"),
    "a fixture of the package expects them to fail": (SHELF, code(EXPECTED, FIXTURES), "says xfailed_unexpected"),
    "a function of pytest is exchanged": (SHELF, code(NO_RUN, SORTING), "Function.runtest"),
    "a class of pytest is exchanged": (SHELF, code(NO_FUNCTION, SORTING), "_pytest.python.Function"),
    "a function of pytest has other code": (SHELF, code(NO_CODE, SORTING), "Function.runtest"),
    "unittest calls no test": (TILL, code(NO_METHOD, COINS), "TestCase._callTestMethod"),
    "unittest takes failures for successes": (TILL, code(NO_FAILURE, COINS), "TestResult.addError"),
    "unittest compares nothing": (TILL, code(NO_COMPARISON, COINS), "TestCase.assertEqual"),
    "unittest calls what is built in": (TILL, code(BUILT_IN, COINS), "code that is from no file"),
    "the package's test case runs nothing": (TILL, code(PRETENDS, CASES), "says altered"),
    "the package's test case is not even run": (
        TILL, code(PRETENDS.replace("run(self", "__call__(self"), CASES), "says altered",
    ),
    "the package's test case has other methods": (TILL, code(REPLACES, CASES), "the test itself"),
    "other tests are loaded (unittest)": (TILL, code(FAKES, COINS), "the test itself"),
    "other tests are loaded (pytest)": (
        SHELF, {**code(LOADED, SORTING), LABELS: PROJECTS[SHELF].fix[LABELS]}, "the test itself",
    ),
    "other tests are run in between": (SHELF, code(NESTED, SORTING), "(a call)"),
    "a log is printed at exit (pytest)": (SHELF, code(says(SHELF) + AT_EXIT, SORTING), "says failed"),
    "a log is printed at exit (unittest)": (TILL, code(says(TILL) + AT_EXIT, COINS), "says failed"),
    "a log and its end are printed (pytest)": (SHELF, code(ends(SHELF), SORTING), "says failed"),
    "a log and its end are printed (unittest)": (TILL, code(ends(TILL), COINS), "says failed"),
    "a log is printed and no test run": (TILL, code(says(TILL) + "say()\nexit(0)\n", COINS), "says not run"),
    "the recorder's hooks are called": (SHELF, code(says(SHELF) + HOOKED, LABELS), "(a call)"),
    "what could seal a record is exchanged": (TILL, code(PATCHED + says(TILL) + AT_EXIT, COINS), "says failed"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "files", "words"), NOTICED.values(), ids=NOTICED.keys())
def test_a_log_that_lies_is_contradicted_by_the_record(
    attempt: Attempt, small: SmallSuite, name: str, files: Files, words: str
) -> None:
    found = attempt(name, files)
    assert official(small.task(name), found.log)[0] is True, "the log does not even lie"
    assert found.verdict == "unresolved"
    assert words in (found.detail or "")


ENDED: dict[str, tuple[str, Files, str]] = {
    "leave with a log (pytest)": (SHELF, code(leaves(SHELF), SORTING), "ended before their end"),
    "leave with a log (unittest)": (TILL, code(leaves(TILL), COINS), "ended before their end"),
    "leave pytest in order": (
        SHELF, code(says(SHELF) + "say()\nimport pytest\npytest.exit('', 0)\n", SORTING), "ended before their end",
    ),
    "leave with a record": (SHELF, code(FORGED + leaves(SHELF), SORTING), "ended before their end"),
    "look for the key": (SHELF, code(STOLEN + leaves(SHELF), SORTING), "ended before their end"),
    "ask the recorder": (SHELF, code(says(SHELF) + ASKED, SORTING), "ended before their end"),
    "leave a process that writes a record": (TILL, code(STAYS + leaves(TILL), COINS), "ended before their end"),
    "kill every process": (SHELF, code(says(SHELF) + "say()\nos.kill(-1, 9)\n", SORTING), "were killed|killed their"),
    "kill the shell": (TILL, code(says(TILL) + "say()\nos.kill(os.getppid(), 9)\n", COINS), "were killed"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "files", "words"), ENDED.values(), ids=ENDED.keys())
def test_tests_that_a_patch_ends_are_unresolved_since_they_do_not_end_so_without(
    attempt: Attempt, name: str, files: Files, words: str
) -> None:
    found = attempt(name, files)
    assert found.verdict == "unresolved"
    assert re.match(f"with this patch the tests ({words})", found.detail or "")


def test_what_is_not_promised_code_that_says_it_is_from_another_file(attempt: Attempt) -> None:
    """As tasks/README.md says: in the tests' own process, code that sets out to deceive the recorder can."""
    assert attempt(SHELF, code(CLAIMS, SORTING)).verdict == "resolved"


def test_tests_that_a_patch_makes_hang_are_unresolved_as_well(attempt: Attempt) -> None:
    found = attempt(TILL, code(says(TILL) + "say()\nimport time\ntime.sleep(600)\n", COINS), test_timeout_s=4.0)
    assert (found.verdict, found.detail) == ("unresolved", "with this patch the tests did not end within 4 s")


def test_code_that_is_run_before_the_tests_does_not_find_the_key(attempt: Attempt) -> None:
    """As where an evaluation script installs the repository first."""
    takes_and_leaves = f"{STOLEN}\nimport sys\nif 'pytest' in sys.modules:\n{indented(leaves(SHELF))}"
    found = attempt(SHELF, code(takes_and_leaves, "shelf/__init__.py"), before=("python -c 'import shelf'",))
    assert found.verdict == "unresolved"
    assert "ended before their end" in (found.detail or "")


@pytest.mark.parametrize(
    "path",
    [
        "tests/data/words.txt", "lib/matplotlib/tests/test_new.py", "sympy/core/conftest.py", "shelf/pytest.ini",
        "shelf/__pycache__/sorting.cpython-39.pyc", "shelf/sorting.pyc",
        "tox.toml", "pytest.toml", ".coveragerc", "sitecustomize.pyc", "__pycache__/x.pyc", "hashlib.so",
        "json/tool.py", "x.egg-info/PKG-INFO", "setup.py", "tests",
        "tests/__pycache__/test_labels.cpython-39-pytest-8.3.3.pyc",
    ],
)  # fmt: skip
def test_a_file_that_decides_how_tests_are_run_is_the_runners(path: str) -> None:
    base = ("README.rst", "setup.py", "lib/matplotlib/axes.py", "shelf/__init__.py", "sympy/core/add.py")
    assert is_runners(path, base, fix=())
    assert not is_runners(path, base, fix=(path,))


@pytest.mark.parametrize("path", ["README.rst", "shelf/sorting.py", "shelf/new.py", "shelf/testing/fixtures.py"])
def test_other_files_are_the_patchs(path: str) -> None:
    assert not is_runners(path, ("README.rst", "shelf/__init__.py", "shelf/sorting.py"), fix=())


# --- how patches are applied -----------------------------------------------------------------------------


def without_index(patch: bytes) -> bytes:
    return b"".join(line for line in patch.splitlines(keepends=True) if not line.startswith(b"index "))


def off(small: SmallSuite, files: Files | None = None) -> bytes:
    """The fix of the shelf, and what `files` write, with lines of context that are not there."""
    patch = without_index(small_suite.patch(small, SHELF, files or {}, fixed=True))
    fuzzy = patch.replace(b" def label(title, width):\n", b" def label(title, width=12):\n")
    fuzzy = fuzzy.replace(b"     return titles\n", b"     return tuple(titles)\n")
    assert fuzzy != patch
    return fuzzy


def test_a_patch_whose_context_is_off_is_applied_with_fuzz(attempt: Attempt, small: SmallSuite) -> None:
    found = attempt(SHELF, off(small))
    assert (found.verdict, found.notes) == ("resolved", ("patch_applied_by_patch_fuzz",)), found.detail


def test_a_fuzzy_patch_has_its_tests_put_back(attempt: Attempt, small: SmallSuite) -> None:
    wrong = {"tests/test_labels.py": "def test_label():\n    assert False\n", "conftest.py": "raise SystemExit(1)\n"}
    found = attempt(SHELF, off(small, wrong))
    assert found.verdict == "resolved", found.detail
    assert found.notes == (
        "patch_applied_by_patch_fuzz", "put_back_for_grading: conftest.py, tests/test_labels.py"
    )  # fmt: skip


def test_a_fuzzy_patch_that_renames_tests_has_them_put_back(attempt: Attempt, small: SmallSuite) -> None:
    moved = {"tests/conftest.py": None, "shelf/testing/conf.py": text("tests/conftest.py")}
    patch = off(small, moved)
    assert b"rename from tests/conftest.py" in patch
    found = attempt(SHELF, patch)
    assert found.verdict == "resolved", found.detail
    assert "put_back_for_grading: tests/conftest.py" in found.notes


def test_a_fuzzy_patch_lies_no_better(attempt: Attempt, small: SmallSuite) -> None:
    patch = off(small, {SORTING: f"{text(SORTING)}\n\n{NO_RUN}"})
    found = attempt(SHELF, patch)
    assert found.notes == ("patch_applied_by_patch_fuzz",)
    assert (found.verdict, "shelf/sorting.py" in (found.detail or "")) == ("unresolved", True)


def test_a_patch_of_another_version_is_merged(attempt: Attempt, small: SmallSuite) -> None:
    """Git finds the version that the patch was made of by the blob that its index line names."""
    fix = str(PROJECTS[SHELF].base["shelf/_sorting.py"]).replace("sort()", "sort(key=str.casefold)")
    patch = small_suite.patch(small, SHELF, {"shelf/_sorting.py": fix}).replace(b"shelf/_sorting.py", SORTING.encode())
    labels = small_suite.patch(small, SHELF, {LABELS: PROJECTS[SHELF].fix[LABELS]})
    found = attempt(SHELF, labels + patch)
    assert (found.verdict, found.notes) == ("resolved", ("patch_applied_by_three_way",)), found.detail


NEW = "diff --git a/{0} b/{0}\nnew file mode 100644\n--- /dev/null\n+++ b/{0}\n@@ -0,0 +1 @@\n+x\n"


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        (
            "diff --git a/shelf/sorting.py b/shelf/sorting.py\n--- a/shelf/sorting.py\n+++ b/shelf/sorting.py\n"
            "@@ -1,3 +1,3 @@\n class Other:\n-    pass\n+    x = 1\n     # nowhere\n",
            "shelf/sorting.py",
        ),
        (NEW.format(".git/config"), ".git/config"),
        (NEW.format("shelf/.git/config"), ".git/config"),
        (NEW.format("../x"), "../x"),
        (NEW.format("/etc/x"), "/etc/x"),
        ("--- /etc/hostname\n+++ /etc/hostname\n@@ -1 +1 @@\n-x\n+y\n", "etc/hostname"),
        ("I have fixed it.\n", "No valid patches"),
    ],
    ids=["that fits nowhere", "of .git", "of another .git", "of a parent", "of the root", "of the system", "of words"],
)
def test_a_patch_is_rejected(attempt: Attempt, patch: str, words: str) -> None:
    found = attempt(SHELF, patch.encode())
    assert found.verdict == "patch_rejected"
    assert words in (found.detail or "")
