"""POST /api/holds, GET and DELETE /api/holds/{hold_id}, POST /api/holds/{hold_id}/extension."""

from datetime import datetime

from falcon.asgi import Request, Response
from msgspec import UNSET, UnsetType

from api.buyer_identity import BuyerIdentity
from api.database.client import CheckoutClient
from api.database.functions import GetHoldsRow, PlaceHoldsRow
from api.problems import EXTENSION_REFUSED, HOLD_NOT_FOUND, REFUSALS, respond_refusal
from api.schemas import responses
from api.schemas.fields import MAX_HOLD_ID
from api.schemas.parameters import idempotency_key, parse_id
from api.schemas.requests import parse_extension, parse_new_hold, read_body
from api.schemas.responses import CREATED, NO_CONTENT, encode, instant, mark_replay

_TIMES = {"starts_at", "ends_at"}
"""members of refusals"""


class Holds:
    """Places holds."""

    def __init__(self, client: CheckoutClient, buyers: BuyerIdentity) -> None:
        self._place_holds = client.place_holds
        self._buyers = buyers

    async def on_post(self, req: Request, resp: Response) -> None:
        hold = parse_new_hold(await read_body(req))
        buyer = self._buyers.buyer_of(req, None if hold.buyer is UNSET else hold.buyer)
        row = await self._place_holds.submit(hold.product_id, hold.qty, idempotency_key(req), buyer)
        if row.sqlstate:
            return _refuse(resp, row)
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


class Extension:
    """The extension of a hold."""

    def __init__(self, client: CheckoutClient) -> None:
        self._extend_holds = client.extend_holds

    async def on_post(self, req: Request, resp: Response, hold_id: str) -> None:
        id_ = parse_id(hold_id, HOLD_NOT_FOUND, MAX_HOLD_ID)
        extension = parse_extension(await read_body(req))
        row = await self._extend_holds.submit(id_, extension.expires_at)
        if REFUSALS.get(row.sqlstate or "") is EXTENSION_REFUSED:
            return respond_refusal(resp, row, expires_at=instant(row.expires_at))
        if row.sqlstate:
            return respond_refusal(resp, row)
        mark_replay(resp, row.replayed)
        resp.data = encode(
            responses.Hold(row.hold_id, row.product_id, row.qty, row.status, instant(row.expires_at))
        )


def _refuse(resp: Response, row: PlaceHoldsRow) -> None:
    """Respond with the refusal of a hold, and with what it says beside its sentence."""
    members = row.members or {}
    retry_after = members.pop("retry_after", None)
    # As text in JSON, with the offset of the connection's time zone.
    times = {name: datetime.fromisoformat(members[name]) for name in members.keys() & _TIMES}
    respond_refusal(resp, row, **members | {name: instant(at) for name, at in times.items()})
    if retry_after is not None:
        resp.set_header("Retry-After", str(retry_after))


def _body(row: PlaceHoldsRow | GetHoldsRow) -> bytes:
    order: responses.OrderOfHold | UnsetType = UNSET
    if row.order_id is not None and row.order_status is not None:
        order = responses.OrderOfHold(row.order_id, row.order_status)
    return encode(
        responses.Hold(row.hold_id, row.product_id, row.qty, row.status, instant(row.expires_at), order)
    )
