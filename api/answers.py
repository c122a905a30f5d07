"""The shapes of successful answers, and how they write money and time."""

from datetime import datetime
from decimal import Decimal

import msgspec
from falcon.asgi import Response

from api.joining import Row

encode = msgspec.json.Encoder().encode

OK = "200 OK"
CREATED = "201 Created"
ACCEPTED = "202 Accepted"
NO_CONTENT = "204 No Content"


class Product(msgspec.Struct):
    id: int
    name: str
    price: str
    currency: str
    total_stock: int
    available_stock: int


class OrderOfHold(msgspec.Struct):
    order_id: int
    status: str


class Hold(msgspec.Struct, omit_defaults=True):
    hold_id: int
    product_id: int
    qty: int
    status: str
    expires_at: str
    order: OrderOfHold | None = None


class NewOrder(msgspec.Struct):
    order_id: int
    status: str
    amount: str
    currency: str
    payment_due_at: str


class Order(msgspec.Struct, omit_defaults=True):
    order_id: int
    product_id: int
    qty: int
    status: str
    amount: str
    currency: str
    created_at: str
    payment_due_at: str
    cancel_reason: str | None = None


class Payment(msgspec.Struct):
    order_id: int
    status: str | None
    result: str


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
        resp.set_header("Idempotency-Replayed", "true")
