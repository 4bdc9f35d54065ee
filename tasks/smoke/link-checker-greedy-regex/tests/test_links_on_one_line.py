import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

TESTBED = os.environ.get("TESTBED", "/testbed")
sys.path.append(TESTBED)

from linkcheck.extract import Link, extract_links


class OneLineTest(unittest.TestCase):
    def test_navigation_bar(self):
        self.assertEqual(
            extract_links("[Home](index.md) | [Guide](guide.md) | [FAQ](faq.md)"),
            [Link(1, "Home", "index.md"), Link(1, "Guide", "guide.md"), Link(1, "FAQ", "faq.md")],
        )

    def test_links_that_touch(self):
        self.assertEqual(
            extract_links("\n[a](1.md)[b](2.md)"), [Link(2, "a", "1.md"), Link(2, "b", "2.md")]
        )

    def test_parentheses_after_a_link(self):
        self.assertEqual(extract_links("see [setup](setup.md) (in German)"), [Link(1, "setup", "setup.md")])
        self.assertEqual(extract_links("(see [setup](setup.md))"), [Link(1, "setup", "setup.md")])

    def test_image_and_link(self):
        self.assertEqual(
            [link.target for link in extract_links("![logo](logo.png) and [text](page.md#part)")],
            ["logo.png", "page.md#part"],
        )

    def test_command_finds_the_dead_link_in_the_middle(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("index.md", "faq.md"):
                (Path(folder) / name).write_text("[A](index.md) [B](guide.md) [C](faq.md)\n", encoding="utf-8")
            done = subprocess.run(
                [sys.executable, "-B", "-m", "linkcheck", folder],
                cwd=TESTBED,
                capture_output=True,
                text=True,
                timeout=30,
            )
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertEqual(done.stdout.splitlines(), [f"{folder}/{n}:1: guide.md" for n in ("faq.md", "index.md")])


class KeptBehaviourTest(unittest.TestCase):
    def test_one_link_a_line(self):
        self.assertEqual(
            extract_links("A [guide](guide.md).\n\n![a long label](img/logo.png)\n"),
            [Link(1, "guide", "guide.md"), Link(3, "a long label", "img/logo.png")],
        )

    def test_code_and_plain_text(self):
        self.assertEqual(extract_links("```\n[a](b.md) [c](d.md)\n```\nNothing [here] (really).\n"), [])


if __name__ == "__main__":
    unittest.main()
