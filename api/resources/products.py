"""GET /api/products and /api/products/{id}."""

from falcon.asgi import Request, Response

from api.database.client import Checkout
from api.problems import PRODUCT_NOT_FOUND, refuse
from api.schemas.requests import MAX_BIGINT, id_from_path, whole_number
from api.schemas.responses import encode, product

PAGE = 100
"""products on a page, unless the request says otherwise"""
LONGEST_PAGE = 1000


class Products:
    """The list, by ascending id, in pages."""

    def __init__(self, checkout: Checkout) -> None:
        self._checkout = checkout

    async def on_get(self, req: Request, resp: Response) -> None:
        after = whole_number(req, "after", default=0, least=0, most=MAX_BIGINT)
        limit = whole_number(req, "limit", default=PAGE, least=1, most=LONGEST_PAGE)
        rows = await self._checkout.list_products(after, limit)
        if len(rows) == limit:
            resp.set_header("Link", f'</api/products?after={rows[-1][0]}&limit={limit}>; rel="next"')
        resp.data = encode([product(row) for row in rows])


class Product:
    """One product with the stock that is available, at an instant after the request came."""

    def __init__(self, checkout: Checkout) -> None:
        self._get_products = checkout.get_products

    async def on_get(self, req: Request, resp: Response, product_id: str) -> None:
        row = await self._get_products.ask(id_from_path(product_id, PRODUCT_NOT_FOUND))
        if row[1]:
            return refuse(resp, row)
        resp.data = encode(product(row[3:]))
