"""Who is where."""


def order(teams):
    """The teams from first to last."""
    return sorted(teams, key=lambda team: (team.points, team.finished, team.name), reverse=True)


def standings(teams):
    """[(rank, team)] from first to last."""
    table = []
    rank = 0
    previous = None
    for team in order(teams):
        if previous is None or team.points != previous.points:
            rank += 1
        table.append((rank, team))
        previous = team
    return table


def winner(teams):
    """The team at the top of the table, or None on an evening without teams."""
    table = standings(teams)
    return table[0][1] if table else None
