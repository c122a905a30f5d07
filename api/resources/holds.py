"""POST /api/holds, GET and DELETE /api/holds/{hold_id}."""

from falcon.asgi import Request, Response
from msgspec import UNSET, UnsetType

from api.database.client import CheckoutClient
from api.database.functions import GetHoldsRow, PlaceHoldsRow
from api.problems import HOLD_NOT_FOUND, respond_refusal
from api.schemas import responses
from api.schemas.fields import MAX_HOLD_ID
from api.schemas.parameters import idempotency_key, parse_id
from api.schemas.requests import parse_new_hold, read_body
from api.schemas.responses import CREATED, NO_CONTENT, encode, instant, mark_replay


class Holds:
    """Places holds."""

    def __init__(self, client: CheckoutClient) -> None:
        self._place_holds = client.place_holds

    async def on_post(self, req: Request, resp: Response) -> None:
        hold = parse_new_hold(await read_body(req))
        row = await self._place_holds.submit(hold.product_id, hold.qty, idempotency_key(req))
        if row.sqlstate:
            return respond_refusal(resp, row)
        resp.status = CREATED
        resp.set_header("Location", f"/api/holds/{row.hold_id}")
        mark_replay(resp, row.replayed)
        resp.data = _body(row)


class Hold:
    """One hold."""

    def __init__(self, client: CheckoutClient) -> None:
        self._get_holds = client.get_holds
        self._release_holds = client.release_holds

    async def on_get(self, req: Request, resp: Response, hold_id: str) -> None:
        row = await self._get_holds.submit(parse_id(hold_id, HOLD_NOT_FOUND, MAX_HOLD_ID))
        if row.sqlstate:
            return respond_refusal(resp, row)
        resp.data = _body(row)

    async def on_delete(self, req: Request, resp: Response, hold_id: str) -> None:
        row = await self._release_holds.submit(parse_id(hold_id, HOLD_NOT_FOUND, MAX_HOLD_ID))
        if row.sqlstate:
            return respond_refusal(resp, row)
        resp.status = NO_CONTENT


def _body(row: PlaceHoldsRow | GetHoldsRow) -> bytes:
    order: responses.OrderOfHold | UnsetType = UNSET
    if row.order_id is not None and row.order_status is not None:
        order = responses.OrderOfHold(row.order_id, row.order_status)
    return encode(
        responses.Hold(row.hold_id, row.product_id, row.qty, row.status, instant(row.expires_at), order)
    )
