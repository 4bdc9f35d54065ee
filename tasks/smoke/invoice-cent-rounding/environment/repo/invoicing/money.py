"""Amounts of money in whole cents."""


def line_cents(price, quantity):
    """Cents of `quantity` pieces at `price`, a text such as "2.50" or "0.125"."""
    return int(float(price) * quantity * 100)


def percent_of(cents, percent):
    """That many percent of an amount, in cents."""
    return round(cents * percent / 100)


def to_text(cents):
    return f"{cents // 100}.{cents % 100:02d}"
