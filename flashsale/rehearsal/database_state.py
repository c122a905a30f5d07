"""The state of the product in the database, as operators see it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from psycopg.rows import namedtuple_row

from flashsale.database.connection import Connection, fetch_row
from flashsale.rehearsal.throwaway_product import Product


class Event(NamedTuple):
    """An event of the ledger."""

    kind: str
    at: datetime
    hold_id: int | None
    order_id: int | None
    available_delta: int


class Payment(NamedTuple):
    """A recorded webhook."""

    status: str
    result: str
    amount: Decimal | None


@dataclass
class DatabaseState:
    """The product in the database at the end of the sale."""

    total: int
    available: int
    held: int
    awaiting: int
    paid: int
    ledger: list[Event] = field(default_factory=list)
    payments: dict[str, Payment] = field(default_factory=dict)
    """by key: each payment for one of the orders, or with one of our keys"""
    due: dict[str, Decimal] = field(default_factory=dict)
    """by the key of the payment: what is still owed"""
    refunded: dict[str, Decimal] = field(default_factory=dict)
    """by the key of the payment: what has been returned"""
    audit: list[str] = field(default_factory=list)

    def events(self, kind: str) -> list[Event]:
        return [event for event in self.ledger if event.kind == kind]

    @property
    def captured(self) -> Decimal:
        """What has been captured by payments whose order came."""
        return sum(
            (
                payment.amount or Decimal(0)
                for payment in self.payments.values()
                if payment.status == "success" and payment.result != "stored"
            ),
            Decimal(0),
        )


def read_state(conn: Connection, product: Product, keys: Iterable[str]) -> DatabaseState:
    """Read the state of the product.

    :param keys: idempotency keys of the acknowledged webhooks
    """
    query = (
        "select total_stock, available_stock, held, awaiting, paid from flashsale.list_stock(true)"
        " where product_id = %s"
    )
    state = DatabaseState(*fetch_row(conn, query, (product.product_id,)))
    state.ledger = [
        Event(event.kind, event.at, event.hold_id, event.order_id, event.available_delta)
        for event in _events(conn, product.after)
        if event.product_id == product.product_id
    ]
    query = (
        "select idempotency_key, status, result, amount from flashsale.payments"
        " where idempotency_key = any (%s)"
        " union all select idempotency_key, status, result, amount from flashsale.test_payments"
        " where product_id = %s"
    )
    rows = conn.execute(query, (list(keys), product.product_id)).fetchall()
    state.payments = {key: Payment(*payment) for key, *payment in rows}
    known = (list(state.payments),)
    query = (
        "select idempotency_key, amount from flashsale.list_refunds_due(p_tests => true)"
        " where idempotency_key = any (%s)"
    )
    state.due = dict(conn.execute(query, known).fetchall())
    query = (
        "select payment_key, sum(amount) from flashsale.refunds"
        " where status = 'done' and payment_key = any (%s) group by 1"
    )
    state.refunded = dict(conn.execute(query, known).fetchall())
    return state


def audit(conn: Connection) -> list[str]:
    rows = conn.execute("select check_name, detail from flashsale.audit()").fetchall()
    return [f"{name}: {detail}" for name, detail in rows]


def _events(conn: Connection, after: int) -> Iterator[Any]:
    cursor = conn.cursor(row_factory=namedtuple_row)
    while True:
        page: list[Any] = cursor.execute(
            "select event_id, kind, at, product_id, hold_id, order_id, available_delta"
            " from flashsale.read_events(%s::bigint, 10000, p_tests => true)",
            (after,),
        ).fetchall()
        yield from page
        if not page:
            return
        after = page[-1].event_id
