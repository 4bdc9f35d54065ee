import sys
from datetime import date

from duedates import BadRule, schedule

start, rule, count = sys.argv[1:]
try:
    for day in schedule(date.fromisoformat(start), rule, int(count)):
        print(day.isoformat())
except BadRule as error:
    sys.exit(f"duedates: {error}")
