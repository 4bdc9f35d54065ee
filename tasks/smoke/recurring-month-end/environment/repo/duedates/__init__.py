from duedates.dates import next_due, schedule
from duedates.rules import BadRule, parse_rule

__all__ = ["BadRule", "next_due", "parse_rule", "schedule"]
