"""Steps of a sale, in words: what tests do before they look at what an operator sees."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support import wait_until

_numbers = itertools.count(1)


def one(conn: psycopg.Connection, query: str, *args: object) -> object:
    """The first column of the first row."""
    return conn.execute(query, args).fetchone()[0]


def create_product(
    conn: psycopg.Connection,
    stock: int = 10,
    price: str = "99.00",
    currency: str = "USD",
    name: str = "Sneaker",
) -> int:
    return one(conn, "select flashsale.create_product(%s, %s, %s, %s)", name, stock, price, currency)


def place_hold(conn: psycopg.Connection, product: int, qty: int = 1, key: str | None = None) -> int:
    return one(conn, "select hold_id from flashsale.place_hold(%s, %s, %s)", product, qty, key)


def place_many(conn: psycopg.Connection, product: int, count: int) -> None:
    """`count` holds of one unit each."""
    conn.execute(
        "select count(*) from flashsale.place_holds("
        "array(select generate_series(1, %(n)s)), array_fill(%(product)s::bigint, array[%(n)s]),"
        " array_fill(1, array[%(n)s]), array_fill(null::text, array[%(n)s]))",
        {"n": count, "product": product},
    )


def create_order(conn: psycopg.Connection, hold: int) -> int:
    return one(conn, "select order_id from flashsale.create_order(%s)", hold)


def order(conn: psycopg.Connection, product: int, qty: int = 1) -> int:
    """An order of `qty` units that awaits payment."""
    return create_order(conn, place_hold(conn, product, qty))


def pay(
    conn: psycopg.Connection, order_id: int, status: str = "success", key: str | None = None, **payload: str
) -> str:
    """The provider's word under a key of its own; what came of it."""
    return one(
        conn,
        "select result from flashsale.apply_payment(%s, %s, %s, %s)",
        key or f"pay_{next(_numbers)}",
        order_id,
        status,
        Jsonb(payload),
    )


def available(conn: psycopg.Connection, product: int) -> int:
    return one(conn, "select available_stock from flashsale.get_product(%s)", product)


def audit(conn: psycopg.Connection) -> list[tuple[str, str]]:
    return conn.execute("select check_name, detail from flashsale.audit()").fetchall()


def expire_due(conn: psycopg.Connection, limit: int = 1000) -> int:
    return one(conn, "select flashsale.expire_due(%s)", limit)


def hold_status(conn: psycopg.Connection, hold: int) -> str:
    """What the table says, which may lag behind the truth."""
    return one(conn, "select status from flashsale_data.holds where hold_id = %s", hold)


def order_status(conn: psycopg.Connection, order_id: int) -> tuple[str, str | None]:
    """What the table says, which may lag behind the truth: status and cancel_reason."""
    return conn.execute(
        "select status, cancel_reason from flashsale_data.orders where order_id = %s", (order_id,)
    ).fetchone()


def make_short(conn: psycopg.Connection) -> None:
    """From now on holds and orders lapse soon, but leave time to order a hold before: within 0.4 seconds."""
    conn.execute("select flashsale.change_settings('300 milliseconds', '300 milliseconds')")


def wait_until_lapsed(conn: psycopg.Connection) -> None:
    """Return when the time of every hold and order there is has run out, as the server's clock has it."""
    wait_until(
        lambda: one(
            conn, "select coalesce(bool_and(lapses_at <= clock_timestamp()), true) from flashsale_data.lapses"
        ),
        "everything has lapsed",
    )


@contextmanager
def refused(sqlstate: str) -> Iterator[None]:
    """What is inside is refused with this SQLSTATE."""
    with pytest.raises(psycopg.Error) as raised:
        yield
    assert raised.value.sqlstate == sqlstate, raised.value
