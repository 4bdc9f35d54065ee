import os
import subprocess
import sys
import unittest
from datetime import date

TESTBED = os.environ.get("TESTBED", "/testbed")
sys.path.append(TESTBED)

from duedates import BadRule, next_due, schedule


def texts(start, rule, count):
    return [day.isoformat() for day in schedule(date.fromisoformat(start), rule, count)]


class MonthEndTest(unittest.TestCase):
    def test_from_the_31st(self):
        self.assertEqual(
            texts("2023-01-31", "every month", 13),
            [
                "2023-01-31", "2023-02-28", "2023-03-31", "2023-04-30", "2023-05-31", "2023-06-30", "2023-07-31",
                "2023-08-31", "2023-09-30", "2023-10-31", "2023-11-30", "2023-12-31", "2024-01-31",
            ],
        )  # fmt: skip

    def test_from_the_30th_it_is_not_the_last_day_but_the_30th(self):
        self.assertEqual(
            texts("2024-01-30", "every month", 4), ["2024-01-30", "2024-02-29", "2024-03-30", "2024-04-30"]
        )

    def test_a_start_in_a_short_month(self):
        self.assertEqual(texts("2023-02-28", "every month", 3), ["2023-02-28", "2023-03-28", "2023-04-28"])
        self.assertEqual(texts("2024-04-30", "every month", 3), ["2024-04-30", "2024-05-30", "2024-06-30"])

    def test_several_months_over_years(self):
        self.assertEqual(
            texts("2023-08-31", "every 3 months", 6),
            ["2023-08-31", "2023-11-30", "2024-02-29", "2024-05-31", "2024-08-31", "2024-11-30"],
        )

    def test_leap_day_every_year(self):
        self.assertEqual(
            texts("2020-02-29", "every year", 6),
            ["2020-02-29", "2021-02-28", "2022-02-28", "2023-02-28", "2024-02-29", "2025-02-28"],
        )

    def test_leap_day_every_two_years(self):
        self.assertEqual(texts("2020-02-29", "every 2 years", 3), ["2020-02-29", "2022-02-28", "2024-02-29"])

    def test_next_due(self):
        start = date(2024, 1, 31)
        self.assertEqual(next_due(start, "every month", date(2024, 2, 29)), date(2024, 3, 31))
        self.assertEqual(next_due(start, "every month", date(2024, 3, 30)), date(2024, 3, 31))
        self.assertEqual(next_due(date(2020, 2, 29), "every year", date(2024, 1, 1)), date(2024, 2, 29))

    def test_from_the_shell(self):
        done = subprocess.run(
            [sys.executable, "-B", "-m", "duedates", "2024-01-31", "every month", "5"],
            cwd=TESTBED,
            capture_output=True,
            text=True,
            timeout=30,
        )
        self.assertEqual(done.stdout.split(), ["2024-01-31", "2024-02-29", "2024-03-31", "2024-04-30", "2024-05-31"])


class KeptBehaviourTest(unittest.TestCase):
    def test_days_and_weeks(self):
        self.assertEqual(texts("2024-02-28", "every day", 3), ["2024-02-28", "2024-02-29", "2024-03-01"])
        self.assertEqual(texts("2024-02-20", "every 2 weeks", 3), ["2024-02-20", "2024-03-05", "2024-03-19"])

    def test_a_day_that_every_month_has(self):
        self.assertEqual(texts("2023-11-15", "every 2 months", 3), ["2023-11-15", "2024-01-15", "2024-03-15"])

    def test_next_due_before_on_and_after_the_start(self):
        start = date(2024, 1, 15)
        self.assertEqual(next_due(start, "every month", date(2023, 6, 1)), start)
        self.assertEqual(next_due(start, "every month", start), date(2024, 2, 15))
        self.assertEqual(next_due(start, "every week", date(2024, 1, 16)), date(2024, 1, 22))

    def test_bad_rules(self):
        for text in ("every 0 months", "monthly", ""):
            with self.subTest(text=text), self.assertRaises(BadRule):
                schedule(date(2024, 1, 31), text, 1)


if __name__ == "__main__":
    unittest.main()
