"""What to remember, and when."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Reminder:
    when: datetime  # with an offset
    text: str


def by_time(reminders):
    return sorted(reminders, key=lambda reminder: reminder.when)


def due(reminders, now):
    """The reminders whose time has come, earliest first."""
    return [reminder for reminder in by_time(reminders) if reminder.when <= now]
