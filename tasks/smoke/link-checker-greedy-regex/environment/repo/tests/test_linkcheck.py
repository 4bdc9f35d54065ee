import tempfile
import unittest
from pathlib import Path

from linkcheck.check import check_folder
from linkcheck.extract import Link, extract_links


class ExtractTest(unittest.TestCase):
    def test_link_and_image(self):
        text = "See the [guide](guide.md).\n\n![logo](img/logo.png)\n"
        self.assertEqual(
            extract_links(text), [Link(1, "guide", "guide.md"), Link(3, "logo", "img/logo.png")]
        )

    def test_fenced_code_is_skipped(self):
        self.assertEqual(extract_links("```\n[a](b.md)\n```\n"), [])

    def test_no_links(self):
        self.assertEqual(extract_links("Nothing [here] (really).\n"), [])


class CheckTest(unittest.TestCase):
    def test_dead_links_of_a_folder(self):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "index.md").write_text(
                "[there](other.md#top)\n[gone](gone.md)\n[web](https://example.org/gone.md)\n", encoding="utf-8"
            )
            (folder / "other.md").write_text("[up](#top)\n", encoding="utf-8")
            found = [(page.name, link.target) for page, link in check_folder(folder)]
        self.assertEqual(found, [("index.md", "gone.md")])


if __name__ == "__main__":
    unittest.main()
