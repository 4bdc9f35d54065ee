"""Reading and showing points in time."""

import re
from datetime import datetime, timezone

TIME = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d)")


class BadTime(ValueError):
    """The text is no time."""


def parse_time(text):
    """A datetime with its offset."""
    found = TIME.match(text.strip())
    if not found:
        raise BadTime(f"expected something like '2024-03-10 09:00', not {text!r}")
    try:
        naive = datetime.fromisoformat(f"{found[1]} {found[2]}")
    except ValueError as error:
        raise BadTime(f"{text!r}: {error}") from None
    return naive.replace(tzinfo=timezone.utc)


def show_time(when):
    return when.isoformat(sep=" ", timespec="minutes")
