"""What one customer is about to buy."""

from dataclasses import dataclass


@dataclass
class Line:
    product: str
    quantity: int


class Basket:
    """The lines of one customer, one line for each product, in the order of adding."""

    def __init__(self, customer, lines=[]):
        self.customer = customer
        self.lines = lines

    def add(self, product, quantity=1):
        if quantity < 1:
            raise ValueError(f"quantity must be at least 1, not {quantity}")
        for line in self.lines:
            if line.product == product:
                line.quantity += quantity
                return
        self.lines.append(Line(product, quantity))

    def remove(self, product):
        self.lines[:] = [line for line in self.lines if line.product != product]

    def clear(self):
        self.lines.clear()

    def __len__(self):
        return sum(line.quantity for line in self.lines)
