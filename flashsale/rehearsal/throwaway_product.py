"""The throwaway product, and its state in the database.

Uses the functions and views of operators (role flashsale_ops) only.
"""

import secrets
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row

from api.database.session import PIN, PINNED, pin_parameters
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


def create(conn: Connection, stock: int) -> Product:
    token = secrets.token_hex(4)
    name = f"Rehearsal of {datetime.now(UTC):%Y-%m-%d %H:%M}Z ({token}), not for sale"
    after = _last_event(conn)
    product_id = fetch_value(
        conn,
        "select flashsale.create_product(%s, %s::int, %s, %s, p_is_test => true)",
        (name, stock, PRICE, CURRENCY),
    )
    return Product(product_id, name, token, stock, after)


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


def _chunks(ids: Sequence[int], size: int = 1000) -> Iterator[list[int]]:
    for start in range(0, len(ids), size):
        yield list(ids[start : start + size])


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


class StockReader:
    """Reads stock levels during the sale, on a connection of its own.

    :param conn: autocommit
    """

    def __init__(self, conn: psycopg.AsyncConnection[Any], product: Product) -> None:
        self._conn = conn
        self._product = product

    async def stock_levels(self) -> tuple[int, int, int, int]:
        """Available, held, awaiting payment and paid units, at one instant."""
        cursor = await self._conn.execute(
            "select available_stock, held, awaiting, paid from flashsale.get_stock(array[%s::bigint])",
            (self._product.product_id,),
        )
        row = await cursor.fetchone()
        assert row is not None  # noqa: S101 - one row per id
        available, held, awaiting, paid = row
        return available, held, awaiting, paid

    async def next_order_id(self) -> int:
        cursor = await self._conn.execute("select flashsale.next_order_id()")
        row = await cursor.fetchone()
        assert row is not None  # noqa: S101
        return int(row[0])


@asynccontextmanager
async def open_stock_reader(url: str, product: Product) -> AsyncIterator[StockReader]:
    """A reader that is closed at the end.

    :param url: libpq URL of an operator
    """
    conn = await psycopg.AsyncConnection.connect(url, autocommit=True, application_name="flashsale rehearse")
    async with conn:
        await conn.execute(PIN, pin_parameters(PINNED))
        yield StockReader(conn, product)
