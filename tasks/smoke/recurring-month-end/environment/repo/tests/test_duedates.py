import unittest
from datetime import date

from duedates import BadRule, next_due, parse_rule, schedule
from duedates.months import add_months


class DuedatesTest(unittest.TestCase):
    def test_weeks(self):
        self.assertEqual(
            schedule(date(2024, 2, 20), "every 2 weeks", 3),
            [date(2024, 2, 20), date(2024, 3, 5), date(2024, 3, 19)],
        )

    def test_months_over_the_end_of_a_year(self):
        self.assertEqual(
            schedule(date(2023, 11, 15), "every month", 3),
            [date(2023, 11, 15), date(2023, 12, 15), date(2024, 1, 15)],
        )

    def test_short_month(self):
        self.assertEqual(add_months(date(2024, 1, 31), 1), date(2024, 2, 29))

    def test_next_due_is_after_the_day(self):
        self.assertEqual(next_due(date(2024, 1, 15), "every month", date(2024, 2, 15)), date(2024, 3, 15))

    def test_rules(self):
        self.assertEqual(parse_rule("Every 3 weeks").interval, 3)
        for text in ("every 0 days", "monthly", "every two months"):
            with self.assertRaises(BadRule):
                parse_rule(text)


if __name__ == "__main__":
    unittest.main()
