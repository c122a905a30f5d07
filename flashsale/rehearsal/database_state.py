"""The state of the product in the database, as operators see it."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from psycopg.rows import namedtuple_row

from flashsale.database.connection import Connection, fetch_row
from flashsale.rehearsal.throwaway_product import Product


@dataclass
class DatabaseState:
    """The product in the database at the end of the sale."""

    total: int
    available: int
    held: int
    awaiting: int
    paid: int
    events: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """from the ledger: the order id, or else the hold id, of each event, by kind"""
    payments: dict[str, tuple[str, str]] = field(default_factory=dict)
    """by key: status and result of each payment for one of the orders or with one of our keys"""
    refunds: set[str] = field(default_factory=set)
    """keys of those payments that are refunds due"""
    audit: list[str] = field(default_factory=list)


def read_state(conn: Connection, product: Product, keys: Iterable[str]) -> DatabaseState:
    """Read the state of the product.

    :param keys: idempotency keys of the acknowledged webhooks
    """
    query = (
        "select total_stock, available_stock, held, awaiting, paid from flashsale.list_stock(true)"
        " where product_id = %s"
    )
    state = DatabaseState(*fetch_row(conn, query, (product.product_id,)))
    for event in _events(conn, product.after):
        if event.product_id == product.product_id:
            state.events[event.kind].append(event.order_id or event.hold_id)
    query = (
        "select idempotency_key, status, result from flashsale.payments"
        " where idempotency_key = any (%s)"
        " union all select idempotency_key, status, result from flashsale.test_payments"
        " where product_id = %s"
    )
    rows = conn.execute(query, (list(keys), product.product_id)).fetchall()
    state.payments = {key: (status, result) for key, status, result in rows}
    query = (
        "select idempotency_key from flashsale.list_refunds_due(p_tests => true)"
        " where idempotency_key = any (%s)"
    )
    state.refunds = {key for (key,) in conn.execute(query, (list(state.payments),)).fetchall()}
    return state


def audit(conn: Connection) -> list[str]:
    rows = conn.execute("select check_name, detail from flashsale.audit()").fetchall()
    return [f"{name}: {detail}" for name, detail in rows]


def _events(conn: Connection, after: int) -> Iterator[Any]:
    cursor = conn.cursor(row_factory=namedtuple_row)
    while True:
        page: list[Any] = cursor.execute(
            "select event_id, kind, product_id, hold_id, order_id"
            " from flashsale.read_events(%s::bigint, 10000, p_tests => true)",
            (after,),
        ).fetchall()
        yield from page
        if not page:
            return
        after = page[-1].event_id
