"""The runner's own record: how it is asked for, whose it is, and when it contradicts a log."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from harness.grading.record import Record, contradiction, read, with_record

KEY = "0123456789abcdef" * 4
WORKDIR = "/testbed"
BODY = b"""('part', 'a call', '/usr/lib/python3.9/runpy.py')
('test', 'tests/test_a.py::test_caf\\xe9[\\n]', None, 'passed')
('test', 'test_b (a.tests.T)', 'It is "so".', 'failed')
"""


def sealed(body: bytes, key: str = KEY) -> bytes:
    return hmac.new(key.encode(), body, hashlib.sha256).hexdigest().encode() + b"\n" + body


def record(*tests: tuple[str, str | None, str], parts: tuple[tuple[str, str], ...] = ()) -> Record:
    return Record(tests, parts)


def against(kept: Record, fail_to_pass: tuple[str, ...] = (), pass_to_pass: tuple[str, ...] = (), *changed: str) -> str:
    return contradiction(kept, fail_to_pass, pass_to_pass, changed, WORKDIR) or ""


@pytest.mark.parametrize(
    ("command", "recorded"),
    [
        (
            "./tests/runtests.py --verbosity 2 coins.tests",
            "python /opt/harness/grading/harness_record.py ./tests/runtests.py --verbosity 2 coins.tests",
        ),
        (
            "tox --current-env -epy39 -v -- -rA tests/test_a.py",
            "tox --current-env -epy39 -v -- -p harness_record -rA tests/test_a.py",
        ),
        ("pytest -rA a.py", "pytest -p harness_record -rA a.py"),
        ("python -m pytest a.py", "python -m pytest -p harness_record a.py"),
        ("A=b python3 -X dev -m pytest a.py", "A=b python3 -X dev -m pytest -p harness_record a.py"),
        ("./bin/test -C sympy", None),
        ("tox -epy39", None),
        ("./pytester a.py", None),
    ],
)
def test_the_recorder_goes_into_the_command_of_a_runner_that_is_known(command: str, recorded: str | None) -> None:
    assert with_record(command) == recorded


def test_a_record_is_read_as_it_was_sealed() -> None:
    kept = read(sealed(BODY), KEY)
    assert kept is not None
    assert kept.tests == (
        ("tests/test_a.py::test_café[\n]", None, "passed"), ("test_b (a.tests.T)", 'It is "so".', "failed")
    )  # fmt: skip
    assert kept.parts == (("a call", "/usr/lib/python3.9/runpy.py"),)
    assert read(sealed(b""), KEY) == Record((), ())


@pytest.mark.parametrize(
    "content",
    [
        sealed(BODY, "1" * 64), sealed(BODY).replace(b"failed", b"passed"), sealed(BODY)[:-1], sealed(BODY) + b"\n",
        b"0" * 64 + b"\n" + BODY, BODY, b"\xff\xfe", b"",
    ],
)  # fmt: skip
def test_a_record_that_was_not_sealed_with_the_key_is_none(content: bytes) -> None:
    assert read(content, KEY) is None


def test_what_passed_in_both_is_no_contradiction() -> None:
    kept = record(("t.py::a", None, "passed"), ("t.py::b[1]", None, "passed"), ("t.py::c", None, "failed"))
    assert against(kept, ("t.py::a",), ("t.py::b[1]",)) == ""


@pytest.mark.parametrize("wanted", [{"fail_to_pass": ("t.py::a",)}, {"pass_to_pass": ("t.py::a",)}])
def test_a_test_that_was_not_run_or_did_not_pass_contradicts_the_log(wanted: dict[str, tuple[str, ...]]) -> None:
    assert against(record(("t.py::b", None, "passed")), **wanted) == (
        "the log says that t.py::a passed, the runner's own record says not run"
    )
    for status in ("failed", "altered", "xpassed"):
        assert against(record(("t.py::a", None, status)), **wanted).endswith(f"says {status}")


@pytest.mark.parametrize("worse", ["failed", "altered"])
def test_a_test_that_passed_and_failed_did_not_pass(worse: str) -> None:
    """Torn down with an error, or noted a second time by somebody who would have it passed."""
    kept = record(("t.py::a", None, worse), ("t.py::a", None, "passed"))
    assert against(kept, ("t.py::a",)).endswith(f"says {worse} and passed")


@pytest.mark.parametrize(
    ("status", "fixes", "keeps"),
    [
        ("passed", True, True),
        ("xfailed", True, True),
        ("xfailed_unexpected", False, True),
        ("skipped", False, True),
        ("xpassed", False, False),
    ],
)
def test_what_counts_for_a_fix_is_stricter_than_what_was_kept(status: str, fixes: bool, keeps: bool) -> None:
    kept = record(("t.py::a", None, status))
    assert (against(kept, ("t.py::a",)) == "", against(kept, (), ("t.py::a",)) == "") == (fixes, keeps)


def test_a_name_that_was_cut_off_in_its_parameters_stands_for_all_that_begin_so() -> None:
    cut = "t.py::a[some words"
    good = record(("t.py::a[some words, more]", None, "passed"), ("t.py::a[some]", None, "failed"))
    assert against(good, (cut,)) == ""
    bad = record(("t.py::a[some words, 1]", None, "passed"), ("t.py::a[some words, 2]", None, "failed"))
    assert against(bad, (cut,)).endswith("says failed and passed")
    assert against(record(("t.py::a", None, "passed")), (cut,)).endswith("says not run")
    assert against(record(("t.py::a[some words]", None, "passed")), ("t.py::a",)).endswith("says not run")


def test_a_test_is_known_by_its_name_and_by_the_title_of_its_docstring() -> None:
    kept = record(("test_a (t.T)", "What  it is for.", "passed"), ("test_b (t.T)", "Another.", "failed"))
    assert against(kept, ("What it is for.", "test_a (t.T)")) == ""
    assert against(kept, ("Another.",)).endswith("says failed")


def test_code_of_the_patch_that_took_part_contradicts_the_log() -> None:
    kept = record(
        ("t.py::a", None, "passed"),
        parts=(("a call", "/usr/lib/python3.9/runpy.py"), ("pytest_runtest_call", "/testbed/pkg/testing.py")),
    )
    assert against(kept, ("t.py::a",), (), "pkg/other.py", "testing.py") == ""
    assert against(kept, ("t.py::a",), (), "pkg/testing.py") == (
        "pkg/testing.py, which the patch changes, takes part in the tests (pytest_runtest_call)"
    )


def test_code_from_no_file_that_took_part_contradicts_the_log() -> None:
    kept = record(("t.py::a", None, "passed"), parts=(("TestCase.run", "?"),))
    assert against(kept, ("t.py::a",)) == "code that is from no file takes part in the tests (TestCase.run)"
