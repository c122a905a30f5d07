"""Steps of a sale, in words: what tests do before they look at what an operator sees.

They are the calls of tests/support/sql_calls.py, and return only ids.
"""

import itertools

import psycopg

from tests.support import sql_calls as calls
from tests.support.sql_calls import available, create_product, expire_due, refused
from tests.support.sql_calls import value as one
from tests.support.waiting import wait_until

__all__ = ["available", "create_product", "expire_due", "one", "refused"]

_numbers = itertools.count(1)


def place_hold(
    conn: psycopg.Connection, product: int, qty: int = 1, key: str | None = None, buyer: str | None = None
) -> int:
    return calls.place_hold(conn, product, qty, key, buyer).hold_id


def place_many(conn: psycopg.Connection, product: int, count: int) -> None:
    """`count` holds of one unit each."""
    conn.execute(
        "select count(*) from flashsale.place_holds("
        "array(select generate_series(1, %(n)s)), array_fill(%(product)s::bigint, array[%(n)s]),"
        " array_fill(1, array[%(n)s]), array_fill(null::text, array[%(n)s]))",
        {"n": count, "product": product},
    )


def create_order(conn: psycopg.Connection, hold: int) -> int:
    return calls.create_order(conn, hold).order_id


def order(conn: psycopg.Connection, product: int, qty: int = 1) -> int:
    """An order of `qty` units that awaits payment."""
    return create_order(conn, place_hold(conn, product, qty))


def pay(
    conn: psycopg.Connection, order_id: int, status: str = "success", key: str | None = None, **payload: str
) -> str:
    """The provider's word under a key of its own; what came of it."""
    return calls.apply_payment(conn, key or f"pay_{next(_numbers)}", order_id, status, **payload).result


def audit(conn: psycopg.Connection) -> list[tuple[str, str]]:
    return conn.execute("select check_name, detail from flashsale.audit()").fetchall()


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
