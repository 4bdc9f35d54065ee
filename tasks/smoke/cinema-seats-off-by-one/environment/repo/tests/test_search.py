import unittest

from boxoffice import AlreadyBooked, best_seats, find_adjacent, load_hall


class SearchTest(unittest.TestCase):
    def test_leftmost_block(self):
        hall = load_hall("blue")
        hall.book("A", [1, 2])
        self.assertEqual(find_adjacent(hall, "A", 3), [3, 4, 5])

    def test_gap_that_is_too_small_is_passed_over(self):
        hall = load_hall("blue")
        hall.book("B", [3])
        self.assertEqual(find_adjacent(hall, "B", 3), [4, 5, 6])

    def test_full_row(self):
        hall = load_hall("red")
        hall.book("A", [1, 2, 3, 4])
        self.assertIsNone(find_adjacent(hall, "A", 1))

    def test_best_seats_are_at_the_back(self):
        self.assertEqual(best_seats(load_hall("blue"), 2), ("C", [1, 2]))


class BookingTest(unittest.TestCase):
    def test_a_seat_is_sold_once(self):
        hall = load_hall("red")
        hall.book("A", [2])
        with self.assertRaises(AlreadyBooked):
            hall.book("A", [1, 2])
        self.assertTrue(hall.is_free("A", 1))


if __name__ == "__main__":
    unittest.main()
