import os
import sys
import unicodedata
import unittest

sys.path.append(os.environ.get("TESTBED", "/testbed"))

from pageslugs import slugify, unique_slugs

TITLES = {
    "Crème brûlée": "creme-brulee",
    "Jalapeños à la española": "jalapenos-a-la-espanola",
    "ÉCLAIR AU CAFÉ": "eclair-au-cafe",
    "Würziger Käse, für zwölf": "wurziger-kase-fur-zwolf",
    "Şiş köfte": "sis-kofte",
    "Phở bò": "pho-bo",
    "Żurek 2": "zurek-2",
}


class AccentsTest(unittest.TestCase):
    def test_accents_are_dropped(self):
        for title, slug in TITLES.items():
            with self.subTest(title=title):
                self.assertEqual(slugify(unicodedata.normalize("NFC", title)), slug)

    def test_combining_accents_give_the_same(self):
        for title, slug in TITLES.items():
            with self.subTest(title=title):
                self.assertEqual(slugify(unicodedata.normalize("NFD", title)), slug)

    def test_titles_that_become_equal_are_numbered(self):
        self.assertEqual(unique_slugs(["Pâté", "Pate", "PÂTÉ"]), ["pate", "pate-2", "pate-3"])

    def test_length_is_that_of_the_slug(self):
        self.assertEqual(slugify("éééé " * 20), "-".join(["eeee"] * 12))
        self.assertEqual(slugify(unicodedata.normalize("NFD", "é" * 70)), "e" * 60)


class KeptBehaviourTest(unittest.TestCase):
    def test_signs_part_words(self):
        self.assertEqual(slugify("Kitchen—Garden"), "kitchen-garden")
        self.assertEqual(slugify("Fish’n’Chips"), "fish-n-chips")
        self.assertEqual(slugify("salt·pepper"), "salt-pepper")
        self.assertEqual(slugify("tea→mug"), "tea-mug")

    def test_plain_titles(self):
        self.assertEqual(slugify("  Bread & Butter, 2nd Edition! "), "bread-butter-2nd-edition")
        self.assertEqual(slugify("snake_case"), "snake-case")

    def test_nothing_usable(self):
        for title in ("", "???", "東京"):
            with self.subTest(title=title):
                self.assertEqual(slugify(title), "page")


if __name__ == "__main__":
    unittest.main()
