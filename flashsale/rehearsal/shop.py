"""What the shop does itself during the sale, as an operator of its database."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import class_row

from api.database.session import PIN, PINNED, pin_parameters
from flashsale.rehearsal.throwaway_product import Product

BATCH_SIZE = 1000
"""requests in one call"""


class CancelledOrder(NamedTuple):
    """What cancel_orders() returns for an order."""

    order_id: int
    sqlstate: str | None
    status: str | None
    cancel_reason: str | None


class RefundRequest(NamedTuple):
    """A refund that the provider is to make, of begin_refunds()."""

    refund_key: str
    payment_key: str
    amount: Decimal


class Refund(NamedTuple):
    """What a provider says of a refund.

    :param status: done or failed
    """

    refund_key: str
    payment_key: str
    amount: Decimal
    status: str


class RecordedRefund(NamedTuple):
    """What record_refunds() returns for a refund."""

    refund_key: str
    sqlstate: str | None
    refunded: Decimal | None
    still_due: Decimal | None
    replayed: bool | None


class Shop:
    """An operator of the shop, on a connection of its own.

    :param conn: autocommit
    """

    def __init__(self, conn: psycopg.AsyncConnection[Any], product: Product) -> None:
        self._conn = conn
        self._product = product

    async def stock_levels(self) -> tuple[int, int, int, int]:
        """Available, held, awaiting payment and paid units, at one instant."""
        query = "select available_stock, held, awaiting, paid from flashsale.get_stock(array[%s::bigint])"
        available, held, awaiting, paid = await self._fetch_row(query, self._product.product_id)
        return available, held, awaiting, paid

    async def next_order_id(self) -> int:
        """The id that the next order gets, if no other one is created before."""
        (order_id,) = await self._fetch_row("select flashsale.next_order_id()")
        return int(order_id)

    async def seconds_until(self, instant: datetime) -> float:
        """Seconds until then by the database's clock; negative if it has passed."""
        query = "select extract(epoch from %s::timestamptz - clock_timestamp())::float8"
        (seconds,) = await self._fetch_row(query, instant)
        return float(seconds)

    async def cancel_orders(self, order_ids: Sequence[int]) -> list[CancelledOrder]:
        """Cancel orders for the shop; their units are for sale again."""
        query = (
            "select (%(ids)s::bigint[])[c.request_no] as order_id, c.sqlstate, c.status, c.cancel_reason"
            " from flashsale.cancel_orders(%(nos)s::int[], %(ids)s::bigint[]) c"
        )
        return await self._fetch_all(CancelledOrder, query, ids=list(order_ids), nos=_numbers(order_ids))

    async def begin_refunds(self, payment_keys: Sequence[str]) -> list[RefundRequest]:
        """Take the refunds of these payments that are due and not taken."""
        query = (
            "select refund_key, payment_key, amount"
            " from flashsale.begin_refunds(%(limit)s::int, %(keys)s::text[])"
        )
        return await self._fetch_all(RefundRequest, query, limit=BATCH_SIZE, keys=list(payment_keys))

    async def record_refunds(self, refunds: Sequence[Refund]) -> list[RecordedRefund]:
        """Record what a provider says."""
        query = (
            "select (%(refund_keys)s::text[])[r.request_no] as refund_key, r.sqlstate, r.refunded,"
            " r.still_due, r.replayed"
            " from flashsale.record_refunds(%(nos)s::int[], %(refund_keys)s::text[],"
            " %(payment_keys)s::text[], %(amounts)s::numeric[], %(statuses)s::text[]) r"
        )
        return await self._fetch_all(
            RecordedRefund,
            query,
            nos=_numbers(refunds),
            refund_keys=[refund.refund_key for refund in refunds],
            payment_keys=[refund.payment_key for refund in refunds],
            amounts=[refund.amount for refund in refunds],
            statuses=[refund.status for refund in refunds],
        )

    async def _fetch_row(self, query: Any, *parameters: object) -> Any:
        """The row of a query that has one."""
        row = await (await self._conn.execute(query, parameters)).fetchone()
        assert row is not None  # noqa: S101
        return row

    async def _fetch_all(self, kind: type[Any], query: Any, **parameters: object) -> list[Any]:
        async with self._conn.cursor(row_factory=class_row(kind)) as cursor:
            await cursor.execute(query, parameters)
            return await cursor.fetchall()


def _numbers(requests: Sequence[object]) -> list[int]:
    return list(range(1, len(requests) + 1))


@asynccontextmanager
async def open_shop(url: str, product: Product) -> AsyncIterator[Shop]:
    """A connection that is closed at the end.

    :param url: libpq URL of an operator
    """
    conn = await psycopg.AsyncConnection.connect(url, autocommit=True, application_name="flashsale rehearse")
    async with conn:
        await conn.execute(PIN, pin_parameters(PINNED))
        yield Shop(conn, product)
