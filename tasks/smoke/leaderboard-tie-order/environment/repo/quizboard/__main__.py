import argparse

from quizboard.standings import standings
from quizboard.teams import load

parser = argparse.ArgumentParser(prog="quizboard")
parser.add_argument("file")
parser.add_argument("--top", type=int)
args = parser.parse_args()

for rank, team in standings(load(args.file))[: args.top]:
    print(f"{rank:>3}. {team.name:<24}{team.points:>4} points  {team.finished:>3} min")
