"""The checkout's SQL functions over several databases. An id leads to the database that owns its slot.

Each shard has batchers, connections and a pool of its own: a batch never spans two, so that what is known of
a call's outcome holds for all of it, and a shard that is down or stuck stops its own products alone. A call
that was refused because its slot has moved had no effect; it is sent again to the new owner.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar
from zlib import crc32

from psycopg.rows import args_row

from api.context import REQUEST
from api.database.batching import Batcher
from api.database.client import CheckoutClient, PoolStats
from api.database.connection import FunctionConnection
from api.database.errors import Busy, RolledBack, Unavailable
from api.database.functions import (
    Function,
    GetStockRow,
    ListProductsRow,
    RecordRefundRow,
    RecordRejectedWebhookRow,
    Row,
)
from api.problems import PAYMENT_NOT_FOUND, REFUSALS
from api.shards.errors import translated
from api.shards.load import ShardLoad
from api.shards.names import shard_names
from api.shards.ownership import Ownership, Report
from api.telemetry.batch_metrics import BatchMetrics, Tracer

log = logging.getLogger("flashsale.shards")

OPEN_SECONDS = 2.0
"""for which the start waits for shards to be connected; those that do not respond are connected later"""
LIST_SECONDS = 0.5
"""for which a list waits for a shard after the first one has responded"""
SKIP_SECONDS = 1.0
"""for which lists leave out a shard that has kept one waiting"""

GET_SHARD = "select slots, owned from flashsale.get_shard()"

T = TypeVar("T")


class ShardClient(CheckoutClient):
    """One shard.

    :param name: in metrics and in the log
    """

    def __init__(self, name: str, url: str, tracer: Tracer | None = None) -> None:
        self.name = name
        self.skipped_until = 0.0
        self._load = ShardLoad()
        super().__init__(url, tracer)

    def _metrics(self, function: Function[Row]) -> BatchMetrics:
        return BatchMetrics(function.name, self._tracer, more_labels={"shard": self.name})

    def _connection(
        self, function: Function[Row], path: str, lock_timeout_ms: int, metrics: BatchMetrics, *, writes: bool
    ) -> FunctionConnection[Row]:
        name = f"flashsale {function.name} {path}"
        return _ShardConnection(
            self._url, name, function, metrics.path(path), lock_timeout_ms=lock_timeout_ms, writes=writes
        )

    async def _query(self, statement: str, parameters: tuple[Any, ...], row_factory: Any) -> list[Any]:
        try:
            return await super()._query(statement, parameters, row_factory)
        except RolledBack as error:
            raise translated(error) from error

    async def get_shard(self) -> Report:
        """The slots that this shard owns.

        :raises Unavailable, RolledBack:
        """
        row = (await self._query(GET_SHARD, (), args_row(_GetShardRow)))[0]
        return Report(row.slots, frozenset(row.owned))

    async def submit(self, function: str, arguments: Sequence[Any]) -> Any:
        """Submit one request for a function.

        :raises Overloaded, Busy, Unavailable, OutcomeUnknown, RolledBack:
        """
        self._load.admit()
        batcher: Batcher[Any] = getattr(self, function)
        return await self._load.run(batcher.submit(*arguments))


class _GetShardRow(NamedTuple):
    slots: int
    owned: list[int]


class _ShardConnection(FunctionConnection[Row]):
    async def call(self, requests: Sequence[tuple[Any, ...]]) -> list[Row]:
        try:
            return await super().call(requests)
        except RolledBack as error:
            raise translated(error) from error


class _ShardedBatcher(Batcher[Row]):
    """The batchers of one function.

    :param id_index: index of the argument that is an id
    """

    def __init__(self, ownership: Ownership[ShardClient], function: str, id_index: int) -> None:
        self._ownership = ownership
        self._function = function
        self._id_index = id_index

    async def submit(self, *arguments: Any) -> Row:
        """Submit one request to the owner of its id's slot.

        :raises Overloaded, Busy, Unavailable, OutcomeUnknown, RolledBack:
        """
        row: Row = await self._ownership.route(
            arguments[self._id_index], lambda shard: shard.submit(self._function, arguments)
        )
        return row


class ShardedClient(CheckoutClient):
    """All shards as one client. readiness() and get_sale_metrics() are each shard's own.

    :param urls: of the shards
    :param tracer: traces calls
    """

    def __init__(self, urls: Sequence[str], tracer: Tracer | None = None) -> None:
        self.shards = [
            ShardClient(name, url, tracer) for name, url in zip(shard_names(urls), urls, strict=True)
        ]
        self.ownership = Ownership(self.shards)
        super().__init__(urls[0], tracer)

    def _write(self, function: Function[Row], key_index: int) -> Batcher[Row]:
        return _ShardedBatcher(self.ownership, function.name, key_index)  # guard: shard-of-id

    def _read(self, function: Function[Row]) -> Batcher[Row]:
        return _ShardedBatcher(self.ownership, function.name, 0)

    async def open(self) -> None:
        """Connect to all shards. Those that are not available yet are served once they are."""
        self._opening = [asyncio.create_task(shard.open()) for shard in self.shards]
        await asyncio.wait(self._opening, timeout=OPEN_SECONDS)
        await self.ownership.open()

    async def close(self) -> None:
        for task in self._opening:
            task.cancel()
        await asyncio.wait(self._opening)
        await self.ownership.close()
        await asyncio.gather(*(shard.close() for shard in self.shards))

    def pool_stats(self) -> PoolStats:
        return PoolStats(*map(sum, zip(*(shard.pool_stats() for shard in self.shards), strict=True)))

    async def list_products(self, after: int, limit: int) -> list[ListProductsRow]:
        """Products of all shards, by id. The request's context says which slots are missing, if any are.

        :raises Unavailable, RolledBack: no shard has responded
        """
        shards = [shard for shard in self.shards if self._may_sell(shard)]
        pages, error = await _gather_pages(shards, after, limit)
        if not pages:
            raise error or Unavailable("no shard serves a slot")
        owners = self.ownership.owners()
        missing = [slot for slot, owner in enumerate(owners) if owner is None or owner.name not in pages]
        if missing and (context := REQUEST.get()) is not None:
            context.missing_slots = (len(owners), missing)
        # On its way to another shard a product may be on both for an instant.
        products = {row.id: row for page in pages.values() for row in page}
        return [products[id_] for id_ in sorted(products)[:limit]]

    def _may_sell(self, shard: ShardClient) -> bool:
        return not self.ownership.has_reported(shard) or bool(self.ownership.owned(shard))

    async def get_stock(self, product_ids: list[int]) -> list[GetStockRow]:
        """Where the units of these products are.

        :param product_ids: all of one slot
        :raises Unavailable, RolledBack:
        """
        try:
            return await self.ownership.route(product_ids[0], lambda shard: shard.get_stock(product_ids))
        except Busy as error:
            raise Unavailable(str(error)) from error

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
        """Have a refused webhook kept: with its order, or on any shard if it names none.

        :raises Unavailable, RolledBack, Busy:
        """
        arguments = (webhook_id, body, code, detail, idempotency_key, order_id, status)
        if order_id is not None:
            return await self.ownership.route(
                order_id, lambda shard: shard.record_rejected_webhook(*arguments)
            )
        # The deliveries of one webhook count together as long as the same shards are up.
        first = crc32((webhook_id or idempotency_key or "").encode(errors="replace")) % len(self.shards)
        error: Exception = Unavailable("no shard")
        for shard in (*self.shards[first:], *self.shards[:first]):
            try:
                return await shard.record_rejected_webhook(*arguments)
            except Unavailable as unavailable:
                error = unavailable
        raise error

    async def record_refund(
        self,
        refund_key: str,
        payment_key: str,
        amount: str | None,
        status: str,
        kind: str,
        payload: str,
    ) -> RecordRefundRow:
        """Record what has become of a refund: on the shard that has the payment, whose key names no slot.

        :raises Unavailable: also if the payment may be on a shard that does not respond, or may just have
            been on its way from one to another
        :raises RolledBack:
        """
        owners = self.ownership.owners()
        unavailable: Unavailable | None = None
        unknown: RecordRefundRow | None = None
        for shard in self.shards:
            try:
                row = await shard.record_refund(refund_key, payment_key, amount, status, kind, payload)
            except Unavailable as error:
                unavailable = error
                continue
            if REFUSALS.get(row.sqlstate or "") is not PAYMENT_NOT_FOUND:
                return row
            unknown = row
        if unavailable is not None or unknown is None:
            raise unavailable or Unavailable("no shard")
        await self.ownership.read()
        if None in owners or not owners or owners != self.ownership.owners():  # guard: refund-between-shards
            raise Unavailable("the payment may be on its way to another shard")
        return unknown


async def _gather_pages(
    shards: Sequence[ShardClient], after: int, limit: int
) -> tuple[dict[str, list[ListProductsRow]], Exception | None]:
    """The page of each shard that responds, by its name, and the error of one that does not."""
    now = time.monotonic()
    error: Exception | None = None
    tasks = {
        asyncio.create_task(shard.list_products(after, limit)): shard
        for shard in shards
        if shard.skipped_until <= now
    }
    pages: dict[str, list[ListProductsRow]] = {}
    pending = set(tasks)
    while pending:
        # The others are slower than the first, but no more than they may be.
        done, pending = await asyncio.wait(
            pending, timeout=LIST_SECONDS if pages else None, return_when=asyncio.FIRST_COMPLETED
        )
        for task in done:
            try:
                pages[tasks[task].name] = task.result()
            except (Unavailable, RolledBack) as failure:
                error = failure
        if not done:
            break
    for task in pending:
        # It ends by its own timeout: cancelled, psycopg would wait for the server.
        tasks[task].skipped_until = time.monotonic() + SKIP_SECONDS
        task.add_done_callback(_ignore)
    return pages, error


def _ignore(task: "asyncio.Task[Any]") -> None:
    with suppress(asyncio.CancelledError):
        task.exception()
