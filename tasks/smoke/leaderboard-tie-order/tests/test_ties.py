import itertools
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

TESTBED = os.environ.get("TESTBED", "/testbed")
sys.path.append(TESTBED)

from quizboard.standings import order, standings, winner
from quizboard.teams import Team

EVENING = [
    Team("Let's Get Quizzical", 36, 44),
    Team("Agatha Quiztie", 36, 58),
    Team("Red Herrings", 24, 50),
    Team("zebra crossing", 24, 50),
    Team("Late Entry", 10, 60),
]


def ranks(*points):
    return [rank for rank, _ in standings([Team(f"t{i:02d}", p, 0) for i, p in enumerate(points)])]


class OrderTest(unittest.TestCase):
    def test_the_same_table_whatever_the_order_of_entry(self):
        for teams in itertools.permutations(EVENING):
            self.assertEqual(order(teams), EVENING)

    def test_earlier_finish_wins_a_tie(self):
        slow, fast = Team("A", 5, 30), Team("B", 5, 9)
        self.assertEqual(order([slow, fast]), [fast, slow])
        self.assertEqual(winner([slow, fast]), fast)

    def test_points_count_before_time(self):
        self.assertEqual(winner([Team("A", 5, 1), Team("B", 6, 90)]).name, "B")

    def test_names_from_a_to_z_regardless_of_capitals(self):
        teams = [Team(name, 5, 10) for name in ("Zulu", "alpha", "Mike", "bravo", "Charlie")]
        self.assertEqual([team.name for team in order(teams)], ["alpha", "bravo", "Charlie", "Mike", "Zulu"])


class RankTest(unittest.TestCase):
    def test_ranks_are_skipped_after_a_tie(self):
        self.assertEqual(ranks(9, 8, 8, 7), [1, 2, 2, 4])
        self.assertEqual(ranks(9, 9, 9, 1, 1, 0), [1, 1, 1, 4, 4, 6])

    def test_without_ties(self):
        self.assertEqual(ranks(3, 2, 1), [1, 2, 3])
        self.assertEqual(ranks(), [])

    def test_all_equal_and_no_points_at_all(self):
        self.assertEqual(ranks(0, 0, 0), [1, 1, 1])

    def test_time_does_not_part_a_shared_rank(self):
        self.assertEqual([rank for rank, _ in standings(EVENING)], [1, 1, 3, 3, 5])


class CommandTest(unittest.TestCase):
    def test_board_of_the_evening(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "evening.json"
            path.write_text(json.dumps([vars(team) for team in reversed(EVENING)]), encoding="utf-8")
            done = subprocess.run(
                [sys.executable, "-B", "-m", "quizboard", str(path), "--top", "3"],
                cwd=TESTBED,
                capture_output=True,
                text=True,
                timeout=30,
            )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(
            done.stdout.splitlines(),
            [
                "  1. Let's Get Quizzical       36 points   44 min",
                "  1. Agatha Quiztie            36 points   58 min",
                "  3. Red Herrings              24 points   50 min",
            ],
        )


if __name__ == "__main__":
    unittest.main()
