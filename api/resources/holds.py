"""POST /api/holds, GET and DELETE /api/holds/{hold_id}."""

from datetime import datetime

from falcon.asgi import Request, Response

from api.database.client import Checkout
from api.problems import HOLD_NOT_FOUND, refuse
from api.schemas import requests as bodies
from api.schemas.requests import MAX_HOLD_ID, id_from_path, idempotency_key
from api.schemas.responses import CREATED, NO_CONTENT, UNSET, OrderOfHold, encode, instant, mark_replay
from api.schemas.responses import Hold as HoldAnswer


class Holds:
    """Where holds are placed."""

    def __init__(self, checkout: Checkout) -> None:
        self._place_holds = checkout.place_holds

    async def on_post(self, req: Request, resp: Response) -> None:
        wanted = bodies.new_hold(await bodies.read(req))
        row = await self._place_holds.ask(wanted.product_id, wanted.qty, idempotency_key(req))
        if row[1]:
            return refuse(resp, row)
        _, _, _, replayed, hold_id, product_id, qty, status, expires_at, order_id, order_status = row
        resp.status = CREATED
        resp.set_header("Location", f"/api/holds/{hold_id}")
        mark_replay(resp, replayed)
        resp.data = _hold(hold_id, product_id, qty, status, expires_at, order_id, order_status)


class Hold:
    """One hold, for whoever knows its id."""

    def __init__(self, checkout: Checkout) -> None:
        self._get_holds = checkout.get_holds
        self._release_holds = checkout.release_holds

    async def on_get(self, req: Request, resp: Response, hold_id: str) -> None:
        row = await self._get_holds.ask(id_from_path(hold_id, HOLD_NOT_FOUND, MAX_HOLD_ID))
        if row[1]:
            return refuse(resp, row)
        _, _, _, hold, product_id, qty, status, expires_at, order_id, order_status = row
        resp.data = _hold(hold, product_id, qty, status, expires_at, order_id, order_status)

    async def on_delete(self, req: Request, resp: Response, hold_id: str) -> None:
        row = await self._release_holds.ask(id_from_path(hold_id, HOLD_NOT_FOUND, MAX_HOLD_ID))
        if row[1]:
            return refuse(resp, row)
        resp.status = NO_CONTENT


def _hold(
    hold_id: int,
    product_id: int,
    qty: int,
    status: str,
    expires_at: datetime,
    order_id: int | None,
    order_status: str | None,
) -> bytes:
    order = OrderOfHold(order_id, order_status) if order_id is not None else UNSET
    return encode(HoldAnswer(hold_id, product_id, qty, status, instant(expires_at), order))
