import json
import sys

from invoicing.invoice import make_invoice
from invoicing.money import to_text


def render(invoice):
    rows = [f"{quantity:>5} {item:<20} {to_text(cents):>10}" for item, quantity, cents in invoice.lines]
    rows.append(f"{'net':<26} {to_text(invoice.net_cents):>10}")
    rows.append(f"{'VAT ' + str(invoice.vat_percent) + ' %':<26} {to_text(invoice.vat_cents):>10}")
    rows.append(f"{'total':<26} {to_text(invoice.total_cents):>10}")
    return "\n".join(rows)


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        print(render(make_invoice(json.load(file))))
