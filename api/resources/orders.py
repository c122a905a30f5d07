"""POST /api/orders and GET /api/orders/{order_id}."""

from falcon.asgi import Request, Response

from api.database.client import Checkout
from api.problems import ORDER_NOT_FOUND, refuse
from api.schemas import requests as bodies
from api.schemas.requests import MAX_HOLD_ID, id_from_path, idempotency_key
from api.schemas.responses import CREATED, UNSET, CreatedOrder, encode, instant, mark_replay, money
from api.schemas.responses import Order as OrderAnswer


class Orders:
    """Where a hold becomes an order."""

    def __init__(self, checkout: Checkout) -> None:
        self._create_orders = checkout.create_orders

    async def on_post(self, req: Request, resp: Response) -> None:
        wanted = bodies.new_order(await bodies.read(req))
        row = await self._create_orders.ask(wanted.hold_id, idempotency_key(req))
        _, sqlstate, _, replayed, order_id, status, amount, currency, payment_due_at = row
        if sqlstate and order_id is None:
            return refuse(resp, row)
        if sqlstate:
            return refuse(resp, row, order_id=order_id, order_status=status)
        resp.status = CREATED
        mark_replay(resp, replayed)
        resp.data = encode(CreatedOrder(order_id, status, money(amount), currency, instant(payment_due_at)))


class Order:
    """One order, for whoever knows the hold it was made of."""

    def __init__(self, checkout: Checkout) -> None:
        self._get_orders = checkout.get_orders

    async def on_get(self, req: Request, resp: Response, order_id: str) -> None:
        hold_id = id_from_path(req.get_param("hold_id") or "", ORDER_NOT_FOUND, MAX_HOLD_ID)
        row = await self._get_orders.ask(id_from_path(order_id, ORDER_NOT_FOUND), hold_id)
        if row[1]:
            return refuse(resp, row)
        _, _, _, order, product_id, qty, status, reason, amount, currency, created_at, due_at = row
        resp.data = encode(
            OrderAnswer(
                order,
                product_id,
                qty,
                status,
                money(amount),
                currency,
                instant(created_at),
                instant(due_at),
                reason or UNSET,
            )
        )
