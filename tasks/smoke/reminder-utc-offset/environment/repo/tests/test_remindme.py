import tempfile
import unittest
from datetime import datetime, timezone
from pathlib import Path

from remindme.reminders import Reminder, due
from remindme.storage import load, save
from remindme.times import BadTime, parse_time, show_time

NINE = datetime(2024, 3, 10, 9, 0, tzinfo=timezone.utc)


class RemindmeTest(unittest.TestCase):
    def test_time(self):
        self.assertEqual(parse_time("2024-03-10 09:00"), NINE)
        self.assertEqual(parse_time("2024-03-10T09:00"), NINE)
        self.assertEqual(show_time(NINE), "2024-03-10 09:00+00:00")

    def test_bad_times(self):
        for text in ("tomorrow", "2024-13-01 09:00", ""):
            with self.assertRaises(BadTime):
                parse_time(text)

    def test_save_and_load(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "r.txt"
            self.assertEqual(load(path), [])
            save(path, [Reminder(NINE, "a | b")])
            self.assertEqual(load(path), [Reminder(NINE, "a | b")])

    def test_due(self):
        later = Reminder(NINE.replace(hour=12), "later")
        now = Reminder(NINE, "now")
        self.assertEqual(due([later, now], NINE), [now])


if __name__ == "__main__":
    unittest.main()
