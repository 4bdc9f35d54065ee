import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

TESTBED = os.environ.get("TESTBED", "/testbed")
sys.path.append(TESTBED)

from invoicing.invoice import UnknownCountry, make_invoice
from invoicing.money import to_text


def invoice(country, *lines):
    return make_invoice(
        {
            "customer": "A",
            "country": country,
            "lines": [{"item": "thing", "quantity": quantity, "price": price} for quantity, price in lines],
        }
    )


def line(quantity, price):
    return invoice("DE", (quantity, price)).lines[0][2]


class LineTest(unittest.TestCase):
    def test_every_price_below_a_hundred_is_kept_to_the_cent(self):
        wrong = [cents for cents in range(10_000) if line(1, f"{cents // 100}.{cents % 100:02d}") != cents]
        self.assertEqual(wrong, [])

    def test_quantities(self):
        self.assertEqual(line(3, "0.29"), 87)
        self.assertEqual(line(7, "1.15"), 805)
        self.assertEqual(line(100, "0.29"), 2900)
        self.assertEqual(line(7, "1234567.89"), 864197523)

    def test_half_a_cent_is_rounded_up_once_for_the_line(self):
        self.assertEqual(line(1, "0.125"), 13)
        self.assertEqual(line(1, "0.135"), 14)
        self.assertEqual(line(1, "1.005"), 101)
        self.assertEqual(line(3, "0.125"), 38)
        self.assertEqual(line(2, "0.125"), 25)

    def test_less_than_half_a_cent_is_rounded_down(self):
        self.assertEqual(line(1, "0.124"), 12)
        self.assertEqual(line(1, "0.001"), 0)
        self.assertEqual(line(6, "0.124"), 74)

    def test_prices_without_cents(self):
        self.assertEqual(line(2, "12"), 2400)
        self.assertEqual(line(2, "0.5"), 100)


class VatTest(unittest.TestCase):
    def test_half_a_cent_is_rounded_up(self):
        self.assertEqual(invoice("LU", (1, "2.50")).vat_cents, 43)
        self.assertEqual(invoice("LU", (1, "1.50")).vat_cents, 26)
        self.assertEqual(invoice("DE", (1, "0.50")).vat_cents, 10)
        self.assertEqual(invoice("DE", (1, "1.50")).vat_cents, 29)
        self.assertEqual(invoice("DE", (1, "5.50")).vat_cents, 105)

    def test_a_rate_with_a_decimal(self):
        self.assertEqual(invoice("CH", (1, "5.00")).vat_cents, 41)
        self.assertEqual(invoice("CH", (1, "15.00")).vat_cents, 122)
        self.assertEqual(invoice("CH", (1, "45.00")).vat_cents, 365)

    def test_from_the_net_sum_and_not_line_by_line(self):
        three = invoice("DE", (1, "0.02"), (1, "0.02"), (1, "0.02"))
        self.assertEqual((three.net_cents, three.vat_cents, three.total_cents), (6, 1, 7))


class ReportTest(unittest.TestCase):
    def test_the_order_of_the_complaint(self):
        order = {
            "customer": "Weber & Co",
            "country": "DE",
            "lines": [
                {"item": "lamp", "quantity": 1, "price": "19.99"},
                {"item": "bracket", "quantity": 3, "price": "0.29"},
            ],
        }
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "order.json"
            path.write_text(json.dumps(order), encoding="utf-8")
            done = subprocess.run(
                [sys.executable, "-B", "-m", "invoicing", str(path)],
                cwd=TESTBED,
                capture_output=True,
                text=True,
                timeout=30,
            )
        self.assertEqual(done.returncode, 0, done.stderr)
        amounts = [row.split()[-1] for row in done.stdout.splitlines()]
        self.assertEqual(amounts, ["19.99", "0.87", "20.86", "3.96", "24.82"])

    def test_kept_behaviour(self):
        self.assertEqual((to_text(105), to_text(7), to_text(123456)), ("1.05", "0.07", "1234.56"))
        with self.assertRaises(UnknownCountry):
            invoice("XX")


if __name__ == "__main__":
    unittest.main()
