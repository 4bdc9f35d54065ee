import unittest

from pageslugs import slugify, unique_slugs


class SlugifyTest(unittest.TestCase):
    def test_words(self):
        self.assertEqual(slugify("  Bread & Butter, 2nd Edition! "), "bread-butter-2nd-edition")

    def test_other_signs_part_words(self):
        self.assertEqual(slugify("Kitchen—Garden"), "kitchen-garden")
        self.assertEqual(slugify("Fish’n’Chips"), "fish-n-chips")

    def test_long_titles_are_cut_at_a_word(self):
        self.assertEqual(slugify("word " * 20), "-".join(["word"] * 12))

    def test_nothing_left(self):
        self.assertEqual(slugify("???"), "page")


class UniqueTest(unittest.TestCase):
    def test_repeated_titles(self):
        self.assertEqual(unique_slugs(["A b", "a-B", "A b!"]), ["a-b", "a-b-2", "a-b-3"])


if __name__ == "__main__":
    unittest.main()
