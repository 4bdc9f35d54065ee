"""The file of reminders."""

from pathlib import Path

from remindme.reminders import Reminder
from remindme.times import parse_time


def load(path):
    """All reminders, in the order of the file; none if there is no file."""
    if not Path(path).exists():
        return []
    reminders = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        time, _, text = line.partition("|")
        reminders.append(Reminder(parse_time(time), text))
    return reminders


def save(path, reminders):
    lines = [f"{reminder.when:%Y-%m-%d %H:%M}|{reminder.text}\n" for reminder in reminders]
    Path(path).write_text("".join(lines), encoding="utf-8")
