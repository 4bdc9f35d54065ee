import os
import subprocess
import sys
import tempfile
import unittest
from datetime import datetime, timedelta, timezone
from pathlib import Path

TESTBED = os.environ.get("TESTBED", "/testbed")
sys.path.append(TESTBED)

from remindme.reminders import Reminder, due
from remindme.storage import load, save
from remindme.times import BadTime, parse_time, show_time


def at(hour, minute=0, **offset):
    return datetime(2024, 3, 10, hour, minute, tzinfo=timezone(timedelta(**offset)))


class FileCase(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = Path(folder.name) / "r.txt"

    def command(self, *arguments):
        return subprocess.run(
            [sys.executable, "-B", "-m", "remindme", "--file", str(self.file), *arguments],
            cwd=TESTBED,
            capture_output=True,
            text=True,
            timeout=30,
        )


class ParseTest(unittest.TestCase):
    def test_offsets(self):
        for text, expected in (
            ("2024-03-10 09:00+02:00", at(9, hours=2)),
            ("2024-03-10T09:00-03:30", at(9, hours=-3, minutes=-30)),
            ("2024-03-10 09:00+05:45", at(9, hours=5, minutes=45)),
            ("2024-03-10 09:00Z", at(9)),
            ("2024-03-10 09:00+00:00", at(9)),
            (" 2024-03-10 09:00 ", at(9)),
        ):
            with self.subTest(text=text):
                self.assertEqual(parse_time(text), expected)
                self.assertEqual(parse_time(text).utcoffset(), expected.utcoffset())

    def test_anything_else_after_the_minutes_is_refused(self):
        for text in ("2024-03-10 09:00 sharp", "2024-03-10 09:00+", "2024-03-10 09:00+99:00", "2024-03-10 09:00|x"):
            with self.subTest(text=text), self.assertRaises(BadTime):
                parse_time(text)

    def test_show(self):
        self.assertEqual(show_time(parse_time("2024-03-10T09:00-03:30")), "2024-03-10 09:00-03:30")


class StorageTest(FileCase):
    def test_times_and_offsets_come_back(self):
        reminders = [
            Reminder(at(9, hours=2), "Athens"),
            Reminder(at(9, 15, hours=-3, minutes=-30), "St. John's"),
            Reminder(at(9), "Reykjavik | UTC"),
        ]
        save(self.file, reminders)
        again = load(self.file)
        self.assertEqual(again, reminders)
        self.assertEqual([r.when.utcoffset() for r in again], [r.when.utcoffset() for r in reminders])

    def test_old_files_are_utc(self):
        self.file.write_text("2024-03-10 09:00|plants\n", encoding="utf-8")
        self.assertEqual(load(self.file), [Reminder(at(9), "plants")])


class CommandTest(FileCase):
    def test_due_and_list(self):
        self.command("add", "2024-03-10 09:00+02:00", "Athens")
        self.command("add", "2024-03-10 09:00", "London")
        self.command("add", "2024-03-10 09:00-03:30", "St. John's")
        athens, london, johns = (
            "2024-03-10 09:00+02:00  Athens\n",
            "2024-03-10 09:00+00:00  London\n",
            "2024-03-10 09:00-03:30  St. John's\n",
        )
        self.assertEqual(self.command("list").stdout, athens + london + johns)
        self.assertEqual(self.command("due", "2024-03-10 06:59").stdout, "")
        self.assertEqual(self.command("due", "2024-03-10 07:30").stdout, athens)
        self.assertEqual(self.command("due", "2024-03-10 10:00+01:00").stdout, athens + london)
        self.assertEqual(self.command("due", "2024-03-10 12:30Z").stdout, athens + london + johns)

    def test_an_old_file_is_read_and_added_to(self):
        self.file.write_text("2024-03-10 09:00|plants\n", encoding="utf-8")
        self.command("add", "2024-03-10 09:00+02:00", "Athens")
        self.assertEqual(
            self.command("list").stdout, "2024-03-10 09:00+02:00  Athens\n2024-03-10 09:00+00:00  plants\n"
        )

    def test_bad_time(self):
        done = self.command("add", "2024-03-10 09:00 sharp", "x")
        self.assertEqual(done.returncode, 1)
        self.assertTrue(done.stderr.startswith("remindme: "), done.stderr)
        self.assertFalse(self.file.exists())


class KeptBehaviourTest(unittest.TestCase):
    def test_bad_times(self):
        for text in ("tomorrow", "2024-13-01 09:00", "2024-03-10", ""):
            with self.subTest(text=text), self.assertRaises(BadTime):
                parse_time(text)

    def test_due_is_inclusive_and_sorted(self):
        first, second = Reminder(at(8), "a"), Reminder(at(9), "b")
        self.assertEqual(due([second, first, Reminder(at(10), "c")], at(9)), [first, second])


if __name__ == "__main__":
    unittest.main()
