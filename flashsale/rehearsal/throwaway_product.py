"""The throwaway product.

Uses the functions and views of operators (role flashsale_ops) only.
"""

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg

from flashsale.database.connection import Connection, fetch_row, fetch_value
from flashsale.database.forgetting import forget_tests
from flashsale.errors import UserError

PRICE = Decimal("99.00")
CURRENCY = "XTS"
"""the ISO 4217 code for tests, so that payments of a rehearsal are recognizable"""
LOCK_KEY = 5_117_346_212_000_001
"""of the advisory lock: one rehearsal at a time in a database"""
WITHDRAW_TIMEOUT_SECONDS = 10
"""seconds; requests to the server take two at most"""
STOCK_IN_USE = "SA010"


@dataclass(frozen=True)
class Product:
    """The throwaway product."""

    product_id: int
    name: str
    token: str
    stock: int
    after: int
    """event_id of the last event before the product was created"""
    limit: int | None = None
    """units that one buyer can have"""
    starts_at: datetime | None = None
    """when its sale starts"""


def lock(conn: Connection) -> None:
    """Take the lock of rehearsals in this database; it lasts as long as the connection.

    :raises UserError: another rehearsal has it
    """
    if not fetch_value(conn, "select pg_try_advisory_lock(%s)", (LOCK_KEY,)):
        raise UserError("another rehearsal is running in this database")


def time_limits(conn: Connection) -> tuple[timedelta, timedelta]:
    """The hold time and the payment window of all products."""
    hold_time, payment_window = fetch_row(conn, "select hold_time, payment_window from flashsale.settings")
    return hold_time, payment_window


def active_products(conn: Connection) -> list[int]:
    """Products with a hold or an order within the last 10 seconds, without test products."""
    query = (
        "select s.product_id from flashsale.sale s"
        " where s.holds_per_second > 0 or s.orders_per_second > 0 order by 1"
    )
    rows = conn.execute(query).fetchall()
    return [product_id for (product_id,) in rows]


def create(
    conn: Connection, stock: int, *, limit: int | None = None, starts_in: timedelta | None = None
) -> Product:
    """Create the product.

    :param limit: units that one buyer can have
    :param starts_in: from now to the start of its sale, by the database's clock
    """
    token = secrets.token_hex(4)
    name = f"Rehearsal of {datetime.now(UTC):%Y-%m-%d %H:%M}Z ({token}), not for sale"
    after = _last_event(conn)
    starts_at: datetime | None = None
    if starts_in is not None:
        starts_at = fetch_value(conn, "select clock_timestamp() + %s::interval", (starts_in,))
    product_id = fetch_value(
        conn,
        "select flashsale.create_product(%s, %s::int, %s, %s, p_is_test => true,"
        " p_max_per_buyer => %s::int, p_starts_at => %s::timestamptz)",
        (name, stock, PRICE, CURRENCY, limit, starts_at),
    )
    return Product(product_id, name, token, stock, after, limit, starts_at)


def withdraw(conn: Connection, product: Product) -> None:
    """Take the product off sale.

    Releases holds, cancels unpaid orders and removes available units. After an interrupted sale requests may
    still be running, so this is repeated until every unit is paid or removed.

    :raises UserError: it did not succeed within WITHDRAW_TIMEOUT_SECONDS
    """
    query = "select total_stock - paid from flashsale.list_stock(true)"
    deadline = time.monotonic() + WITHDRAW_TIMEOUT_SECONDS
    while _ids(conn, query, product) != [0]:
        if time.monotonic() > deadline:
            raise UserError(
                f"product {product.product_id} is still on sale: another transaction locks it; remove it"
                f" with: flashsale product restock {product.product_id} -N"
            )
        _remove_units(conn, product)


def forget(conn: Connection, product: Product) -> None:
    """Remove the product with all that was sold of it.

    :raises UserError: it is in use, and has been taken off sale
    """
    if not all(row["forgotten"] for row in forget_tests(conn, [product.product_id])):
        raise UserError(
            f"product {product.product_id} is in use by another transaction and remains, off sale; remove it"
            f" with: flashsale product forget-tests {product.product_id}"
        )


def count_remaining(conn: Connection, keys: Sequence[str]) -> int:
    """How many webhooks with these keys are in the shop's books."""
    query = "select count(*) from flashsale.payments where idempotency_key = any (%s)"
    return int(fetch_value(conn, query, (list(keys),)))


def _remove_units(conn: Connection, product: Product) -> None:
    for chunk in _chunks(_ids(conn, "select hold_id from flashsale.list_active_holds(true)", product)):
        conn.execute(
            "select count(*) from flashsale.release_holds(%s::int[], %s::bigint[])",
            (list(range(len(chunk))), chunk),
        )
    for order_id in _ids(conn, "select order_id from flashsale.list_open_orders(true)", product):
        conn.execute(
            "select flashsale.apply_payment(%s, %s::bigint, 'cancelled')",
            (f"{product.token}-withdrawn-{order_id}", order_id),
        )
    for available in _ids(conn, "select available_stock from flashsale.list_stock(true)", product):
        try:
            if available:
                conn.execute(
                    "select flashsale.adjust_stock(%s::bigint, %s::int)", (product.product_id, -available)
                )
        except psycopg.Error as error:
            if error.sqlstate != STOCK_IN_USE:  # a concurrent request took a unit
                raise


def _ids(conn: Connection, query: str, product: Product) -> list[int]:
    rows = conn.execute(f"{query} where product_id = %s", (product.product_id,)).fetchall()
    return [value for (value,) in rows]


def _chunks(ids: Sequence[int], size: int = 1000) -> Iterator[list[int]]:
    for start in range(0, len(ids), size):
        yield list(ids[start : start + size])


def _last_event(conn: Connection) -> int:
    """The last event_id, found by bisection, because the ledger can only be read forwards."""

    def more_after(event_id: int) -> bool:
        query = "select exists (select from flashsale.read_events(%s::bigint, 1, p_tests => true))"
        return bool(fetch_value(conn, query, (event_id,)))

    low, high = 0, 1
    while more_after(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if more_after(middle) else (low, middle)
    return low
