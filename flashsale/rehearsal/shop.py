"""What the shop does itself during the sale, as an operator of its database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from api.database.session import PIN, PINNED, pin_parameters
from flashsale.rehearsal.throwaway_product import Product


class Shop:
    """An operator of the shop, on a connection of its own.

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
async def open_shop(url: str, product: Product) -> AsyncIterator[Shop]:
    """A connection that is closed at the end.

    :param url: libpq URL of an operator
    """
    conn = await psycopg.AsyncConnection.connect(url, autocommit=True, application_name="flashsale rehearse")
    async with conn:
        await conn.execute(PIN, pin_parameters(PINNED))
        yield Shop(conn, product)
