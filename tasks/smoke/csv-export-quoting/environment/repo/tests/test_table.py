import unittest

from contacts.table import BadTable, from_csv, to_csv

ANA = {"name": "Ana Reis", "email": "ana@example.org", "phone": "+351 21 555 010", "note": "met in Lisbon"}


class TableTest(unittest.TestCase):
    def test_export(self):
        self.assertEqual(
            to_csv([ANA]),
            "name,email,phone,note\nAna Reis,ana@example.org,+351 21 555 010,met in Lisbon\n",
        )

    def test_import(self):
        self.assertEqual(from_csv(to_csv([ANA])), [ANA])

    def test_empty_lines_are_skipped(self):
        self.assertEqual(from_csv("name,email,phone,note\n\nA,b,c,d\n\n")[0]["name"], "A")

    def test_wrong_header(self):
        with self.assertRaises(BadTable):
            from_csv("name,mail\n")

    def test_missing_value_names_the_line(self):
        with self.assertRaisesRegex(BadTable, "line 2"):
            from_csv("name,email,phone,note\nA,b\n")


if __name__ == "__main__":
    unittest.main()
