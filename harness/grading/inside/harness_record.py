"""What the tests came to, kept by the runner itself: read by harness/grading/record.py.

Runs inside the container that grades, under the Python of the repository, so it is written for any Python from 3.5
and imports nothing that is not in the standard library. As a plugin of pytest it is loaded before anything of the
repository; as a program it runs a script of unittest's:

    python harness_record.py SCRIPT ARGUMENT...

A log can be printed by anybody. The record is sealed with a key that is read from a file, which is then removed,
before a line of the repository has run; a run that is ended early leaves none. It says of each test what came of it,
and which files, besides the runner's own, hold code that took part in that. Each note is sealed as it is made, so
that none can be taken back, and no import or attribute leads to what makes them.

It is no wall: the tests run code of the repository in this very process, and code that goes looking for this module's
variables (through frames, or the garbage collector) will find them.
"""

import functools
import hashlib
import os
import sys
import types
import unittest

FOLDER = "/opt/harness/grading"
RUNNERS = ("_pytest", "pluggy", "pytest", "unittest")

# Beginnings of hooks by which a plugin could change what is run as a test, or what is reported of it.
TELLING = (
    "pytest_collect",
    "pytest_fixture",
    "pytest_itemcollected",
    "pytest_make_collect",
    "pytest_pycollect",
    "pytest_pyfunc_call",
    "pytest_report_teststatus",
    "pytest_runtest",
)


def _recorder():
    """Two functions: one notes (kind, what, ...), the same only once, the other writes the record. None where there
    is no key: in a child of the tests, or a second run. The first one records."""
    path = os.path.join(FOLDER, "key")
    try:
        with open(path, "rb") as file:
            key = file.read()
        os.remove(path)
    except OSError:
        return None
    # HMAC for a key as long as a block. The module hmac could be patched, what hashlib makes can't.
    inner, outer = [hashlib.sha256(bytes(byte ^ pad for byte in key)) for pad in (0x36, 0x5C)]
    lines, noted, opened = [], set(), open

    def note(*entry):
        if entry not in noted:
            noted.add(entry)
            lines.append(("%a\n" % (entry,)).encode())  # noqa: UP031 - f-strings came with Python 3.6
            inner.update(lines[-1])

    def write():
        outer.update(inner.digest())
        with opened(os.path.join(FOLDER, "record"), "wb") as file:
            file.write(outer.hexdigest().encode() + b"\n" + b"".join(lines))

    return note, write


def _witness(note):
    """Three functions: one notes the file of code that took part in a test, by what it did there; the second does so
    for a test's own code; the third for what has been put in place of a function of the runner's, or beside it, since
    the third first saw the module or class that it is in."""
    folders = tuple(os.path.dirname(sys.modules[name].__file__) + "/" for name in RUNNERS if name in sys.modules)
    files = {}

    def part(what, name):
        if name not in files:
            file = os.path.realpath(name) if name else ""
            if not os.path.isfile(file):  # it is built in, or was made of a text
                file = name if name and name.startswith("<frozen ") else "?"
            files[name] = file
        if not files[name].startswith(folders):
            note("part", what, files[name])

    def itself(test, *functions):
        if _file(type(test)):
            part("the test itself", _file(type(test)))
        for function in functions:
            if function is not None:
                part("the test itself", _file(_made(_inmost(function))))

    known = {}  # module or class of the runner's: name to code or class

    def look():
        modules = [m for name, m in list(sys.modules.items()) if m and name.partition(".")[0] in RUNNERS]
        classes = [c for m in modules for c in list(vars(m).values()) if isinstance(c, type)]
        for owner in modules + [c for c in classes if c.__module__.partition(".")[0] in RUNNERS]:
            now = {name: _made(value) for name, value in list(vars(owner).items()) if value is not None}
            before = known.setdefault(owner, now)
            for name, made in now.items():
                if made is not before.get(name):
                    part(owner.__name__ + "." + name, _file(made))

    return part, itself, look


def _made(value):
    """The code of a function, or a class; None for anything else."""
    if isinstance(value, (classmethod, staticmethod, types.MethodType)):
        value = value.__func__
    elif isinstance(value, property):
        value = value.fget
    return value.__code__ if isinstance(value, types.FunctionType) else value if isinstance(value, type) else None


def _file(made):
    if isinstance(made, type):
        return getattr(sys.modules.get(made.__module__), "__file__", None)
    return made and made.co_filename


def _inmost(function):
    """What is called in the end by a function that decorators, or arguments given beforehand, lie around."""
    while hasattr(function, "__wrapped__") or isinstance(function, functools.partial):
        function = function.func if isinstance(function, functools.partial) else function.__wrapped__
    return function


# --- pytest ----------------------------------------------------------------------------------------------


def _hooks():
    """The recorder as hooks of pytest, by name."""
    import pytest

    recorder = _recorder()
    if recorder is None:
        return {}
    note, write = recorder
    part, itself, look = _witness(note)
    raised, expected = set(), set()

    def look_around(config):
        look()
        frame = sys._getframe(1)
        while frame is not None:
            part("a call", _file(frame.f_code))
            frame = frame.f_back
        for name, hook in vars(config.pluginmanager.hook).items():
            if name.startswith(TELLING):
                old = not hasattr(hook, "get_hookimpls")
                for implementation in hook._nonwrappers + hook._wrappers if old else hook.get_hookimpls():
                    part(name, _file(_made(implementation.function)))

    @pytest.hookimpl(tryfirst=True)
    def pytest_load_initial_conftests():
        look()  # installed plugins, which may add to pytest, are loaded by now, and nothing of the repository

    def pytest_collection_finish(session):
        expected.update(item.nodeid for item in session.items if "xfail" in item.keywords)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(item, call):
        # What was raised, whatever a report is later made to say; a test may be run again.
        (raised.discard if call.excinfo is None else raised.add)((item.nodeid, call.when))
        if call.when == "call":
            look_around(item.config)
            itself(item, item.runtest, getattr(item, "obj", None))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(report):
        status = report.outcome
        if hasattr(report, "wasxfail"):
            status = "xpassed"
            if report.outcome == "skipped":
                status = "xfailed" if report.nodeid in expected else "xfailed_unexpected"
        elif status == "passed" and (report.nodeid, report.when) in raised:
            status = "altered"
        if report.when == "call" or status != "passed":
            note("test", report.nodeid, None, status)

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(config):
        look_around(config)
        write()

    return {name: value for name, value in locals().items() if name.startswith("pytest_")}


if __name__ != "__main__":
    globals().update(_hooks())


# --- unittest --------------------------------------------------------------------------------------------


def _run(script, arguments):
    import runpy

    note, write = _recorder() or (lambda *_: None, lambda: None)

    def first_line(self):
        # Python 3.9 shows the first line of a docstring that 3.6, by which tests were named, took to be empty.
        title = self._testMethodDoc
        return (title and title.split("\n")[0].strip()) or None

    unittest.TestCase.shortDescription = first_line
    run = unittest.TestCase.run.__code__

    def told_by_run(method):
        frame = sys._getframe(2)
        while frame is not None and frame.f_code.co_name == method:
            frame = frame.f_back
        return frame is not None and frame.f_code is run

    def recorded(name, status):
        original = getattr(unittest.TestResult, name)

        def method(self, test, *rest):
            if name != "addSubTest" or rest[1] is not None:
                title = test.shortDescription() if hasattr(test, "shortDescription") else None
                note("test", str(test), title, status if status != "passed" or told_by_run(name) else "altered")
                look()
                itself(test, getattr(test, getattr(test, "_testMethodName", ""), None))
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
    _, itself, look = _witness(note)
    look()

    sys.argv = [script, *arguments]
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        look()
        write()


if __name__ == "__main__":
    _run(sys.argv[1], sys.argv[2:])
