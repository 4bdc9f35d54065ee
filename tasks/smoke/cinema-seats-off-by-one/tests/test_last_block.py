import os
import sys
import unittest

sys.path.append(os.environ.get("TESTBED", "/testbed"))

from boxoffice import Hall, best_seats, find_adjacent, load_hall


class LastBlockTest(unittest.TestCase):
    def test_pair_at_the_end(self):
        hall = load_hall("red")
        hall.book("A", [1, 2])
        self.assertEqual(find_adjacent(hall, "A", 2), [3, 4])

    def test_whole_row(self):
        self.assertEqual(find_adjacent(load_hall("red"), "B", 4), [1, 2, 3, 4])
        self.assertEqual(find_adjacent(load_hall("blue"), "A", 6), [1, 2, 3, 4, 5, 6])

    def test_very_last_seat(self):
        hall = load_hall("blue")
        hall.book("B", range(1, 8))
        self.assertEqual(find_adjacent(hall, "B", 1), [8])

    def test_every_block_is_found_in_rows_of_every_size(self):
        for seats in range(1, 10):
            for count in range(1, seats + 1):
                hall = Hall("test", [["A", seats]])
                hall.book("A", range(1, seats - count + 1))
                with self.subTest(seats=seats, count=count):
                    self.assertEqual(find_adjacent(hall, "A", count), list(range(seats - count + 1, seats + 1)))

    def test_best_seats_uses_the_end_of_the_back_row(self):
        hall = load_hall("red")
        hall.book("B", [1, 2])
        self.assertEqual(best_seats(hall, 2), ("B", [3, 4]))


class KeptBehaviourTest(unittest.TestCase):
    def test_leftmost_block_first(self):
        self.assertEqual(find_adjacent(load_hall("blue"), "B", 3), [1, 2, 3])

    def test_no_block_reaches_beyond_the_row(self):
        hall = load_hall("red")
        self.assertIsNone(find_adjacent(hall, "A", 5))
        hall.book("A", [1, 2, 3])
        self.assertIsNone(find_adjacent(hall, "A", 2))

    def test_full_row_and_bad_count(self):
        hall = load_hall("red")
        hall.book("A", [1, 2, 3, 4])
        self.assertIsNone(find_adjacent(hall, "A", 1))
        with self.assertRaises(ValueError):
            find_adjacent(hall, "B", 0)


if __name__ == "__main__":
    unittest.main()
