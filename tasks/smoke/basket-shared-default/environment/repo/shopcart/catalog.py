"""What the shop sells, and for how much."""


class UnknownProduct(KeyError):
    """The catalogue has no product of that name."""


class Catalog:
    def __init__(self, prices):
        self._prices = dict(prices)

    def price_cents(self, product):
        try:
            return self._prices[product]
        except KeyError:
            raise UnknownProduct(product) from None

    def __contains__(self, product):
        return product in self._prices
