"""Response bodies: their shapes, and the formats of money and time.

The annotations are documentation in /openapi.json; they are not checked here.
"""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

import msgspec
from falcon.asgi import Response
from msgspec import UNSET, Meta, UnsetType

from api.context import REQUEST
from api.schemas.fields import (
    CancelReason,
    Currency,
    HoldId,
    HoldStatus,
    Instant,
    Money,
    OrderId,
    OrderStatus,
    ProductId,
    Quantity,
    SaleStatus,
    Units,
)

encode = msgspec.json.Encoder().encode

CREATED = "201 Created"
ACCEPTED = "202 Accepted"
NO_CONTENT = "204 No Content"


class Product(msgspec.Struct):
    """A product on sale."""

    id: ProductId
    name: str
    price: Annotated[Money, Meta(description="Price of one unit, with the decimals of its currency.")]
    currency: Currency
    total_stock: Annotated[Units, Meta(description="All units of the product, sold ones included.")]
    available_stock: Annotated[
        Units, Meta(description="Units that a hold can take at the instant of the response.")
    ]
    sale_status: SaleStatus
    starts_at: Annotated[Instant | None, Meta(description="When the sale starts; null: it has started.")]
    ends_at: Annotated[Instant | None, Meta(description="When the sale ends; null: it is open-ended.")]
    max_per_buyer: Annotated[
        Quantity | None, Meta(description="Units that one buyer can have; null: no limit.")
    ]
    now: Annotated[Instant, Meta(description="The database's clock, by which the sale starts and ends.")]


class Allowance(msgspec.Struct):
    """How many units of a product a buyer may have, and has. All null: there is no limit."""

    max_per_buyer: Quantity | None
    taken: Annotated[
        Units | None,
        Meta(
            description="Units in the buyer's holds, pending and paid orders of the product, or of its limit"
            " group."
        ),
    ]
    remaining: Annotated[Units | None, Meta(description="Units that the buyer may have in addition.")]


class OrderOfHold(msgspec.Struct):
    """The order that a hold has become."""

    order_id: OrderId
    status: OrderStatus


class Hold(msgspec.Struct):
    """Units reserved for a limited time."""

    hold_id: HoldId
    product_id: ProductId
    qty: Quantity
    status: HoldStatus
    expires_at: Annotated[Instant, Meta(description="When the hold expires unless it is ordered.")]
    order: OrderOfHold | UnsetType = UNSET


class CreatedOrder(msgspec.Struct):
    """A new order."""

    order_id: OrderId
    status: OrderStatus
    amount: Annotated[
        Money, Meta(description="The amount to pay: the price when the hold was placed, for all units.")
    ]
    currency: Currency
    payment_due_at: Annotated[Instant, Meta(description="When the order is cancelled unless it is paid.")]


class Order(msgspec.Struct):
    """An ordered hold."""

    order_id: OrderId
    product_id: ProductId
    qty: Quantity
    status: OrderStatus
    amount: Annotated[
        Money, Meta(description="The amount to pay: the price when the hold was placed, for all units.")
    ]
    currency: Currency
    created_at: Instant
    payment_due_at: Annotated[Instant, Meta(description="When the order is cancelled unless it is paid.")]
    cancel_reason: CancelReason | UnsetType = UNSET


class Payment(msgspec.Struct):
    """The result of a webhook."""

    order_id: OrderId
    status: Annotated[
        OrderStatus | None,
        Meta(
            description="The order's status after the webhook; null if the order does not exist: the"
            " payment is due for a refund, or a declined attempt changed nothing."
        ),
    ]
    result: Annotated[
        Literal["applied", "no_change", "refund_due", "amount_mismatch"],
        Meta(
            description="applied: the webhook changed the order's status. no_change: it did not."
            " refund_due: the captured payment pays no order. amount_mismatch: amount or currency differs"
            " from the order's, which stays unchanged."
        ),
    ]


class StoredPayment(msgspec.Struct):
    """A webhook that arrived before its order and is stored until then."""

    order_id: OrderId
    status: None
    result: Literal["stored"]


class StockSample(msgspec.Struct):
    """Where a product's units are at an instant; the counts add up to its total stock. A server with
    FLASHSALE_PAGE=0 leaves out all but the available units."""

    at: str
    available: int
    held: int | UnsetType = UNSET
    awaiting: int | UnsetType = UNSET
    paid: int | UnsetType = UNSET


class StockEvent(StockSample, kw_only=True):
    """A sample, and the terms of the sale at its instant, as in Product."""

    sale_status: SaleStatus
    starts_at: str | None
    ends_at: str | None
    max_per_buyer: int | None


class Alive(msgspec.Struct):
    """The process responds."""

    status: Literal["alive"]


class Ready(msgspec.Struct):
    """The server can serve requests."""

    status: Literal["ready"]
    database: Literal["reachable"]
    schema: Literal["current"]
    schema_version: Annotated[str, Meta(description="The newest migration's id.")]
    schema_digest: Annotated[str, Meta(description="Digest of the SQL functions and views.")]
    scheduler: Annotated[
        Literal["alive", "failing", "dead", "not_scheduled", "not_installed"],
        Meta(description="State of the sweep's schedule. Responses are exact without it."),
    ]
    scheduler_detail: str


def money(amount: Decimal) -> str:
    """An amount with the decimals of its currency, which SQL has set."""
    return format(amount, "f")


def instant(at: datetime) -> str:
    """A UTC time in RFC 3339, to the millisecond: "…T10:45:20Z", "…T10:45:20.300Z"."""
    text = at.isoformat(timespec="milliseconds")
    return (text[:19] if at.microsecond < 1000 else text[:23]) + "Z"


def optional_instant(at: datetime | None) -> str | None:
    return None if at is None else instant(at)


def mark_replay(resp: Response, replayed: bool) -> None:
    """Mark the response as the result of an earlier request with the same idempotency key."""
    if replayed:
        REQUEST.get().replayed = True
        resp.set_header("Idempotency-Replayed", "true")
