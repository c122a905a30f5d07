"""Extension members of problems (RFC 9457, 3.2)."""

from collections.abc import Mapping
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from api import problems
from api.schemas import fields
from api.schemas.fields import OrderId


class HoldAlreadyUsedMembers(Struct):
    """Members of hold_already_used in response to POST /api/orders: the existing order."""

    order_id: OrderId
    order_status: fields.OrderStatus


class SaleNotStartedMembers(Struct):
    """Members of sale_not_started."""

    starts_at: fields.Instant


class SaleEndedMembers(Struct):
    """Members of sale_ended."""

    ends_at: fields.Instant


class LimitReachedMembers(Struct):
    """Members of limit_reached: the limit of a buyer, or of one hold."""

    limit: fields.Quantity
    taken: fields.Units
    remaining: fields.Units


class ExtensionRefusedMembers(Struct):
    """Members of extension_refused: when the hold expires."""

    expires_at: fields.Instant


class OrderSettledMembers(Struct):
    """Members of order_settled."""

    order_status: fields.OrderStatus


class NotReadyMembers(Struct):
    """Members of not_ready."""

    database: Literal["reachable", "unreachable"]
    schema: Literal["outdated", "current"] | UnsetType = UNSET
    schema_version: str | UnsetType = UNSET
    schema_digest: str | UnsetType = UNSET
    scheduler: str | UnsetType = UNSET
    scheduler_detail: str | UnsetType = UNSET


MEMBERS: Mapping[str, type[Struct]] = {
    problems.EXTENSION_REFUSED.code: ExtensionRefusedMembers,
    problems.HOLD_ALREADY_USED.code: HoldAlreadyUsedMembers,
    problems.LIMIT_REACHED.code: LimitReachedMembers,
    problems.NOT_READY.code: NotReadyMembers,
    problems.ORDER_SETTLED.code: OrderSettledMembers,
    problems.SALE_ENDED.code: SaleEndedMembers,
    problems.SALE_NOT_STARTED.code: SaleNotStartedMembers,
}
"""by the problem's code"""
