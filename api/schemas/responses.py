"""The shapes of successful answers, and how they write money and time.

What the annotations say of a member is not checked here, but told to callers by /openapi.json.
"""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

import msgspec
from falcon.asgi import Response
from msgspec import UNSET, Meta, UnsetType

from api.database.batching import Row
from api.schemas.requests import HoldId, OrderId, ProductId, Quantity
from api.telemetry.batch_metrics import REQUEST

encode = msgspec.json.Encoder().encode

OK = "200 OK"
CREATED = "201 Created"
ACCEPTED = "202 Accepted"
NO_CONTENT = "204 No Content"


Units = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Money = Annotated[str, Meta(pattern=r"^[0-9]+(\.[0-9]+)?$")]
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$", description="ISO 4217 code.")]
Instant = Annotated[
    str,
    Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z$", extra_json_schema={"format": "date-time"}),
]
HoldStatus = Annotated[
    Literal["active", "ordered", "expired", "released"],
    Meta(description="Exact at the instant of the answer: a hold whose time is up is expired."),
]
OrderStatus = Annotated[
    Literal["pending_payment", "paid", "cancelled"],
    Meta(description="Exact at the instant of the answer: an order whose time is up is cancelled."),
]


class Product(msgspec.Struct):
    """What is on sale."""

    id: ProductId
    name: str
    price: Annotated[Money, Meta(description="Of one unit, with the decimals of its currency.")]
    currency: Currency
    total_stock: Annotated[Units, Meta(description="Units there ever were to sell.")]
    available_stock: Annotated[
        Units, Meta(description="Units that a hold could take at the instant of the answer.")
    ]


class OrderOfHold(msgspec.Struct):
    """What a hold has become."""

    order_id: OrderId
    status: OrderStatus


class Hold(msgspec.Struct):
    """Units reserved for a while."""

    hold_id: HoldId
    product_id: ProductId
    qty: Quantity
    status: HoldStatus
    expires_at: Annotated[Instant, Meta(description="When the units go back, unless they were ordered.")]
    order: OrderOfHold | UnsetType = UNSET


class CreatedOrder(msgspec.Struct):
    """An order as its creation answers it."""

    order_id: OrderId
    status: OrderStatus
    amount: Annotated[Money, Meta(description="To be paid: the price of all units.")]
    currency: Currency
    payment_due_at: Annotated[Instant, Meta(description="When an unpaid order is cancelled.")]


class Order(msgspec.Struct):
    """A hold that somebody wants to pay for."""

    order_id: OrderId
    product_id: ProductId
    qty: Quantity
    status: OrderStatus
    amount: Annotated[Money, Meta(description="To be paid: the price of all units.")]
    currency: Currency
    created_at: Instant
    payment_due_at: Annotated[Instant, Meta(description="When an unpaid order is cancelled.")]
    cancel_reason: (
        Annotated[
            Literal["payment_failed", "payment_cancelled", "payment_overdue"],
            Meta(description="There if the order is cancelled."),
        ]
        | UnsetType
    ) = UNSET


class Payment(msgspec.Struct):
    """What a webhook has done."""

    order_id: OrderId
    status: Annotated[
        OrderStatus | None,
        Meta(
            description="The order's, once the webhook had been applied; null if the order never came and the"
            " payment is to be refunded."
        ),
    ]
    result: Annotated[
        Literal["applied", "no_change", "refund_due", "amount_mismatch"],
        Meta(
            description="applied: the order is paid or cancelled by it. no_change: it already was."
            " refund_due: money was taken that no order needs. amount_mismatch: amount or currency is not the"
            " order's, which stays as it is."
        ),
    ]


class StoredPayment(msgspec.Struct):
    """A webhook that came before its order, and waits for it."""

    order_id: OrderId
    status: None
    result: Literal["stored"]


class Alive(msgspec.Struct):
    """The process answers."""

    status: Literal["alive"]


class Ready(msgspec.Struct):
    """Requests can be served."""

    status: Literal["ready"]
    database: Literal["reachable"]
    schema: Literal["current"]
    schema_version: Annotated[str, Meta(description="The newest migration.")]
    schema_digest: Annotated[str, Meta(description="Of the SQL functions and views.")]
    scheduler: Annotated[
        Literal["alive", "dead", "not_scheduled", "not_installed"],
        Meta(description="Whether anybody marks what has lapsed. Answers are exact without it."),
    ]
    scheduler_detail: str


def money(amount: Decimal) -> str:
    """An amount with the decimals that SQL gave it."""
    return format(amount, "f")


def instant(at: datetime) -> str:
    """A UTC time as RFC 3339 has it, to the millisecond: "…T10:45:20Z", "…T10:45:20.300Z"."""
    text = at.isoformat(timespec="milliseconds")
    return (text[:19] if at.microsecond < 1000 else text[:23]) + "Z"


def product(row: Row) -> Product:
    """A product from the columns (id, name, price, currency, total_stock, available_stock)."""
    id_, name, price, currency, total_stock, available_stock = row
    return Product(id_, name, money(price), currency, total_stock, available_stock)


def mark_replay(resp: Response, replayed: bool) -> None:
    """Tell the caller that an earlier request with this idempotency key has done the work."""
    if replayed:
        REQUEST.get().replayed = True
        resp.set_header("Idempotency-Replayed", "true")
