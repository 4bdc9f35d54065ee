import json
import unittest
from pathlib import Path

from invoicing.invoice import UnknownCountry, make_invoice
from invoicing.money import to_text

ORDER = Path(__file__).resolve().parent.parent / "data" / "order-1042.json"


class InvoiceTest(unittest.TestCase):
    def test_the_sample_order(self):
        invoice = make_invoice(json.loads(ORDER.read_text(encoding="utf-8")))
        self.assertEqual([cents for _, _, cents in invoice.lines], [1000, 100])
        self.assertEqual((invoice.net_cents, invoice.vat_cents, invoice.total_cents), (1100, 220, 1320))

    def test_unknown_country(self):
        with self.assertRaises(UnknownCountry):
            make_invoice({"customer": "A", "country": "XX", "lines": []})

    def test_text(self):
        self.assertEqual(to_text(105), "1.05")
        self.assertEqual(to_text(7), "0.07")


if __name__ == "__main__":
    unittest.main()
