"""Counting in months."""

import calendar


def days_in_month(year, month):
    return calendar.monthrange(year, month)[1]


def add_months(day, count):
    """The same day of the month `count` months later, or that month's last day if it is shorter."""
    years, month0 = divmod(day.month - 1 + count, 12)
    year, month = day.year + years, month0 + 1
    return day.replace(year=year, month=month, day=min(day.day, days_in_month(year, month)))
