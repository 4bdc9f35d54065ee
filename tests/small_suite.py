"""A small suite in the shape of SWE-bench: two repositories of a few lines, each with one issue.

`small__shelf-1` is tested the way Sphinx is (tox, pytest, a plugin of pytest in the package itself), `small__till-1`
the way Django is (a runtests.py of unittest's). Commits, rows and images are the same every time, so that the images
are made once on a machine:

    small = small_suite.write(tmp_path / "small")
    prepared = small_suite.build(small, connect())
    wrong = small_suite.patch(small, "small__shelf-1", {"shelf/sorting.py": "def sort(titles): return titles\\n"})
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import docker

from harness import paths
from harness.images import rebuilt, recipes
from harness.images.locate import prepare_all
from harness.images.prepare import Prepared
from harness.suites import Suite, load_suite
from harness.suites.swebench import SweBenchTask, ids_hash

SHELF, TILL = "small__shelf-1", "small__till-1"

LOCK = "swe-bench-verified-mini/environments/sphinx-4-py3.9.lock"
PACKAGES = (
    "cachetools", "chardet", "colorama", "distlib", "exceptiongroup", "filelock", "iniconfig", "packaging", "pip",
    "platformdirs", "pluggy", "pyproject-api", "pytest", "setuptools", "tomli", "tox", "tox-current-env", "virtualenv",
    "wheel",
)  # fmt: skip


class Link(str):
    """Where a symbolic link points to."""


Files = Mapping[str, str | bytes | None]  # by path: content, a Link, or None for a file that is taken away

SETUP = """from setuptools import find_packages, setup

setup(name="{name}", version="1.0", packages=find_packages(exclude=["tests", "tests.*"]))
"""

SHELF_BASE: Files = {
    "CHANGES": "1.0\n\n* The first release.\n",
    "setup.py": SETUP.format(name="shelf"),
    "tox.ini": """[tox]
minversion = 2.4.0
envlist = py39

[testenv]
usedevelop = True
passenv =
    PYTEST_ADDOPTS
setenv =
    PYTEST_ADDOPTS = {env:PYTEST_ADDOPTS:} --color yes
commands =
    python -X dev -m pytest --durations 25 {posargs}
""",
    "shelf/__init__.py": '"""Books on a shelf."""\n\nfrom shelf.labels import label\nfrom shelf.sorting import sort\n',
    "shelf/labels.py": '''"""What stands on the spines."""

DOTS = "..."


def label(title, width):
    """A title, cut where it is too long for its spine."""
    if len(title) < width:
        return title
    return title[: width - len(DOTS)] + DOTS
''',
    # How sorting.py was before it said what it does: for a patch of that time, which takes a merge to apply.
    "shelf/_sorting.py": '''"""Where a book stands."""


def sort(titles):
    titles = list(titles)
    titles.sort()
    return titles
''',
    "shelf/sorting.py": '''"""Where a book stands."""


def sort(titles):
    """The titles from left to right."""
    titles = list(titles)
    titles.sort()
    return titles
''',
    "shelf/testing/__init__.py": "",
    "shelf/testing/fixtures.py": '''"""Fixtures, for this package's tests and for those who build on it."""

import pytest

from shelf import sort


@pytest.fixture
def three():
    return sort(["c", "a", "b"])
''',
    "tests/conftest.py": """import pytest

pytest_plugins = "shelf.testing.fixtures"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    report = (yield).get_result()
    report.user_properties.append(("file", item.location[0]))
""",
    "tests/test_labels.py": """import pytest

from shelf import label


@pytest.mark.parametrize("title, width, shown", [("Emma", 9, "Emma"), ("War and Peace", 6, "War...")])
def test_label(title, width, shown):
    assert label(title, width) == shown
""",
    "tests/test_sorting.py": """import pytest

from shelf import sort


def test_order(three):
    assert three == ["a", "b", "c"]
""",
}

SHELF_FIX: Files = {
    "shelf/labels.py": str(SHELF_BASE["shelf/labels.py"]).replace("len(title) < width", "len(title) <= width"),
    "shelf/sorting.py": str(SHELF_BASE["shelf/sorting.py"]).replace("titles.sort()", "titles.sort(key=str.casefold)"),
}

SHELF_TESTS: Files = {
    "tests/test_labels.py": str(SHELF_BASE["tests/test_labels.py"]).replace(
        '("War', '("Ulysses", 7, "Ulysses"), ("War'
    ),
    "tests/test_sorting.py": str(SHELF_BASE["tests/test_sorting.py"])
    + """

def test_order_without_regard_to_case(three):
    assert sort(["B", "a", three[2]]) == ["a", "B", "c"]


@pytest.mark.xfail
def test_articles():
    assert sort(["The End", "Emma"]) == ["The End", "Emma"]
""",
}

TILL_BASE: Files = {
    "setup.py": SETUP.format(name="till"),
    "till/__init__.py": '"""A till."""\n',
    "till/coins.py": '''"""Coins of a currency."""

COINS = (50, 20, 10, 5, 2)


def change(amount):
    """The coins that make up an amount."""
    coins = []
    for coin in COINS:
        while amount >= coin:
            coins.append(coin)
            amount -= coin
    return coins
''',
    "till/receipts.py": '''"""What the customer gets."""


def receipt(items):
    """A line for each item, and the sum."""
    lines = ["%s %d" % (name, price) for name, price in items]
    lines.append("sum %d" % max(price for _, price in items))
    return lines
''',
    "till/test.py": '''"""For tests, of this package and of those who build on it."""

import unittest


class TestCase(unittest.TestCase):
    def assertSum(self, coins, amount):
        self.assertEqual(sum(coins), amount)
''',
    "tests/coins/__init__.py": "",
    "tests/coins/tests.py": '''from till.coins import change
from till.test import TestCase


class ChangeTests(TestCase):
    def test_nothing(self):
        self.assertEqual(change(0), [])

    def test_fewest(self):
        """The largest coins come first."""
        self.assertEqual(change(72), [50, 20, 2])
''',
    "tests/receipts/__init__.py": "",
    "tests/receipts/tests.py": '''from till.receipts import receipt
from till.test import TestCase


class ReceiptTests(TestCase):
    def test_one_item(self):
        """
        The sum of one item is its price.
        """
        self.assertEqual(receipt([("tea", 3)]), ["tea 3", "sum 3"])
''',
    "tests/runtests.py": """#!/usr/bin/env python
import argparse
import sys
import unittest

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--verbosity", type=int, default=1)
    parser.add_argument("--settings")
    parser.add_argument("--parallel", type=int)
    parser.add_argument("labels", nargs="*")
    options = parser.parse_args()
    tests = unittest.defaultTestLoader.loadTestsFromNames(options.labels)
    result = unittest.TextTestRunner(verbosity=options.verbosity).run(tests)
    sys.exit(not result.wasSuccessful())
""",
}

TILL_FIX: Files = {
    "till/coins.py": str(TILL_BASE["till/coins.py"]).replace("5, 2)", "5, 2, 1)"),
    "till/receipts.py": str(TILL_BASE["till/receipts.py"]).replace("max(", "sum("),
}

TILL_TESTS: Files = {
    "tests/coins/tests.py": str(TILL_BASE["tests/coins/tests.py"])
    + '''
    def test_one(self):
        """There is a smallest coin."""
        self.assertSum(change(1), 1)

    def test_odd(self):
        self.assertSum(change(3), 3)
''',
    "tests/receipts/tests.py": str(TILL_BASE["tests/receipts/tests.py"])
    + '''
    def test_two_items(self):
        """
        The sum of two is no maximum.
        """
        self.assertEqual(receipt([("tea", 3), ("milk", 1)])[-1], "sum 4")

    def test_printer(self):
        self.skipTest("there is none")
''',
}


@dataclass(frozen=True)
class Project:
    """One instance. Names of tests are those of Python 3.6, as published ones are."""

    repo: str
    version: str
    issue: str
    base: Files
    fix: Files
    tests: Files
    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...]


PROJECTS = {
    SHELF: Project(
        "sphinx-doc/sphinx",
        "4.0",
        "Titles are cut that fit, and capitals come first\n\nUlysses fits a spine of 7, and a shelf has no upper case.",
        SHELF_BASE,
        SHELF_FIX,
        SHELF_TESTS,
        (
            "tests/test_labels.py::test_label[Ulysses-7-Ulysses]",
            "tests/test_sorting.py::test_order_without_regard_to_case",
        ),
        # The last one is cut off, as some published ones are.
        (
            "tests/test_labels.py::test_label[Emma-9-Emma]",
            "tests/test_sorting.py::test_order",
            "tests/test_labels.py::test_label[War",
        ),
    ),
    TILL: Project(
        "django/django",
        "3.1",
        "No change for a penny, and sums are wrong\n\nchange(1) is empty, and a receipt of two has the larger price.",
        TILL_BASE,
        TILL_FIX,
        TILL_TESTS,
        (
            "There is a smallest coin.",
            "test_odd (coins.tests.ChangeTests)",
            "test_two_items (receipts.tests.ReceiptTests)",
        ),
        (
            "The largest coins come first.",
            "test_nothing (coins.tests.ChangeTests)",
            "test_one_item (receipts.tests.ReceiptTests)",
            "test_printer (receipts.tests.ReceiptTests)",
        ),
    ),
}


@dataclass(frozen=True)
class SmallSuite:
    """A suite that was written: what `--tasks` or SUITE, `--data` and `--from` are given."""

    folder: Path
    data: Path
    source: str

    def load(self) -> Suite:
        return load_suite(str(self.folder), self.data)

    def task(self, name: str) -> SweBenchTask:
        return next(task for task in self.load().tasks if isinstance(task, SweBenchTask) and task.name == name)


def write(folder: Path) -> SmallSuite:
    """Write the suite, its rows and the git repositories below `folder`; the suite is named as the folder is."""
    (folder / "environments").mkdir(parents=True)
    (folder / "environments" / "small-py3.9.lock").write_text(_lock(), encoding="utf-8")
    small = SmallSuite(folder, folder / "rows.jsonl", f"{folder}/git/{{repo}}")
    rows = [_row(small, name) for name in PROJECTS]
    small.data.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    (folder / "suite.toml").write_text(
        f'summary = "two small issues"\ndataset = "example/small"\nrevision = "{"0" * 40}"\ncount = {len(PROJECTS)}\n'
        f'ids = {json.dumps(list(PROJECTS))}\nids_sha256 = "{ids_hash(PROJECTS)}"\ntest_timeout_s = 60.0\n'
        'image = "harness-small.invalid/{arch}.{id}"\n',
        encoding="utf-8",
    )
    tables = [f'["{name}"]\nenvironment = "small"\nonly_from_commit = "there is no release"\n' for name in PROJECTS]
    (folder / "rebuild.toml").write_text("\n".join(tables), encoding="utf-8")
    return small


def build(small: SmallSuite, client: docker.DockerClient) -> dict[str, Prepared]:
    """The images of both instances, by name, as agents and grading get them. Seconds once they are here."""
    suite, known = small.load(), recipes.read(small.folder)
    for task in suite.tasks:
        assert isinstance(task, SweBenchTask)
        rebuilt.build(client, task, known[task.name], print, source=small.source)
    return prepare_all(client, suite, small.folder, print)


def patch(small: SmallSuite, name: str, files: Files, *, fixed: bool = False) -> bytes:
    """What git calls the difference when `files` are written over an instance's base, or over its fixed state."""
    project = PROJECTS[name]
    repository = Path(small.source.format(repo=project.repo))
    return _difference(repository, "HEAD", {**project.fix, **files} if fixed else files)


def _row(small: SmallSuite, name: str) -> dict[str, str]:
    project = PROJECTS[name]
    repository = Path(small.source.format(repo=project.repo))
    _git(repository, "init", "--quiet", "--bare", "--initial-branch=main", str(repository))
    with tempfile.TemporaryDirectory(prefix="harness-small-") as scratch:
        tree = _tree(repository, Path(scratch), None, project.base)
    commit = _git(repository, "commit-tree", "-m", "base", tree).decode().strip()
    _git(repository, "update-ref", "refs/heads/main", commit)
    return {
        "instance_id": name,
        "repo": project.repo,
        "version": project.version,
        "base_commit": commit,
        "patch": _difference(repository, commit, project.fix).decode(),
        "test_patch": _difference(repository, commit, project.tests).decode(),
        "problem_statement": project.issue,
        "hints_text": "",
        "created_at": "2000-01-01T00:00:00Z",
        "environment_setup_commit": commit,
        "FAIL_TO_PASS": json.dumps(project.fail_to_pass),
        "PASS_TO_PASS": json.dumps(project.pass_to_pass),
    }


def _difference(repository: Path, commit: str, files: Files) -> bytes:
    with tempfile.TemporaryDirectory(prefix="harness-small-") as scratch:
        tree = _tree(repository, Path(scratch), commit, files)
    return _git(repository, "diff", "--binary", "--full-index", "--find-renames", commit, tree)


def _tree(repository: Path, scratch: Path, commit: str | None, files: Files) -> str:
    """The id of the tree of a commit, None for an empty one, with `files` written over it."""
    index = {"GIT_INDEX_FILE": str(scratch / "index")}
    if commit is not None:
        _git(repository, "read-tree", commit, env=index)
    lines = []
    for path, content in files.items():
        if content is None:
            lines.append(f"0 {'0' * 40}\t{path}")
            continue
        raw = content.encode() if isinstance(content, str) else content
        blob = _git(repository, "hash-object", "-w", "--stdin", stdin=raw).decode().strip()
        mode = "120000" if isinstance(content, Link) else "100755" if raw.startswith(b"#!") else "100644"
        lines.append(f"{mode} {blob}\t{path}")
    _git(repository, "update-index", "--index-info", stdin=os.fsencode("\n".join(lines)), env=index)
    return _git(repository, "write-tree", env=index).decode().strip()


def _git(repository: Path, *arguments: str, stdin: bytes = b"", env: Mapping[str, str] = {}) -> bytes:
    who = {
        f"GIT_{role}_{field}": value
        for role in ("AUTHOR", "COMMITTER")
        for field, value in (("NAME", "small"), ("EMAIL", "s@example.invalid"), ("DATE", "2000-01-01T00:00:00+0000"))
    }
    settings = {"GIT_DIR": str(repository), "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}
    return subprocess.run(
        ["git", *arguments], input=stdin, capture_output=True, check=True, env={**os.environ, **settings, **who, **env}
    ).stdout


def _lock() -> str:
    """The packages that these projects need, of a lock that comes along."""
    blocks = re.findall(r"^[\w.-]+==(?:.*\\\n)*.*\n", (paths.builtin("tasks") / LOCK).read_text(encoding="utf-8"), re.M)
    chosen = [block for block in blocks if block.partition("==")[0] in PACKAGES]
    assert len(chosen) == len(PACKAGES), "the lock has other packages now"
    return "".join(chosen)
