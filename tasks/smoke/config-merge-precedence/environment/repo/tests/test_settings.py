import tempfile
import unittest
from pathlib import Path

from relayd import resolve


class ResolveTest(unittest.TestCase):
    def test_defaults(self):
        settings = resolve([], {})
        self.assertEqual(settings["port"], 25)
        self.assertIs(settings["tls"], True)

    def test_site_file_over_defaults(self):
        with tempfile.TemporaryDirectory() as folder:
            site = Path(folder) / "site.ini"
            site.write_text("[relayd]\nport = 587\n", encoding="utf-8")
            settings = resolve(["--config", str(site)], {})
        self.assertEqual(settings["port"], 587)
        self.assertEqual(settings["retries"], 3)

    def test_environment_over_defaults(self):
        self.assertEqual(resolve([], {"RELAYD_HOST": "0.0.0.0", "HOME": "/"})["host"], "0.0.0.0")

    def test_flag_over_defaults(self):
        self.assertEqual(resolve(["--port", "2525"], {})["port"], 2525)

    def test_bad_switch(self):
        with self.assertRaises(ValueError):
            resolve([], {"RELAYD_TLS": "perhaps"})


if __name__ == "__main__":
    unittest.main()
