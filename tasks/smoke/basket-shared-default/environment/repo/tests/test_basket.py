import unittest

from shopcart import Basket, Line


class BasketTest(unittest.TestCase):
    def test_adding_the_same_product_twice_makes_one_line(self):
        basket = Basket("ann", [])
        basket.add("tea")
        basket.add("tea", 2)
        self.assertEqual(basket.lines, [Line("tea", 3)])

    def test_remove(self):
        basket = Basket("ann", [Line("tea", 1), Line("mug", 1)])
        basket.remove("tea")
        self.assertEqual(basket.lines, [Line("mug", 1)])

    def test_quantity_must_be_positive(self):
        with self.assertRaises(ValueError):
            Basket("ann", []).add("tea", 0)


if __name__ == "__main__":
    unittest.main()
