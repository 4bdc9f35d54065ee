import os
import sys
import unittest

sys.path.append(os.environ.get("TESTBED", "/testbed"))

from shopcart import Basket, Catalog, Line, total_cents


class NewBasketTest(unittest.TestCase):
    def test_a_new_basket_is_empty_after_another_was_filled(self):
        ann = Basket("ann")
        ann.add("tea", 2)
        bob = Basket("bob")
        self.assertEqual(len(bob), 0)
        self.assertEqual(list(bob.lines), [])

    def test_two_baskets_do_not_see_each_other(self):
        ann, bob = Basket("ann"), Basket("bob")
        ann.add("tea", 2)
        bob.add("mug")
        self.assertEqual(list(ann.lines), [Line("tea", 2)])
        self.assertEqual(list(bob.lines), [Line("mug", 1)])

    def test_clearing_and_removing_touch_one_basket_only(self):
        ann, bob, cem = Basket("ann"), Basket("bob"), Basket("cem")
        for basket in (ann, bob, cem):
            basket.add("tea")
        ann.clear()
        bob.remove("tea")
        self.assertEqual((len(ann), len(bob), len(cem)), (0, 0, 1))

    def test_by_keyword_and_in_a_row(self):
        for _ in range(3):
            basket = Basket(customer="ann")
            basket.add("tea")
            self.assertEqual(len(basket), 1)


class KeptBehaviourTest(unittest.TestCase):
    def test_saved_lines_are_restored(self):
        basket = Basket("ann", [Line("tea", 2), Line("mug", 1)])
        basket.add("mug")
        self.assertEqual(basket.customer, "ann")
        self.assertEqual(list(basket.lines), [Line("tea", 2), Line("mug", 2)])
        self.assertEqual(total_cents(basket, Catalog({"tea": 450, "mug": 890})), 2680)

    def test_restoring_by_keyword(self):
        self.assertEqual(len(Basket("ann", lines=[Line("tea", 3)])), 3)


if __name__ == "__main__":
    unittest.main()
