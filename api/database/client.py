"""The checkout's functions as this process calls them: which are joined, and over how many connections.

A function that writes has two connections, fast and patient (batching.py), the latter opened when it is
first needed; a function that reads has one; up to two more, from a pool, serve what is not joined. That is 7
connections in quiet times and 13 at most for each process. More would not be faster: calls of one function
mostly wait for the same rows, and a connection carries hundreds of requests at a time.
"""

import time
from typing import Any, cast

import psycopg
from psycopg.rows import dict_row, tuple_row
from psycopg_pool import AsyncConnectionPool

from api.database import functions
from api.database.batching import Joiner, NotSent, OutcomeUnknown, Row
from api.database.connection import CONNECT_TIMEOUT, Lane, connection_string, cut_later, outcome_of
from api.database.functions import Function
from api.telemetry.batch_metrics import Observer, Tracer

FAST_LOCK_TIMEOUT = 50
"""milliseconds; what a locked row costs those behind it on the fast lane"""
PATIENT_LOCK_TIMEOUT = 300
"""milliseconds for each lock of a call; the whole call has lanes.STATEMENT_TIMEOUT"""
READ_TIMEOUT = 1.5
"""seconds that an unjoined read may take, with the wait for a connection"""


class Checkout:
    """What HTTP may ask of the database.

    :param url: libpq connection string or URI
    :param tracer: traces calls
    """

    def __init__(self, url: str, tracer: Tracer | None = None) -> None:
        self._url = url
        self._tracer = tracer
        self._ready: list[Lane] = []
        self._patient: list[Lane] = []
        self.place_holds = self._writes(functions.PLACE_HOLDS, row_key=0)
        self.release_holds = self._writes(functions.RELEASE_HOLDS, row_key=0)
        self.create_orders = self._writes(functions.CREATE_ORDERS, row_key=0)
        self.apply_payments = self._writes(functions.APPLY_PAYMENTS, row_key=1)
        self.get_products = self._reads(functions.GET_PRODUCTS)
        self.get_holds = self._reads(functions.GET_HOLDS)
        self.get_orders = self._reads(functions.GET_ORDERS)

    def _writes(self, function: Function, row_key: int) -> Joiner:
        observer = Observer(function.name, self._tracer)
        fast = self._lane(function, "fast", FAST_LOCK_TIMEOUT, observer)
        patient = self._lane(function, "patient", PATIENT_LOCK_TIMEOUT, observer)
        self._ready.append(fast)
        self._patient.append(patient)
        return Joiner(fast.call, patient.call, row_key=row_key, observer=observer)

    def _reads(self, function: Function) -> Joiner:
        observer = Observer(function.name, self._tracer)
        lane = self._lane(function, "reads", PATIENT_LOCK_TIMEOUT, observer)
        self._ready.append(lane)
        return Joiner(lane.call, reads=True, observer=observer)

    def _lane(self, function: Function, way: str, lock_timeout: int, observer: Observer) -> Lane:
        name = f"flashsale {function.name} {way}"
        conninfo = connection_string(self._url, name, lock_timeout=lock_timeout)
        return Lane(conninfo, function, observer.way(way))

    async def open(self) -> None:
        """Connect. A database that is not there yet is no error: requests answer 503 until it is."""
        # Made here and not before: it belongs to the event loop that it is made in.
        self._pool = AsyncConnectionPool(
            connection_string(self._url, "flashsale unjoined", lock_timeout=PATIENT_LOCK_TIMEOUT),
            kwargs={"autocommit": True},
            min_size=0,
            max_size=2,
            max_waiting=100,
            # After a failure the pool tries again by itself for so long; then whoever asks next makes it try.
            reconnect_timeout=CONNECT_TIMEOUT,
            open=False,
        )
        await self._pool.open()
        for lane in self._ready:
            await lane.open()

    async def close(self) -> None:
        for lane in (*self._ready, *self._patient):
            await lane.close()
        await self._pool.close()

    def pool(self) -> tuple[int, int, int]:
        """Connections for what is not joined: how many, how many of them idle, and who waits for one."""
        stats = self._pool.get_stats()
        return stats["pool_size"], stats["pool_available"], stats.get("requests_waiting", 0)

    async def list_products(self, after: int, limit: int) -> list[Row]:
        """Products with a higher id than `after`, by id.

        :returns: rows (id, name, price, currency, total_stock, available_stock)
        :raises NotSent, RolledBack:
        """
        return await self._read(functions.LIST_PRODUCTS, (after, limit))

    async def get_stock(self, product_ids: list[int]) -> list[Row]:
        """Where the units of these products are.

        :returns: rows (id, at, total_stock, available_stock, held, awaiting, paid)
        :raises NotSent, RolledBack:
        """
        return await self._read(functions.GET_STOCK, (product_ids,))

    async def readiness(self) -> dict[str, str]:
        """What flashsale.readiness() tells, by the names of its columns.

        :raises NotSent, RolledBack:
        """
        return cast(dict[str, str], (await self._read(functions.READINESS, (), dict_row))[0])

    async def _read(
        self, statement: str, parameters: tuple[Any, ...], row_factory: Any = tuple_row
    ) -> list[Any]:
        give_up_at = time.monotonic() + READ_TIMEOUT
        while True:
            try:
                return await self._read_once(statement, parameters, row_factory, give_up_at)
            except OutcomeUnknown as error:  # an idle connection was dead; a read may go again
                if time.monotonic() > give_up_at:
                    raise NotSent(str(error)) from error

    async def _read_once(
        self, statement: str, parameters: tuple[Any, ...], row_factory: Any, give_up_at: float
    ) -> list[Any]:
        connection: psycopg.AsyncConnection[Row] | None = None
        try:
            async with self._pool.connection(timeout=give_up_at - time.monotonic()) as connection:
                cut = cut_later(connection, give_up_at - time.monotonic())
                try:
                    cursor = connection.cursor(row_factory=row_factory)
                    await cursor.execute(statement, parameters)
                    return await cursor.fetchall()
                finally:
                    cut.cancel()
        except psycopg.Error as error:
            if connection is None:
                raise NotSent(f"no connection to the database: {error}") from error
            raise outcome_of(error, connection) from error
