"""The due dates of a rule."""

from itertools import islice

from duedates.rules import parse_rule


def due_dates(start, rule):
    """All due dates, without an end; the first one is the start."""
    day = start
    while True:
        yield day
        day = rule.after(day)


def schedule(start, rule_text, count):
    """The first `count` due dates as a list."""
    return list(islice(due_dates(start, parse_rule(rule_text)), count))


def next_due(start, rule_text, day):
    """The first due date after `day`."""
    for due in due_dates(start, parse_rule(rule_text)):
        if due > day:
            return due
