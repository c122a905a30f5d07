"""The throwaway product in the shop's database, and what the database says of it afterwards.

All by the functions and views that an operator has (role flashsale_ops).
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

from flashsale.errors import Refusal

PRICE = Decimal("99.00")
CURRENCY = "XTS"
"""ISO 4217's code for testing: nobody takes a rehearsal's refunds due for money"""
LOCK = 5_117_346_212_000_001
"""advisory lock: one rehearsal at a time in a database"""
WITHDRAWING = 10
"""seconds for which the product is tried to be withdrawn; the server answers within two"""
STOCK_IN_USE = "SA010"

Conn = psycopg.Connection[Any]


@dataclass(frozen=True)
class Product:
    """The throwaway product."""

    product_id: int
    name: str
    token: str
    stock: int
    after: int
    """an event_id of the ledger, from before the product was created"""


@dataclass
class Books:
    """What the database says of the product when the sale is over."""

    total: int
    available: int
    held: int
    awaiting: int
    paid: int
    events: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """the ledger: ids of the holds, or else orders, by kind of event"""
    payments: dict[str, tuple[str, str]] = field(default_factory=dict)
    """by key: status and result of each payment for one of the orders or under one of our keys"""
    refunds: set[str] = field(default_factory=set)
    """keys of refunds due, of those"""
    audit: list[str] = field(default_factory=list)


def only_one(conn: Conn) -> None:
    """Keep other rehearsals out for as long as the connection lasts.

    :raises Refusal: one is under way
    """
    if not conn.execute("select pg_try_advisory_lock(%s)", (LOCK,)).fetchone()[0]:
        raise Refusal("another rehearsal is under way in this database")


def windows(conn: Conn) -> tuple[timedelta, timedelta]:
    """How long a hold lasts and an order awaits payment, whatever the product."""
    return conn.execute("select hold_time, payment_window from flashsale.settings").fetchone()


def busy(conn: Conn) -> list[int]:
    """Products that customers buy at this moment: with a hold or an order within the last 10 seconds.

    Not those of earlier rehearsals.
    """
    query = (
        "select s.product_id from flashsale.sale s join flashsale.stock p using (product_id)"
        " where (s.holds_per_second > 0 or s.orders_per_second > 0) and p.currency <> %s order by 1"
    )
    rows = conn.execute(query, (CURRENCY,)).fetchall()
    return [product_id for (product_id,) in rows]


def create(conn: Conn, stock: int) -> Product:
    token = secrets.token_hex(4)
    name = f"Rehearsal of {datetime.now(UTC):%Y-%m-%d %H:%M}Z ({token}), not for sale"
    after = _last_event(conn)
    (product_id,) = conn.execute(
        "select flashsale.create_product(%s, %s::int, %s, %s)", (name, stock, PRICE, CURRENCY)
    ).fetchone()
    return Product(product_id, name, token, stock, after)


def withdraw(conn: Conn, product: Product) -> None:
    """See to it that nobody can buy the product any more.

    Holds are released, unpaid orders cancelled, and what is left is taken out of stock. Of a sale that was
    cut short, requests may still be under way: so again, until every unit is paid or gone.

    :raises Refusal: somebody keeps units from being taken away
    """
    query = "select total_stock - paid from flashsale.stock"
    deadline = time.monotonic() + WITHDRAWING
    while _ids(conn, query, product) != [0]:
        if time.monotonic() > deadline:
            raise Refusal(
                f"product {product.product_id} is still on sale, somebody keeps it locked; take its units"
                f" away with flashsale product restock {product.product_id} -N"
            )
        _take_away(conn, product)


def _take_away(conn: Conn, product: Product) -> None:
    for part in _parts(_ids(conn, "select hold_id from flashsale.active_holds", product)):
        conn.execute(
            "select count(*) from flashsale.release_holds(%s::int[], %s::bigint[])",
            (list(range(len(part))), part),
        )
    for order_id in _ids(conn, "select order_id from flashsale.open_orders", product):
        conn.execute(
            "select flashsale.apply_payment(%s, %s::bigint, 'cancelled')",
            (f"{product.token}-withdrawn-{order_id}", order_id),
        )
    for left in _ids(conn, "select available_stock from flashsale.stock", product):
        try:
            if left:
                conn.execute(
                    "select flashsale.adjust_stock(%s::bigint, %s::int)", (product.product_id, -left)
                )
        except psycopg.Error as error:
            if error.sqlstate != STOCK_IN_USE:  # somebody took one in between
                raise


def _ids(conn: Conn, query: str, product: Product) -> list[int]:
    rows = conn.execute(f"{query} where product_id = %s", (product.product_id,)).fetchall()
    return [value for (value,) in rows]


def read_books(conn: Conn, product: Product, keys: Iterable[str]) -> Books:
    """What the database says.

    :param keys: of the webhooks that were acknowledged
    """
    query = (
        "select total_stock, available_stock, held, awaiting, paid from flashsale.stock where product_id = %s"
    )
    books = Books(*conn.execute(query, (product.product_id,)).fetchone())
    for event in _events(conn, product.after):
        if event.product_id == product.product_id:
            books.events[event.kind].append(event.order_id or event.hold_id)
    query = (
        "select idempotency_key, status, result from flashsale.payments"
        " where idempotency_key = any (%s)"
        " union select idempotency_key, status, result from flashsale.payments"
        " where order_id = any (%s::bigint[])"
    )
    rows = conn.execute(query, (list(keys), books.events["order_created"])).fetchall()
    books.payments = {key: (status, result) for key, status, result in rows}
    query = "select idempotency_key from flashsale.refunds_due where idempotency_key = any (%s)"
    books.refunds = {key for (key,) in conn.execute(query, (list(books.payments),)).fetchall()}
    return books


def audit(conn: Conn) -> list[str]:
    rows = conn.execute("select check_name, detail from flashsale.audit()").fetchall()
    return [f"{name}: {detail}" for name, detail in rows]


def _parts(ids: Sequence[int], size: int = 1000) -> Iterator[list[int]]:
    for start in range(0, len(ids), size):
        yield list(ids[start : start + size])


def _events(conn: Conn, after: int) -> Iterator[Any]:
    cursor = conn.cursor(row_factory=namedtuple_row)
    while True:
        page = cursor.execute(
            "select event_id, kind, product_id, hold_id, order_id"
            " from flashsale.read_events(%s::bigint, 10000)",
            (after,),
        ).fetchall()
        yield from page
        if not page:
            return
        after = page[-1].event_id


def _last_event(conn: Conn) -> int:
    """The event_id after which the ledger has nothing, found by halving: the ledger is read forwards only."""

    def more_after(event_id: int) -> bool:
        query = "select exists (select from flashsale.read_events(%s::bigint, 1))"
        return conn.execute(query, (event_id,)).fetchone()[0]

    low, high = 0, 1
    while more_after(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if more_after(middle) else (low, middle)
    return low


class Window:
    """A look into the shop while the sale goes on, on a connection of its own.

    :param conn: autocommit
    """

    def __init__(self, conn: psycopg.AsyncConnection[Any], product: Product) -> None:
        self._conn = conn
        self._product = product

    async def units(self) -> tuple[int, int, int, int]:
        """Available, held, awaiting payment, paid, all at one instant."""
        cursor = await self._conn.execute(
            "select available_stock, held, awaiting, paid from flashsale.get_stock(array[%s::bigint])",
            (self._product.product_id,),
        )
        return await cursor.fetchone()

    async def next_order_id(self) -> int:
        cursor = await self._conn.execute("select flashsale.next_order_id()")
        return (await cursor.fetchone())[0]


@asynccontextmanager
async def window(url: str, product: Product) -> AsyncIterator["Window"]:
    """A window that closes by itself.

    :param url: libpq URL of an operator
    """
    conn = await psycopg.AsyncConnection.connect(url, autocommit=True, application_name="flashsale rehearse")
    async with conn:
        yield Window(conn, product)
