import csv
import io
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

TESTBED = os.environ.get("TESTBED", "/testbed")
sys.path.append(TESTBED)

from contacts.table import BadTable, from_csv, to_csv

HEADER = "name,email,phone,note\n"


def person(name="Ana", email="ana@example.org", phone="", note=""):
    return {"name": name, "email": email, "phone": phone, "note": note}


AWKWARD = [
    person(name="Reis, Ana"),
    person(note='says "olá"'),
    person(note="first line\nsecond line\n\nfourth line"),
    person(name='"Ana", she said', note=',",\n"'),
    person(name="Jörg Weiß", note="naïve, 東京"),
    person(name='"quoted"'),
]


class RoundTripTest(unittest.TestCase):
    def test_each_awkward_contact_comes_back(self):
        for one in AWKWARD:
            with self.subTest(one=one):
                self.assertEqual(from_csv(to_csv([one])), [one])

    def test_all_of_them_together(self):
        self.assertEqual(from_csv(to_csv(AWKWARD)), AWKWARD)

    def test_other_programs_can_read_the_export(self):
        rows = list(csv.reader(io.StringIO(to_csv(AWKWARD), newline="")))
        self.assertEqual(rows[0], ["name", "email", "phone", "note"])
        self.assertEqual(rows[1:], [list(one.values()) for one in AWKWARD])

    def test_import_of_a_spreadsheet_file(self):
        text = 'name,email,phone,note\r\n"Reis, Ana",ana@example.org,,"says ""olá"""\r\n"Bo",b@example.org,1,\r\n'
        self.assertEqual(
            from_csv(text),
            [person(name="Reis, Ana", note='says "olá"'), person(name="Bo", email="b@example.org", phone="1")],
        )

    def test_command_line(self):
        with tempfile.TemporaryDirectory() as folder:
            book, table, again = (str(Path(folder) / name) for name in ("book.json", "people.csv", "again.json"))
            Path(book).write_text(json.dumps(AWKWARD), encoding="utf-8")
            for arguments in (["export", book, table], ["import", table, again]):
                done = subprocess.run(
                    [sys.executable, "-B", "-m", "contacts", *arguments],
                    cwd=TESTBED,
                    capture_output=True,
                    text=True,
                    timeout=30,
                )
                self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(json.loads(Path(again).read_text(encoding="utf-8")), AWKWARD)


class KeptBehaviourTest(unittest.TestCase):
    def test_plain_contacts_are_written_as_before(self):
        text = to_csv([person(note="met in Lisbon"), person(name="Jörg Weiß", phone="+49 30 1")])
        self.assertEqual(
            text, HEADER + "Ana,ana@example.org,,met in Lisbon\nJörg Weiß,ana@example.org,+49 30 1,\n"
        )

    def test_empty_lines_are_skipped(self):
        self.assertEqual(from_csv(HEADER + "\nA,b,c,d\n\n"), [person("A", "b", "c", "d")])

    def test_wrong_header(self):
        for text in ("name,mail\n", "", "A,b,c,d\n"):
            with self.subTest(text=text), self.assertRaises(BadTable):
                from_csv(text)

    def test_wrong_number_of_values_names_the_line(self):
        with self.assertRaisesRegex(BadTable, "line 3"):
            from_csv(HEADER + "A,b,c,d\nA,b\n")
        with self.assertRaisesRegex(BadTable, "line 2: expected 4 values, found 5"):
            from_csv(HEADER + "A,b,c,d,e\n")


if __name__ == "__main__":
    unittest.main()
