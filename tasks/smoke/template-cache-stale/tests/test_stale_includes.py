import os
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.append(os.environ.get("TESTBED", "/testbed"))

from pagemill import Engine, TemplateNotFound


class EngineCase(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.edits = 0
        self.engine = Engine(self.folder)

    def write(self, name, text):
        """Write a file with a modification time of its own, however fast the test is."""
        (self.folder / name).write_text(text, encoding="utf-8")
        self.edits += 1
        os.utime(self.folder / name, (1_700_000_000 + self.edits,) * 2)

    def page(self, name="page.html", **values):
        return self.engine.render(name, values)


class StaleTest(EngineCase):
    def test_edit_of_an_included_file(self):
        self.write("header.html", "old")
        self.write("page.html", '{% include "header.html" %} {{ title }}')
        self.assertEqual(self.page(title="x"), "old x")
        self.write("header.html", "new {{ title }}")
        self.assertEqual(self.page(title="y"), "new y y")
        self.write("header.html", "newer")
        self.assertEqual(self.page(title="x"), "newer x")

    def test_edit_at_any_depth(self):
        self.write("d.html", "1")
        self.write("c.html", 'c{% include "d.html" %}')
        self.write("b.html", 'b{% include "c.html" %}')
        self.write("page.html", 'a{% include "b.html" %}')
        self.assertEqual(self.page(), "abc1")
        self.write("d.html", "2")
        self.assertEqual(self.page(), "abc2")
        self.write("c.html", 'C{% include "d.html" %}')
        self.assertEqual(self.page(), "abC2")
        self.write("d.html", "3")
        self.assertEqual(self.page(), "abC3")

    def test_every_page_that_includes_it(self):
        self.write("header.html", "old")
        for name in ("one.html", "two.html"):
            self.write(name, f'{name} {{% include "header.html" %}}')
        self.assertEqual([self.page("one.html"), self.page("two.html")], ["one.html old", "two.html old"])
        self.write("header.html", "new")
        self.assertEqual([self.page("one.html"), self.page("two.html")], ["one.html new", "two.html new"])
        self.assertEqual(self.page("header.html"), "new")

    def test_included_directly_and_through_another(self):
        self.write("x.html", "1")
        self.write("mid.html", '[{% include "x.html" %}]')
        self.write("page.html", '{% include "x.html" %}{% include "mid.html" %}{% include "x.html" %}')
        self.assertEqual(self.page(), "1[1]1")
        self.write("x.html", "2")
        self.assertEqual(self.page(), "2[2]2")

    def test_included_file_rendered_on_its_own_in_between(self):
        self.write("header.html", "old")
        self.write("page.html", '{% include "header.html" %}')
        self.page()
        self.write("header.html", "new")
        self.assertEqual(self.page("header.html"), "new")
        self.assertEqual(self.page(), "new")

    def test_deleted_and_put_back(self):
        self.write("header.html", "old")
        self.write("page.html", '{% include "header.html" %}')
        self.page()
        (self.folder / "header.html").unlink()
        for _ in range(2):
            with self.assertRaises(TemplateNotFound):
                self.page()
        self.write("header.html", "back")
        self.assertEqual(self.page(), "back")

    def test_an_include_that_was_taken_out_no_longer_matters(self):
        self.write("header.html", "old")
        self.write("page.html", '{% include "header.html" %}')
        self.page()
        self.write("page.html", "alone")
        (self.folder / "header.html").unlink()
        self.assertEqual(self.page(), "alone")


class CacheTest(EngineCase):
    def test_unchanged_pages_are_not_compiled_again(self):
        self.write("header.html", "h")
        self.write("page.html", '{% include "header.html" %}')
        self.write("other.html", "o")
        for _ in range(4):
            self.page()
            self.page("other.html")
        self.assertEqual(self.engine.compilations, 3)

    def test_after_an_edit_the_cache_works_again(self):
        self.write("header.html", "h")
        self.write("page.html", '{% include "header.html" %}')
        self.page()
        self.write("header.html", "H")
        self.page()
        count = self.engine.compilations
        for _ in range(3):
            self.page()
        self.assertEqual(self.engine.compilations, count)

    def test_unrelated_files_are_not_compiled_again(self):
        self.write("header.html", "h")
        self.write("footer.html", "f")
        self.write("page.html", '{% include "header.html" %}{% include "footer.html" %}')
        self.write("other.html", '{% include "footer.html" %}')
        self.page()
        self.page("other.html")
        count = self.engine.compilations
        self.write("header.html", "H")
        self.assertEqual(self.page("other.html"), "f")
        self.assertEqual(self.engine.compilations, count)
        self.assertEqual(self.page(), "Hf")
        self.assertLessEqual(self.engine.compilations, count + 2)

    def test_editing_the_page_itself(self):
        self.write("page.html", "one {{ x }}")
        self.assertEqual(self.page(x="<"), "one &lt;")
        self.write("page.html", "two")
        self.assertEqual(self.page(), "two")
        with self.assertRaises(TemplateNotFound):
            self.page("nowhere.html")


if __name__ == "__main__":
    unittest.main()
