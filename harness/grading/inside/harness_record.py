"""What the tests came to, kept by the runner itself: read by harness/grading/record.py.

Runs inside the container that grades, under the Python of the repository, so it is written for any Python from 3.5
and imports nothing that is not in the standard library. As a plugin of pytest it is loaded before anything of the
repository; as a program it runs a script of unittest's:

    python harness_record.py SCRIPT ARGUMENT...

A log can be printed by anybody. The record is sealed with a key that is read from a file, which is then removed,
before a line of the repository has run; a run that is ended early leaves none.
"""

import hashlib
import hmac
import json
import os
import sys

FOLDER = "/opt/harness/grading"

# Hooks by which a file of the repository could change what is reported of a test.
TELLING = (
    "pytest_runtest_protocol",
    "pytest_runtest_call",
    "pytest_pyfunc_call",
    "pytest_runtest_makereport",
    "pytest_runtest_logreport",
    "pytest_report_teststatus",
)


def _recorder():
    """Two functions: one notes a test, the other writes the record. The key is in neither's reach from outside."""
    path = os.path.join(FOLDER, "key")
    try:
        with open(path) as file:
            key = file.read().encode()
        os.remove(path)
    except OSError:  # a child of pytest, or a second run: the first one records
        return (lambda *_: None), (lambda *_: None)
    tests = []

    def note(name, title, status):
        tests.append([name, title, status])

    def write(hooks=()):
        content = json.dumps({"tests": tests, "hooks": list(hooks)})
        seal = hmac.new(key, content.encode(), hashlib.sha256).hexdigest()
        with open(os.path.join(FOLDER, "record"), "w") as file:
            file.write(seal + "\n" + content)

    return note, write


# --- pytest ----------------------------------------------------------------------------------------------

if __name__ != "__main__":
    import pytest

    _note, _write = _recorder()
    _raised = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(item, call):
        # What was raised, whatever a report is later made to say.
        if call.excinfo is not None:
            _raised[item.nodeid] = call.excinfo.typename

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(report):
        status = report.outcome
        if hasattr(report, "wasxfail"):
            status = "xfailed" if report.outcome == "skipped" else "xpassed"
        elif status == "passed" and report.nodeid in _raised:
            status = "altered"
        if report.when == "call" or status != "passed":
            _note(report.nodeid, None, status)

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(config):
        hooks = []
        for name in TELLING:
            for implementation in getattr(config.hook, name).get_hookimpls():
                code = getattr(implementation.function, "__code__", None)
                hooks.append([name, code.co_filename if code else "?"])
        _write(hooks)


# --- unittest --------------------------------------------------------------------------------------------


def _run(script, arguments):
    import runpy
    import unittest

    note, write = _recorder()

    def first_line(self):
        # Python 3.9 shows the first line of a docstring that 3.6, by which tests were named, took to be empty.
        title = self._testMethodDoc
        return (title and title.split("\n")[0].strip()) or None

    unittest.TestCase.shortDescription = first_line

    def recorded(name, status):
        original = getattr(unittest.TestResult, name)

        def method(self, test, *rest):
            found = status
            if name == "addSubTest" and rest[1] is None:
                return original(self, test, *rest)
            title = test.shortDescription() if hasattr(test, "shortDescription") else None
            note(str(test), title, found)
            return original(self, test, *rest)

        setattr(unittest.TestResult, name, method)

    for name, status in (
        ("addSuccess", "passed"),
        ("addFailure", "failed"),
        ("addError", "failed"),
        ("addSubTest", "failed"),
        ("addSkip", "skipped"),
        ("addExpectedFailure", "xfailed"),
        ("addUnexpectedSuccess", "failed"),
    ):
        recorded(name, status)

    sys.argv = [script, *arguments]
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        write()


if __name__ == "__main__":
    _run(sys.argv[1], sys.argv[2:])
