from shopcart.basket import Basket, Line
from shopcart.catalog import Catalog, UnknownProduct
from shopcart.pricing import total_cents

__all__ = ["Basket", "Catalog", "Line", "UnknownProduct", "total_cents"]
