import unittest
from pathlib import Path

from quizboard.standings import standings, winner
from quizboard.teams import Team, load

EVENING = Path(__file__).resolve().parent.parent / "data" / "evening.json"


class StandingsTest(unittest.TestCase):
    def test_more_points_first(self):
        table = standings(load(EVENING))
        self.assertEqual(
            [(rank, team.name) for rank, team in table],
            [(1, "Agatha Quiztie"), (2, "Quizzly Bears"), (3, "The Red Herrings")],
        )

    def test_equal_points_share_a_rank(self):
        table = standings([Team("A", 5, 10), Team("B", 5, 20)])
        self.assertEqual([rank for rank, _ in table], [1, 1])

    def test_winner(self):
        self.assertEqual(winner(load(EVENING)).name, "Agatha Quiztie")
        self.assertIsNone(winner([]))


if __name__ == "__main__":
    unittest.main()
