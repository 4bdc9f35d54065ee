import unittest

from shopcart import Basket, Catalog, Line, UnknownProduct, total_cents

CATALOG = Catalog({"tea": 450, "mug": 890})


class PricingTest(unittest.TestCase):
    def test_total(self):
        self.assertEqual(total_cents(Basket("ann", [Line("tea", 2), Line("mug", 1)]), CATALOG), 1790)

    def test_bulk_discount_from_ten_pieces(self):
        self.assertEqual(total_cents(Basket("ann", [Line("tea", 10)]), CATALOG), 4050)

    def test_unknown_product(self):
        with self.assertRaises(UnknownProduct):
            total_cents(Basket("ann", [Line("rope", 1)]), CATALOG)


if __name__ == "__main__":
    unittest.main()
