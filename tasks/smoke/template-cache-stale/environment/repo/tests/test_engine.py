import os
import tempfile
import unittest
from pathlib import Path

from pagemill import Engine, TemplateNotFound

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"


class EngineTest(unittest.TestCase):
    def test_values_and_includes(self):
        self.assertEqual(
            Engine(TEMPLATES).render("page.html", {"title": "Salt & Pepper"}),
            "<title>Salt &amp; Pepper</title>\n<header>pagemill</header>\n<p>Salt &amp; Pepper</p>\n",
        )

    def test_unchanged_templates_are_compiled_once(self):
        engine = Engine(TEMPLATES)
        for _ in range(3):
            engine.render("page.html", {"title": "x"})
        self.assertEqual(engine.compilations, 2)

    def test_an_edited_template_is_compiled_again(self):
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder) / "page.html"
            page.write_text("one")
            engine = Engine(folder)
            self.assertEqual(engine.render("page.html", {}), "one")
            page.write_text("two")
            os.utime(page, (1, 1))
            self.assertEqual(engine.render("page.html", {}), "two")

    def test_missing(self):
        with self.assertRaises(TemplateNotFound):
            Engine(TEMPLATES).render("nowhere.html", {})
        with self.assertRaises(KeyError):
            Engine(TEMPLATES).render("page.html", {})


if __name__ == "__main__":
    unittest.main()
