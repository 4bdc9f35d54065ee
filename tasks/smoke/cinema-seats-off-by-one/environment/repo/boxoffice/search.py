"""Looking for seats that are next to each other."""


def find_adjacent(hall, row, count):
    """The leftmost `count` free seats side by side in the row, as a list of numbers, or None."""
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    seats = hall.seats_in_row[row]
    for first in range(1, seats - count + 1):
        block = list(range(first, first + count))
        if all(hall.is_free(row, number) for number in block):
            return block
    return None


def best_seats(hall, count):
    """(row, numbers) of a free block in the rearmost row that has one, or None."""
    for row in reversed(hall.rows):
        block = find_adjacent(hall, row, count)
        if block is not None:
            return row, block
    return None
