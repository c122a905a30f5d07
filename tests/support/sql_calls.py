"""The SQL functions as Python calls: rows come back with their columns as attributes."""

import json
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.rows import namedtuple_row

from tests.support.waiting import wait_until

TITLES = {
    "SA001": "Product not found", "SA002": "Insufficient stock", "SA003": "Hold not found",
    "SA004": "Hold expired", "SA005": "Hold released", "SA006": "Hold already used",
    "SA007": "Order not found", "SA008": "Idempotency key reused", "SA009": "Invalid request",
    "SA010": "Stock in use", "SA011": "Too many unmatched webhooks", "SA012": "Sale not started",
    "SA013": "Sale ended", "SA014": "Sale paused", "SA015": "Sale cancelled", "SA016": "Buyer required",
    "SA017": "Limit reached", "SA018": "Extension refused", "SA019": "Order settled",
    "SA020": "Payment not found", "SA021": "Refund too large", "SA022": "Preview changed",
    "SA029": "Wrong shard", "SA030": "Not the primary",
}  # fmt: skip
LOCKED = "55P03"
TERMS = {
    "starts_at": "timestamptz", "ends_at": "timestamptz", "max_per_buyer": "int", "limit_group": "text",
    "hold_time": "interval", "payment_window": "interval", "listed": "boolean", "max_per_hold": "int",
}  # fmt: skip
"""of change_terms() and create_product(), with their types"""


def rows(conn: psycopg.Connection, query: str, *args: object) -> list[Any]:
    with conn.cursor(row_factory=namedtuple_row) as cursor:
        return cursor.execute(query, args).fetchall()


def row(conn: psycopg.Connection, query: str, *args: object) -> Any:
    (only,) = rows(conn, query, *args)
    return only


def value(conn: psycopg.Connection, query: str, *args: object) -> Any:
    return row(conn, query, *args)[0]


@contextmanager
def refused(sqlstate: str) -> Iterator[pytest.ExceptionInfo[psycopg.Error]]:
    """The block must be refused with this SQLSTATE; with one of ours, under its title."""
    with pytest.raises(psycopg.Error) as raised:
        yield raised
    assert raised.value.sqlstate == sqlstate, raised.value
    if sqlstate in TITLES:
        assert raised.value.diag.message_primary == TITLES[sqlstate]


# --- one request ---


def create_product(
    conn: psycopg.Connection,
    stock: int = 10,
    price: str = "99.00",
    currency: str = "USD",
    name: str = "Sneaker",
    *,
    is_test: bool = False,
    **terms: object,
) -> int:
    """`terms`: as in create_product(db, max_per_buyer=2)"""
    # Earlier versions of sql/ have no test products.
    test = ", p_is_test => true" if is_test else ""
    query = f"select flashsale.create_product(%s, %s::int, %s::numeric, %s{test}{_terms(terms)})"
    return value(conn, query, name, stock, price, currency, *terms.values())


def place_hold(
    conn: psycopg.Connection,
    product_id: int | None,
    qty: int | None = 1,
    key: str | None = None,
    buyer: str | None = None,
) -> Any:
    query = "select * from flashsale.place_hold(%s::bigint, %s::int, %s, %s)"
    return row(conn, query, product_id, qty, key, buyer)


def extend_hold(conn: psycopg.Connection, hold_id: int | None, seen: object) -> Any:
    return row(conn, "select * from flashsale.extend_hold(%s, %s)", hold_id, seen)


def release_hold(conn: psycopg.Connection, hold_id: int | None) -> Any:
    return row(conn, "select * from flashsale.release_hold(%s)", hold_id)


def create_order(conn: psycopg.Connection, hold_id: int | None, key: str | None = None) -> Any:
    return row(conn, "select * from flashsale.create_order(%s, %s)", hold_id, key)


def abandon_order(conn: psycopg.Connection, order_id: int | None, hold_id: int | None) -> Any:
    return row(conn, "select * from flashsale.abandon_order(%s, %s)", order_id, hold_id)


def apply_payment(
    conn: psycopg.Connection,
    key: str | None,
    order_id: int | None,
    status: str | None = "success",
    **payload: object,
) -> Any:
    """`payload`: the webhook's further members, such as amount="99.00"."""
    query = "select * from flashsale.apply_payment(%s, %s, %s, %s)"
    return row(conn, query, key, order_id, status, json.dumps(payload))


def adjust_stock(conn: psycopg.Connection, product_id: int, delta: int) -> Any:
    return row(conn, "select * from flashsale.adjust_stock(%s, %s::int)", product_id, delta)


def change_terms(conn: psycopg.Connection, *products: int, **terms: object) -> Any:
    """As in change_terms(db, product, max_per_buyer=2); the terms of the only product, or of all."""
    query = f"select * from flashsale.change_terms(%s::bigint[]{_terms(terms)})"
    found = rows(conn, query, list(products), *terms.values())
    return found[0] if len(products) == 1 else found


def _terms(terms: dict[str, object]) -> str:
    return "".join(f", p_{name} => %s::{TERMS[name]}" for name in terms)


def pause_sale(conn: psycopg.Connection, *products: int) -> list[Any]:
    return rows(conn, "select * from flashsale.pause_sale(%s)", list(products))


def resume_sale(conn: psycopg.Connection, *products: int) -> list[Any]:
    return rows(conn, "select * from flashsale.resume_sale(%s)", list(products))


def expire_due(conn: psycopg.Connection, limit: int = 1000) -> int:
    return value(conn, "select flashsale.expire_due(%s::int)", limit)


def get_product(conn: psycopg.Connection, product_id: int | None) -> Any:
    return row(conn, "select * from flashsale.get_product(%s)", product_id)


def get_hold(conn: psycopg.Connection, hold_id: int | None) -> Any:
    return row(conn, "select * from flashsale.get_hold(%s)", hold_id)


def get_allowance(conn: psycopg.Connection, product_id: int | None, buyer: str | None) -> Any:
    """max_per_buyer, taken, remaining"""
    return row(conn, "select * from flashsale.get_allowance(%s::bigint, %s)", product_id, buyer)


def get_order(conn: psycopg.Connection, order_id: int | None) -> Any:
    return row(conn, "select * from flashsale.get_order(%s)", order_id)


# --- many requests: the rows come back in order, which is asserted here once for all ---


def place_holds(conn: psycopg.Connection, *requests: tuple) -> list[Any]:
    """Each request is (product_id, qty), (product_id, qty, key) or (product_id, qty, key, buyer)."""
    buyers = any(len(request) > 3 for request in requests)
    call = f"place_holds(%s::int[], %s::bigint[], %s::int[], %s::text[]{', %s::text[]' * buyers})"
    return _batch(conn, call, 3 + buyers, requests)


def extend_holds(conn: psycopg.Connection, *requests: tuple) -> list[Any]:
    """Each request is (hold_id, the end that its caller has seen)."""
    return _batch(conn, "extend_holds(%s::int[], %s::bigint[], %s::timestamptz[])", 2, requests)


def abandon_orders(conn: psycopg.Connection, *requests: tuple) -> list[Any]:
    """Each request is (order_id, hold_id)."""
    return _batch(conn, "abandon_orders(%s::int[], %s::bigint[], %s::bigint[])", 2, requests)


def release_holds(conn: psycopg.Connection, *hold_ids: int | None) -> list[Any]:
    return _batch(conn, "release_holds(%s::int[], %s::bigint[])", 1, [(hold_id,) for hold_id in hold_ids])


def create_orders(conn: psycopg.Connection, *requests: tuple) -> list[Any]:
    """Each request is (hold_id,) or (hold_id, key)."""
    return _batch(conn, "create_orders(%s::int[], %s::bigint[], %s::text[])", 2, requests)


def apply_payments(conn: psycopg.Connection, *requests: tuple) -> list[Any]:
    """Each request is (key, order_id, status) or (key, order_id, status, payload)."""
    requests = [(*fields[:3], json.dumps(fields[3] if len(fields) > 3 else {})) for fields in requests]
    call = "apply_payments(%s::int[], %s::text[], %s::bigint[], %s::text[], %s::jsonb[])"
    return _batch(conn, call, 4, requests)


def _batch(conn: psycopg.Connection, call: str, width: int, requests: Any) -> list[Any]:
    numbers = [100 + 7 * i for i in range(len(requests))]
    columns = [[fields[i] if i < len(fields) else None for fields in requests] for i in range(width)]
    outcomes = rows(conn, f"select * from flashsale.{call}", numbers, *columns)
    assert [outcome.request_no for outcome in outcomes] == numbers
    return outcomes


def sqlstates(outcomes: list[Any]) -> list[str | None]:
    return [outcome.sqlstate for outcome in outcomes]


# --- what one looks at ---


def available(conn: psycopg.Connection, product_id: int) -> int:
    return get_product(conn, product_id).available_stock


def audit(conn: psycopg.Connection) -> list[str]:
    """The names of the invariants that are broken."""
    return sorted({found.check_name for found in rows(conn, "select * from flashsale.audit()")})


def next_order_id(conn: psycopg.Connection) -> int:
    """The id the next order will get, for a webhook that comes before it."""
    return value(conn, "select coalesce(pg_sequence_last_value('flashsale_data.order_ids'), 0) + 1")


# --- time ---


def change_settings(conn: psycopg.Connection, **settings: object) -> None:
    """As in change_settings(db, hold_time="100 ms")."""
    arguments = ", ".join(f"p_{name} => %s" for name in settings)
    rows(conn, f"select flashsale.change_settings({arguments})", *settings.values())


def wait_until_past(conn: psycopg.Connection, instant: object) -> None:
    wait_until(lambda: value(conn, "select clock_timestamp() >= %s", instant), f"it is {instant}")


def age_inbox(conn: psycopg.Connection, age: str = "24 hours 100 milliseconds") -> None:
    """Every webhook has come so much earlier; without an age, all that are stored have waited enough."""
    conn.execute(
        "update flashsale_data.payments set received_at = received_at - %(age)s::interval,"
        " wait_ends_at = wait_ends_at - %(age)s::interval",
        {"age": age},
    )


def place_short_hold(conn: psycopg.Connection, product_id: int, qty: int = 1, lasting: str = "100 ms") -> Any:
    change_settings(conn, hold_time=lasting)
    hold = place_hold(conn, product_id, qty)
    change_settings(conn, hold_time="2 minutes")
    return hold


def place_lapsed_hold(conn: psycopg.Connection, product_id: int, qty: int = 1) -> Any:
    hold = place_short_hold(conn, product_id, qty)
    wait_until_past(conn, hold.expires_at)
    return hold


def create_overdue_order(conn: psycopg.Connection, product_id: int, qty: int = 1) -> Any:
    hold = place_hold(conn, product_id, qty)
    change_settings(conn, payment_window="100 ms")
    order = create_order(conn, hold.hold_id)
    change_settings(conn, payment_window="15 minutes")
    wait_until_past(conn, order.payment_due_at)
    return order


def order_units(conn: psycopg.Connection, product_id: int, qty: int = 1) -> Any:
    return create_order(conn, place_hold(conn, product_id, qty).hold_id)


def sell_in_every_way(conn: psycopg.Connection) -> int:
    """A product of 100: 1 held, 2 awaiting payment, 4 paid; and 8 lapsed, 16 overdue, 32 released."""
    product = create_product(conn, stock=100)
    place_hold(conn, product, 1)
    order_units(conn, product, 2)
    apply_payment(conn, "paid", order_units(conn, product, 4).order_id)
    place_lapsed_hold(conn, product, 8)
    create_overdue_order(conn, product, 16)
    release_hold(conn, place_hold(conn, product, 32).hold_id)
    return product


# --- at the same time ---


def outcome(call: Any, *args: object) -> Any:
    """What the call returns, or the SQLSTATE it raises."""
    try:
        return call(*args)
    except psycopg.Error as error:
        return error.sqlstate


def wait_until_blocked_or_done(db: psycopg.Connection, conn: psycopg.Connection, future: Future) -> None:
    blocked = "select cardinality(pg_blocking_pids(%s)) > 0"
    pid = conn.info.backend_pid
    wait_until(lambda: future.done() or value(db, blocked, pid), f"backend {pid} waits for a lock or is done")
