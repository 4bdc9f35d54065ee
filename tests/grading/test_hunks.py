"""Solutions with a part taken off: still patches, and of nothing more than was left."""

from __future__ import annotations

import pytest

from harness.grading import hunks

ONE = b"""diff --git a/a.py b/a.py
index 1..2 100644
--- a/a.py
+++ b/a.py
@@ -1,2 +1,2 @@
-a
+b
 c
@@ -9 +9 @@ def f():
-@@ d
+@@ e
"""
TWO = b"""diff --git a/b.py b/b.py
new file mode 100644
--- /dev/null
+++ b/b.py
@@ -0,0 +1 @@
+x
"""
RENAME = b"""diff --git a/c.py b/d.py
similarity index 100%
rename from c.py
rename to d.py
"""


@pytest.mark.parametrize(
    ("patch", "number"), [(b"", 0), (ONE, 2), (TWO, 1), (ONE + TWO, 3), (RENAME, 0), (ONE + RENAME + TWO, 3)]
)
def test_hunks_are_counted_over_all_files(patch: bytes, number: int) -> None:
    assert hunks.count(patch) == number


def test_the_last_hunks_go_and_with_the_last_one_of_a_file_its_head() -> None:
    assert hunks.without_last(ONE + TWO, 0) == ONE + TWO
    assert hunks.without_last(ONE + TWO, 1) == ONE
    assert hunks.without_last(ONE + TWO, 2) == ONE[: ONE.index(b"@@ -9")]
    assert hunks.without_last(TWO + ONE, 1) == TWO + ONE[: ONE.index(b"@@ -9")]
    assert hunks.without_last(TWO + ONE, 2) == TWO
    for all_or_more in (3, 4):
        assert hunks.without_last(ONE + TWO, all_or_more) == b""


def test_the_first_hunks_go_the_same_way() -> None:
    assert hunks.without_first(ONE + TWO, 0) == ONE + TWO
    assert hunks.without_first(ONE + TWO, 1) == ONE[: ONE.index(b"@@ -1")] + ONE[ONE.index(b"@@ -9") :] + TWO
    assert hunks.without_first(ONE + TWO, 2) == TWO
    assert hunks.without_first(ONE + TWO, 3) == b""


def test_a_file_of_which_no_hunk_is_left_to_count_goes() -> None:
    assert hunks.without_last(ONE + RENAME + TWO, 1) == ONE


def test_words_before_the_first_file_go_and_of_none_nothing_is_left() -> None:
    assert hunks.without_last(b"Subject: a fix\n---\n" + TWO, 0) == TWO
    assert hunks.without_last(b"", 1) == b""
