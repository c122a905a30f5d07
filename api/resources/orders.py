"""POST /api/orders, GET and DELETE /api/orders/{order_id}."""

from falcon.asgi import Request, Response
from msgspec import UNSET

from api.database.client import CheckoutClient
from api.problems import ORDER_NOT_FOUND, Problem, respond_refusal
from api.schemas import responses
from api.schemas.fields import MAX_HOLD_ID
from api.schemas.parameters import idempotency_key, parse_id
from api.schemas.requests import parse_new_order, read_body
from api.schemas.responses import CREATED, NO_CONTENT, encode, instant, mark_replay, money

HOLD_ID_REQUIRED = (
    "The query parameter hold_id is required: the hold of the order, as the proof of ownership."
)


class Orders:
    """Creates orders from holds."""

    def __init__(self, client: CheckoutClient) -> None:
        self._create_orders = client.create_orders

    async def on_post(self, req: Request, resp: Response) -> None:
        order = parse_new_order(await read_body(req))
        row = await self._create_orders.submit(order.hold_id, idempotency_key(req))
        if row.sqlstate and row.order_id is None:
            return respond_refusal(resp, row)
        if row.sqlstate:
            return respond_refusal(resp, row, order_id=row.order_id, order_status=row.status)
        resp.status = CREATED
        mark_replay(resp, row.replayed)
        resp.data = encode(
            responses.CreatedOrder(
                row.order_id, row.status, money(row.amount), row.currency, instant(row.payment_due_at)
            )
        )


class Order:
    """One order; the request proves ownership by the id of its hold."""

    def __init__(self, client: CheckoutClient) -> None:
        self._get_orders = client.get_orders
        self._abandon_orders = client.abandon_orders

    async def on_get(self, req: Request, resp: Response, order_id: str) -> None:
        row = await self._get_orders.submit(*_ids(req, order_id))
        if row.sqlstate:
            return respond_refusal(resp, row)
        resp.data = encode(
            responses.Order(
                row.order_id,
                row.product_id,
                row.qty,
                row.status,
                money(row.amount),
                row.currency,
                instant(row.created_at),
                instant(row.payment_due_at),
                row.cancel_reason or UNSET,
            )
        )

    async def on_delete(self, req: Request, resp: Response, order_id: str) -> None:
        row = await self._abandon_orders.submit(*_ids(req, order_id))
        if row.sqlstate and row.order_id is not None:
            return respond_refusal(resp, row, order_status=row.status)
        if row.sqlstate:
            return respond_refusal(resp, row)
        resp.status = NO_CONTENT


def _ids(req: Request, order_id: str) -> tuple[int, int]:
    """The ids of an order and, from the query, of its hold."""
    given = req.get_param("hold_id")
    if given is None:
        raise Problem(ORDER_NOT_FOUND, HOLD_ID_REQUIRED)
    hold_id = parse_id(given, ORDER_NOT_FOUND, MAX_HOLD_ID)
    return parse_id(order_id, ORDER_NOT_FOUND), hold_id
