from boxoffice.halls import AlreadyBooked, Hall, load_hall
from boxoffice.search import best_seats, find_adjacent

__all__ = ["AlreadyBooked", "Hall", "best_seats", "find_adjacent", "load_hall"]
