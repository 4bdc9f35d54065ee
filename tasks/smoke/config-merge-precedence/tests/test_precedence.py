import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

TESTBED = os.environ.get("TESTBED", "/testbed")
sys.path.append(TESTBED)

from relayd import resolve


class PrecedenceTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.site = Path(folder.name) / "site.ini"

    def resolve(self, argv, environ, site=None):
        if site is None:
            return resolve(argv, environ)
        self.site.write_text("[relayd]\n" + site, encoding="utf-8")
        return resolve(["--config", str(self.site), *argv], environ)

    def test_command_line_beats_environment(self):
        settings = self.resolve(["--port", "2525", "--host", "::1"], {"RELAYD_PORT": "587", "RELAYD_HOST": "0.0.0.0"})
        self.assertEqual((settings["port"], settings["host"]), (2525, "::1"))

    def test_environment_beats_site_file(self):
        self.assertEqual(self.resolve([], {"RELAYD_PORT": "587"}, site="port = 465\n")["port"], 587)

    def test_each_layer_over_the_one_below(self):
        settings = self.resolve(
            ["--banner", "flag"],
            {"RELAYD_BANNER": "environment", "RELAYD_RETRIES": "7"},
            site="banner = file\nretries = 5\nhost = 10.0.0.1\n",
        )
        self.assertEqual(
            settings, {"host": "10.0.0.1", "port": 25, "tls": True, "retries": 7, "banner": "flag"}
        )

    def test_tls_off_in_every_layer(self):
        self.assertIs(self.resolve(["--no-tls"], {})["tls"], False)
        self.assertIs(self.resolve([], {"RELAYD_TLS": "no"})["tls"], False)
        self.assertIs(self.resolve([], {}, site="tls = off\n")["tls"], False)

    def test_tls_back_on(self):
        self.assertIs(self.resolve(["--tls"], {"RELAYD_TLS": "no"})["tls"], True)
        self.assertIs(self.resolve([], {"RELAYD_TLS": "yes"}, site="tls = no\n")["tls"], True)

    def test_zero_in_every_layer(self):
        self.assertEqual(self.resolve(["--retries", "0"], {"RELAYD_RETRIES": "9"})["retries"], 0)
        self.assertEqual(self.resolve([], {"RELAYD_RETRIES": "0"}, site="retries = 9\n")["retries"], 0)
        self.assertEqual(self.resolve([], {}, site="retries = 0\n")["retries"], 0)

    def test_empty_text_in_every_layer(self):
        self.assertEqual(self.resolve(["--banner", ""], {"RELAYD_BANNER": "hello"})["banner"], "")
        self.assertEqual(self.resolve([], {"RELAYD_BANNER": ""})["banner"], "")
        self.assertEqual(self.resolve([], {}, site="banner =\n")["banner"], "")

    def test_what_no_layer_mentions_is_the_default(self):
        expected = {"host": "127.0.0.1", "port": 25, "tls": True, "retries": 3, "banner": "relayd ready"}
        self.assertEqual(self.resolve([], {"PORT": "1", "HOME": "/"}), expected)

    def test_from_the_shell(self):
        done = subprocess.run(
            [sys.executable, "-B", "-m", "relayd", "--port", "2525", "--no-tls"],
            cwd=TESTBED,
            env={**os.environ, "RELAYD_PORT": "587"},
            capture_output=True,
            text=True,
            timeout=30,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("port = 2525\n", done.stdout)
        self.assertIn("tls = False\n", done.stdout)


if __name__ == "__main__":
    unittest.main()
