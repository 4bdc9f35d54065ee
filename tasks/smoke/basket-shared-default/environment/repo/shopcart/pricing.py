"""The price of a basket, with the shop's quantity discount."""

BULK_QUANTITY = 10
BULK_PERCENT_OFF = 10


def line_cents(line, catalog):
    """The price of a line; from ten pieces of one product, ten percent off, in favour of the customer."""
    full = catalog.price_cents(line.product) * line.quantity
    if line.quantity >= BULK_QUANTITY:
        return full * (100 - BULK_PERCENT_OFF) // 100
    return full


def total_cents(basket, catalog):
    return sum(line_cents(line, catalog) for line in basket.lines)
