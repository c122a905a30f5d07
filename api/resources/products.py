"""GET /api/products and /api/products/{id}."""

from falcon.asgi import Request, Response

from api.database.client import CheckoutClient
from api.database.functions import GetProductsRow, ListProductsRow
from api.problems import PRODUCT_NOT_FOUND, respond_refusal
from api.schemas import responses
from api.schemas.fields import MAX_BIGINT
from api.schemas.parameters import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, integer_parameter, parse_id
from api.schemas.responses import encode, instant, money, optional_instant


class Products:
    """All products by ascending id, in pages."""

    def __init__(self, client: CheckoutClient) -> None:
        self._client = client

    async def on_get(self, req: Request, resp: Response) -> None:
        after = integer_parameter(req, "after", default=0, minimum=0, maximum=MAX_BIGINT)
        limit = integer_parameter(req, "limit", default=DEFAULT_PAGE_SIZE, minimum=1, maximum=MAX_PAGE_SIZE)
        rows = await self._client.list_products(after, limit)
        if len(rows) == limit:
            resp.set_header("Link", f'</api/products?after={rows[-1].id}&limit={limit}>; rel="next"')
        resp.data = encode([_product(row) for row in rows])


class Product:
    """One product; its available stock is not older than the request."""

    def __init__(self, client: CheckoutClient) -> None:
        self._get_products = client.get_products

    async def on_get(self, req: Request, resp: Response, product_id: str) -> None:
        row = await self._get_products.submit(parse_id(product_id, PRODUCT_NOT_FOUND))
        if row.sqlstate:
            return respond_refusal(resp, row)
        resp.data = encode(_product(row))


def _product(row: ListProductsRow | GetProductsRow) -> responses.Product:
    return responses.Product(
        row.id,
        row.name,
        money(row.price),
        row.currency,
        row.total_stock,
        row.available_stock,
        row.sale_status,
        optional_instant(row.starts_at),
        optional_instant(row.ends_at),
        row.max_per_buyer,
        instant(row.now),
    )
