"""One call of place_hold() for each request, on a connection of a pool: the same SQL without batching."""

import os
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool

from api.database.functions import PlaceHoldsRow
from bench.baselines import App, app_over


class Pool:
    """A pool of BENCH_POOL_SIZE connections, all of them open from the start."""

    def __init__(self) -> None:
        self.place_holds = self
        self.release_holds = self.extend_holds = self.create_orders = self.apply_payments = None
        self.abandon_orders = self.get_products = self.get_allowances = self.get_holds = self.get_orders = (
            None
        )

    async def open(self) -> None:
        size = int(os.environ["BENCH_POOL_SIZE"])
        self._pool = AsyncConnectionPool(
            os.environ["FLASHSALE_DATABASE_URL"],
            kwargs={"autocommit": True, "prepare_threshold": 0},
            min_size=size,
            max_size=size,
            open=False,
        )
        await self._pool.open(wait=True)

    async def close(self) -> None:
        await self._pool.close()

    async def submit(self, product_id: int, qty: int, key: str | None, buyer: str | None) -> PlaceHoldsRow:
        try:
            async with self._pool.connection() as connection:
                return PlaceHoldsRow._make(await self.hold(connection, product_id, qty, key))
        except psycopg.errors.DatabaseError as error:
            return refusal(error.sqlstate, error.diag.message_detail)

    async def hold(
        self, connection: psycopg.AsyncConnection[Any], product_id: int, qty: int, key: str | None
    ) -> tuple[Any, ...]:
        cursor = await connection.execute(
            "select 0, null, null, replayed, hold_id, product_id, qty, status, expires_at,"
            " order_id, order_status, null"
            " from flashsale.place_hold(%s::bigint, %s::int, %s)",
            (product_id, qty, key),
        )
        row = await cursor.fetchone()
        assert row is not None
        return row


def refusal(sqlstate: str | None, detail: str | None = None) -> PlaceHoldsRow:
    return PlaceHoldsRow(0, sqlstate, detail, *[None] * 9)


def application() -> App:
    return app_over(Pool())
