"""The checkout's SQL functions for this process: which calls are batched, and over how many connections.

A function that writes has two connections, for the fast and the slow path (batching.py), the latter opened
when it is first needed; a function that reads has one. A pool of up to two serves calls that are not
batched. That is 10 connections when idle and at most 18 for each process, and one more while metrics are
scraped (get_sale_metrics). More would not be faster: calls of one function mostly wait for the same rows,
and one connection carries hundreds of requests at a time.
"""

import asyncio
import time
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg.rows import args_row, dict_row
from psycopg_pool import AsyncConnectionPool

from api.database import functions
from api.database.batching import Batcher
from api.database.connection import (
    CONNECT_TIMEOUT_SECONDS,
    FunctionConnection,
    connection_string,
    disconnect_after,
    outcome_of,
    session_settings,
)
from api.database.errors import OutcomeUnknown, Unavailable
from api.database.functions import (
    Function,
    GetSaleMetricsRow,
    GetStockRow,
    ListProductsRow,
    RecordRefundRow,
    RecordRejectedWebhookRow,
    Row,
)
from api.database.session import SessionRefused, establish
from api.telemetry.batch_metrics import BatchMetrics, Tracer

FAST_LOCK_TIMEOUT_MS = 50
"""milliseconds; what a locked row costs the requests behind it on the fast path"""
SLOW_LOCK_TIMEOUT_MS = 300
"""milliseconds for each lock of a call; the whole call has connection.STATEMENT_TIMEOUT_MS"""
READ_TIMEOUT_SECONDS = 1.5
"""seconds for a read over the pool, the wait for a connection included"""
SALE_METRICS_TIMEOUT_SECONDS = 2.0
"""seconds for get_sale_metrics, the connection attempt included"""

T = TypeVar("T")


class PoolStats(NamedTuple):
    """Connections of the pool, and requests waiting for one."""

    size: int
    idle: int
    waiting: int


class CheckoutClient:
    """All calls to the database.

    :param url: libpq connection string or URI
    :param tracer: traces calls
    """

    def __init__(self, url: str, tracer: Tracer | None = None) -> None:
        self._url = url
        self._tracer = tracer
        self._eager: list[FunctionConnection[Any]] = []
        self._lazy: list[FunctionConnection[Any]] = []
        self._refusal = ""  # of the pool's newest session
        self.place_holds = self._write(functions.PLACE_HOLDS, key_index=0)
        self.release_holds = self._write(functions.RELEASE_HOLDS, key_index=0)
        self.extend_holds = self._write(functions.EXTEND_HOLDS, key_index=0)
        self.create_orders = self._write(functions.CREATE_ORDERS, key_index=0)
        self.abandon_orders = self._write(functions.ABANDON_ORDERS, key_index=0)
        self.apply_payments = self._write(functions.APPLY_PAYMENTS, key_index=1)
        self.get_products = self._read(functions.GET_PRODUCTS)
        self.get_allowances = self._read(functions.GET_ALLOWANCES)
        self.get_holds = self._read(functions.GET_HOLDS)
        self.get_orders = self._read(functions.GET_ORDERS)

    def _write(self, function: Function[Row], key_index: int) -> Batcher[Row]:
        metrics = self._metrics(function)
        fast = self._connection(function, "fast", FAST_LOCK_TIMEOUT_MS, metrics, writes=True)
        slow = self._connection(function, "slow", SLOW_LOCK_TIMEOUT_MS, metrics, writes=True)
        self._eager.append(fast)
        self._lazy.append(slow)
        return Batcher(fast.call, slow.call, key_index=key_index, metrics=metrics)

    def _read(self, function: Function[Row]) -> Batcher[Row]:
        metrics = self._metrics(function)
        connection = self._connection(function, "read", SLOW_LOCK_TIMEOUT_MS, metrics, writes=False)
        self._eager.append(connection)
        return Batcher(connection.call, read_only=True, metrics=metrics)

    def _metrics(self, function: Function[Row]) -> BatchMetrics:
        return BatchMetrics(function.name, self._tracer)

    def _connection(
        self, function: Function[Row], path: str, lock_timeout_ms: int, metrics: BatchMetrics, *, writes: bool
    ) -> FunctionConnection[Row]:
        name = f"flashsale {function.name} {path}"
        return FunctionConnection(
            self._url, name, function, metrics.path(path), lock_timeout_ms=lock_timeout_ms, writes=writes
        )

    async def open(self) -> None:
        """Connect. If the database is not available yet, requests are answered 503 until it is."""
        # Created here because a pool belongs to the event loop that it is created in.
        conninfo = connection_string(self._url, "flashsale pool")
        settings = session_settings(self._url, lock_timeout_ms=SLOW_LOCK_TIMEOUT_MS)

        async def configure(connection: psycopg.AsyncConnection[Any]) -> None:
            self._refusal = ""
            try:
                await establish(connection, conninfo, settings, writes=False)
            except BaseException as error:
                self._refusal = str(error) if isinstance(error, SessionRefused) else ""
                await connection.close()  # the pool does not
                raise

        self._pool = AsyncConnectionPool(
            conninfo,
            # Without psycopg's own prepared statements, whose names say nothing (see PreparedCall).
            kwargs={"autocommit": True, "prepare_threshold": None},
            configure=configure,
            min_size=0,
            max_size=2,
            max_waiting=100,
            # The pool retries by itself for this long; afterwards the next request makes it try again.
            reconnect_timeout=CONNECT_TIMEOUT_SECONDS,
            open=False,
        )
        await self._pool.open()
        for connection in self._eager:
            await connection.open()

    async def close(self) -> None:
        for connection in (*self._eager, *self._lazy):
            await connection.close()
        await self._pool.close()

    def pool_stats(self) -> PoolStats:
        stats = self._pool.get_stats()
        return PoolStats(stats["pool_size"], stats["pool_available"], stats.get("requests_waiting", 0))

    async def list_products(self, after: int, limit: int) -> list[ListProductsRow]:
        """Products with a higher id than `after`, by id.

        :raises Unavailable, RolledBack:
        """
        return await self._query(functions.LIST_PRODUCTS, (after, limit), args_row(ListProductsRow))

    async def get_stock(self, product_ids: list[int]) -> list[GetStockRow]:
        """Where the units of these products are.

        :raises Unavailable, RolledBack:
        """
        return await self._query(functions.GET_STOCK, (product_ids,), args_row(GetStockRow))

    async def record_rejected_webhook(
        self,
        webhook_id: str | None,
        body: bytes,
        code: str,
        detail: str,
        idempotency_key: str | None,
        order_id: int | None,
        status: str | None,
    ) -> RecordRejectedWebhookRow:
        """Have a refused webhook kept. Repeated after a lost response, it is counted once more.

        :raises Unavailable, RolledBack:
        """
        # A detail may quote the webhook.
        detail = detail.replace("\0", "\ufffd").encode(errors="replace").decode()
        row: RecordRejectedWebhookRow = (
            await self._query(
                functions.RECORD_REJECTED_WEBHOOK,
                (webhook_id, body, code, detail, idempotency_key, order_id, status),
                args_row(RecordRejectedWebhookRow),
            )
        )[0]
        return row

    async def record_refund(
        self,
        refund_key: str,
        payment_key: str,
        amount: str | None,
        status: str,
        kind: str,
        payload: str,
    ) -> RecordRefundRow:
        """Record what has become of a refund. Repeated after a lost response, it has no second effect.

        :raises Unavailable, RolledBack:
        """
        arguments = (refund_key, payment_key, amount, status, kind, payload)
        row: RecordRefundRow = (
            await self._query(functions.RECORD_REFUND, arguments, args_row(RecordRefundRow))
        )[0]
        return row

    async def readiness(self) -> dict[str, str]:
        """The result of flashsale.readiness(), by column.

        :raises Unavailable, RolledBack:
        """
        row: dict[str, str] = (await self._query(functions.READINESS, (), dict_row))[0]
        return row

    async def get_sale_metrics(self) -> list[GetSaleMetricsRow] | None:
        """The metrics that SQL provides; None if the database does not respond.

        They are read over a connection of their own, so that a scrape does not wait for requests or delay
        them.
        """
        conninfo = connection_string(self._url, "flashsale metrics")
        settings = session_settings(self._url, lock_timeout_ms=100)
        try:
            async with asyncio.timeout(SALE_METRICS_TIMEOUT_SECONDS):
                async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                    connection = await psycopg.AsyncConnection.connect(conninfo, autocommit=True)
                async with connection, connection.cursor(row_factory=args_row(GetSaleMetricsRow)) as cursor:
                    await establish(connection, conninfo, settings, writes=False)
                    await cursor.execute(functions.GET_SALE_METRICS)
                    return await cursor.fetchall()
        except (psycopg.Error, SessionRefused, OSError, TimeoutError):
            return None

    async def _query(self, statement: str, parameters: tuple[Any, ...], row_factory: Any) -> list[Any]:
        deadline = time.monotonic() + READ_TIMEOUT_SECONDS
        while True:
            try:
                return await self._query_once(statement, parameters, row_factory, deadline)
            except OutcomeUnknown as error:  # an idle connection was broken; a read can be retried
                if time.monotonic() > deadline:
                    raise Unavailable(str(error)) from error

    async def _query_once(
        self, statement: str, parameters: tuple[Any, ...], row_factory: Any, deadline: float
    ) -> list[Any]:
        connection: psycopg.AsyncConnection[Any] | None = None
        try:
            async with self._pool.connection(timeout=deadline - time.monotonic()) as connection:
                timer = disconnect_after(connection, deadline - time.monotonic())
                try:
                    cursor = connection.cursor(row_factory=row_factory)
                    await cursor.execute(statement, parameters)
                    return await cursor.fetchall()
                finally:
                    timer.cancel()
        except psycopg.Error as error:
            if connection is None:
                raise Unavailable(f"no connection to the database: {self._refusal or error}") from error
            raise outcome_of(error, connection) from error
