"""An invoice, computed from an order."""

import json
from dataclasses import dataclass
from pathlib import Path

from invoicing.money import line_cents, percent_of

VAT_FILE = Path(__file__).resolve().parent.parent / "data" / "vat.json"


class UnknownCountry(ValueError):
    """There is no VAT rate for this country."""


@dataclass(frozen=True)
class Invoice:
    customer: str
    lines: list  # (item, quantity, cents)
    vat_percent: float

    @property
    def net_cents(self):
        return sum(cents for _, _, cents in self.lines)

    @property
    def vat_cents(self):
        return percent_of(self.net_cents, self.vat_percent)

    @property
    def total_cents(self):
        return self.net_cents + self.vat_cents


def make_invoice(order):
    rates = json.loads(VAT_FILE.read_text(encoding="utf-8"))
    if order["country"] not in rates:
        raise UnknownCountry(order["country"])
    lines = [
        (line["item"], line["quantity"], line_cents(line["price"], line["quantity"])) for line in order["lines"]
    ]
    return Invoice(order["customer"], lines, rates[order["country"]])
