import gzip
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

PROGRAM = Path(os.environ.get("TESTBED", "/testbed")) / "bin" / "log-archive"


class ArchiveCase(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        self.logs = self.root / "logs"
        self.archive = self.root / "archive"
        self.logs.mkdir()
        self.archive.mkdir()

    def run_program(self, *options, logs=None, archive=None):
        command = ["bash", str(PROGRAM), *options, str(logs or self.logs), str(archive or self.archive)]
        return subprocess.run(command, cwd=self.root, capture_output=True, text=True, timeout=30)

    def put_archives(self, *names):
        for name in names:
            (self.archive / name).write_bytes(gzip.compress(name.encode()))

    def archived(self):
        return sorted(path.name for path in self.archive.iterdir())


class NamesTest(ArchiveCase):
    def test_any_name_on_one_line(self):
        names = ["web server", "  two  leading blanks", "a*", "[x]", "app", "tab\there", "it's", "$HOME", "a\\b", "-k"]
        for name in names:
            (self.logs / f"{name}.log").write_text(f"of {name}")
        done = self.run_program("-d", "20240131")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.archived(), sorted(f"{name}-20240131.log.gz" for name in names))
        for name in names:
            content = gzip.decompress((self.archive / f"{name}-20240131.log.gz").read_bytes())
            self.assertEqual(content.decode(), f"of {name}")
        self.assertEqual(list(self.logs.iterdir()), [])

    def test_folders_with_blanks(self):
        logs = self.root / "my logs"
        logs.mkdir()
        (logs / "app.log").write_text("x")
        done = self.run_program("-d", "20240131", logs=logs, archive=self.root / "my archive")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue((self.root / "my archive" / "app-20240131.log.gz").exists())

    def test_old_archives_of_such_names_are_removed(self):
        for name in ("web server", "a*", "[x]", "a.b"):
            with self.subTest(name=name):
                for day in ("20240128", "20240129", "20240130", "20240131"):
                    (self.logs / f"{name}.log").write_text(day)
                    done = self.run_program("-k", "2", "-d", day)
                    self.assertEqual(done.returncode, 0, done.stderr)
                left = [found for found in self.archived() if found.startswith(f"{name}-")]
                self.assertEqual(left, [f"{name}-20240130.log.gz", f"{name}-20240131.log.gz"])


class NeighboursTest(ArchiveCase):
    def test_a_longer_name_is_not_counted(self):
        self.put_archives("app-20240129.log.gz", "app-20240130.log.gz", "app-worker-20240101.log.gz")
        (self.logs / "app.log").write_text("x")
        done = self.run_program("-k", "2", "-d", "20240131")
        self.assertEqual(done.stdout, "archived app-20240131.log.gz\nremoved app-20240129.log.gz\n")
        self.assertEqual(
            self.archived(), ["app-20240130.log.gz", "app-20240131.log.gz", "app-worker-20240101.log.gz"]
        )

    def test_a_longer_name_is_not_removed(self):
        kept = ["app-2-20230101.log.gz", "app-Api-20230101.log.gz", "app-20230101-20230101.log.gz"]
        self.put_archives(*kept, "app-20240130.log.gz")
        (self.logs / "app.log").write_text("x")
        self.assertEqual(self.run_program("-k", "1", "-d", "20240131").returncode, 0)
        self.assertEqual(self.archived(), sorted([*kept, "app-20240131.log.gz"]))

    def test_a_name_is_no_pattern(self):
        kept = ["v1x2-20230101.log.gz", "web-20230101.log.gz", "x-20230101.log.gz"]
        self.put_archives(*kept)
        for name in ("v1.2", "w*", "[x]"):
            (self.logs / f"{name}.log").write_text("x")
        self.assertEqual(self.run_program("-k", "1", "-d", "20240131").returncode, 0)
        for name in kept:
            self.assertIn(name, self.archived())

    def test_other_files_are_left_alone(self):
        kept = ["app-old.log.gz", "app-20230101.log", "app-20230101.log.gz.txt", "app-2023.log.gz", "notes.txt"]
        self.put_archives(*kept)
        (self.logs / "app.log").write_text("x")
        self.assertEqual(self.run_program("-k", "1", "-d", "20240131").returncode, 0)
        self.assertEqual(self.archived(), sorted([*kept, "app-20240131.log.gz"]))


class KeptBehaviourTest(ArchiveCase):
    def test_latest_by_stamp_are_kept(self):
        self.put_archives("app-20240101.log.gz", "app-20231231.log.gz", "app-20240201.log.gz")
        (self.logs / "app.log").write_text("x")
        self.run_program("-k", "3", "-d", "20240131")
        self.assertEqual(
            self.archived(), ["app-20240101.log.gz", "app-20240131.log.gz", "app-20240201.log.gz"]
        )

    def test_only_logs_of_the_folder_itself(self):
        (self.logs / "notes.txt").write_text("x")
        (self.logs / "deeper").mkdir()
        (self.logs / "deeper" / "app.log").write_text("x")
        done = self.run_program("-d", "20240131")
        self.assertEqual((done.returncode, done.stdout, self.archived()), (0, "", []))

    def test_a_log_that_cannot_be_archived_stays(self):
        (self.logs / "app.log").write_text("x")
        (self.logs / "web.log").write_text("x")
        (self.archive / "app-20240131.log.gz.part").mkdir()
        done = self.run_program("-d", "20240131")
        self.assertEqual(done.returncode, 1)
        self.assertTrue((self.logs / "app.log").exists())
        self.assertTrue((self.archive / "web-20240131.log.gz").exists())

    def test_wrong_arguments(self):
        self.assertEqual(self.run_program("-k", "0").returncode, 2)
        self.assertEqual(self.run_program("-d", "today").returncode, 2)
        self.assertEqual(self.run_program(logs=self.root / "nowhere").returncode, 2)


if __name__ == "__main__":
    unittest.main()
