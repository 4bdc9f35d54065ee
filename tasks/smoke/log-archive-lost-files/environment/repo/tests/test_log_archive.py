import gzip
import subprocess
import tempfile
import unittest
from pathlib import Path

PROGRAM = Path(__file__).resolve().parent.parent / "bin" / "log-archive"


class LogArchiveTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.logs = Path(folder.name) / "logs"
        self.archive = Path(folder.name) / "archive"
        self.logs.mkdir()

    def run_program(self, *options):
        command = ["bash", str(PROGRAM), *options, str(self.logs), str(self.archive)]
        return subprocess.run(command, capture_output=True, text=True, timeout=30)

    def test_a_log_is_moved(self):
        (self.logs / "app.log").write_text("hello\n")
        done = self.run_program("-d", "20240131")
        self.assertEqual((done.returncode, done.stdout), (0, "archived app-20240131.log.gz\n"))
        self.assertEqual(gzip.decompress((self.archive / "app-20240131.log.gz").read_bytes()), b"hello\n")
        self.assertEqual(list(self.logs.iterdir()), [])

    def test_old_archives_are_removed(self):
        for day in ("20240128", "20240129", "20240130", "20240131"):
            (self.logs / "app.log").write_text(day)
            done = self.run_program("-k", "2", "-d", day)
        self.assertIn("removed app-20240129.log.gz\n", done.stdout)
        left = sorted(path.name for path in self.archive.iterdir())
        self.assertEqual(left, ["app-20240130.log.gz", "app-20240131.log.gz"])

    def test_no_logs(self):
        self.assertEqual(self.run_program().returncode, 0)

    def test_wrong_arguments(self):
        self.assertEqual(self.run_program("-k", "none").returncode, 2)


if __name__ == "__main__":
    unittest.main()
