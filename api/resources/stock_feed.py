"""GET /api/products/{id}/live: a product's stock as Server-Sent Events (HTML Standard, section 9.2)."""

from falcon.asgi import Request, Response

from api.context import ON_DISCONNECT
from api.database.client import CheckoutClient
from api.problems import PRODUCT_NOT_FOUND, respond_refusal
from api.schemas.parameters import parse_id
from api.stock_feed import StockFeed, Subscriber


class StockEvents:
    """The stream of one product."""

    def __init__(self, client: CheckoutClient, feed: StockFeed) -> None:
        self._get_products = client.get_products
        self._feed = feed

    async def on_get(self, req: Request, resp: Response, product_id: str) -> None:
        id_ = parse_id(product_id, PRODUCT_NOT_FOUND)
        self._feed.check_capacity()
        row = await self._get_products.submit(id_)
        if row.sqlstate:
            return respond_refusal(resp, row)
        resp.content_type = "text/event-stream"
        resp.set_header("X-Accel-Buffering", "no")  # nginx would delay events until they fill a buffer
        subscriber = Subscriber()
        req.scope.get("state", {})[ON_DISCONNECT] = subscriber.close
        resp.sse = self._feed.events(id_, subscriber, _last_event_id(req))


def _last_event_id(req: Request) -> int:
    text = req.get_header("Last-Event-ID") or ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else 0
