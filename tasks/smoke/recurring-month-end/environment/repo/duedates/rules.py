"""Rules such as "every 2 months"."""

import re
from dataclasses import dataclass
from datetime import timedelta

from duedates.months import add_months

RULE = re.compile(r"every (?:(\d+) )?(day|week|month|year)s?")


class BadRule(ValueError):
    """The text is no rule."""


@dataclass(frozen=True)
class Rule:
    interval: int
    unit: str  # day, week, month or year

    def after(self, day):
        """The due date that follows the due date `day`."""
        if self.unit == "day":
            return day + timedelta(days=self.interval)
        if self.unit == "week":
            return day + timedelta(weeks=self.interval)
        if self.unit == "month":
            return add_months(day, self.interval)
        return add_months(day, 12 * self.interval)


def parse_rule(text):
    found = RULE.fullmatch(text.strip().lower())
    if not found or found[1] == "0":
        raise BadRule(f"expected something like 'every 2 months', not {text!r}")
    return Rule(int(found[1] or 1), found[2])
