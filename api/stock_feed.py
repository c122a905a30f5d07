"""Stock as it changes: one poller, and the streams of Server-Sent Events that it feeds.

The database does not notify this process of changes: NOTIFY would serialize the commits of a sale. Instead
one poller reads the stock and the terms of all subscribed products in one query, a few times a second, and
only while there are subscribers; changes go to every subscriber. So a thousand open pages cost the database
as much as one.

Each subscriber has a buffer for one sample, the newest: a slow reader skips samples and delays no other.

    event: history      an array of samples: the changes of the last minutes, or since Last-Event-ID
    event: stock        a sample and the terms of the sale, whenever either differs from before
    event: unavailable  {"code", "title"}: the database does not respond; a sample follows when it does again
    : (a comment)       a heartbeat
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from falcon.asgi import SSEvent
from msgspec import UnsetType

from api.database.client import CheckoutClient
from api.database.errors import Overloaded, RolledBack, Unavailable
from api.database.functions import GetStockRow
from api.problems import UNAVAILABLE
from api.schemas.responses import StockEvent, StockSample, encode, instant, optional_instant
from api.telemetry import metrics

log = logging.getLogger("flashsale.api")


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the stock feed of one process. Times are in seconds."""

    poll_interval: float = 0.25
    max_subscribers: int = 500
    """further ones are rejected (so get_stock's 1,000 products are never exceeded)"""
    heartbeat_interval: float = 5.0
    """of silence, until a comment is sent"""
    history: float = 120.0
    """age of the oldest change that a new subscriber receives"""
    reconnect_delay: float = 2.0
    """of a browser whose stream has ended"""


class _Event(SSEvent):
    """An event that is serialized once and sent many times."""

    def __init__(
        self, name: str, data: bytes, event_id: int | None = None, retry: float | None = None
    ) -> None:
        lines = [f"event: {name}"]
        if event_id is not None:
            lines.append(f"id: {event_id}")
        if retry is not None:
            lines.append(f"retry: {retry * 1000:.0f}")
        self._serialized = "\n".join(lines).encode() + b"\ndata: " + data + b"\n\n"

    def serialize(self, handler: Any = None) -> bytes:
        return self._serialized


_HEARTBEAT = SSEvent()


class Subscriber:
    """An open stream, and its buffer of one event."""

    def __init__(self) -> None:
        self.is_closed = False
        self._event: _Event | None = None
        self._wakeup = asyncio.Event()

    def put(self, event: _Event) -> None:
        self._event = event
        self._wakeup.set()

    def close(self) -> None:
        """End the stream: the client has disconnected, or the server shuts down."""
        self.is_closed = True
        self._wakeup.set()  # guard: stream-ends

    async def get(self, timeout: float) -> SSEvent:
        """The newest event since the last call, or a heartbeat after the timeout."""
        try:
            async with asyncio.timeout(timeout):
                await self._wakeup.wait()
        except TimeoutError:
            pass
        self._wakeup.clear()
        event, self._event = self._event, None
        return event or _HEARTBEAT


class _Product:
    """A product with subscribers."""

    def __init__(self) -> None:
        self.subscribers: set[Subscriber] = set()
        self.changes: deque[tuple[datetime, StockSample]] = deque()
        self.terms: tuple[object, ...] | None = None
        self.newest: _Event | None = None

    def publish(self, event: _Event) -> None:
        for subscriber in self.subscribers:
            subscriber.put(event)

    def changes_since(self, event_id: int) -> list[StockSample]:
        return [sample for at, sample in self.changes if _event_id(at) > event_id]


class StockFeed:
    """The poller of this process, and its subscribers.

    :param with_taken_units: whether samples say how many units are held, awaiting payment and paid: what is
        sold is the shop's own business, except on the page of a demonstration
    """

    def __init__(
        self, client: CheckoutClient, limits: Limits | None = None, *, with_taken_units: bool = True
    ) -> None:
        self._client = client
        self._with_taken_units = with_taken_units
        self._limits = limits or Limits()
        self._products: dict[int, _Product] = {}
        self.subscribers = 0
        """open streams"""
        self._poller: asyncio.Task[None] | None = None
        self._unavailable: _Event | None = None

    def check_capacity(self) -> None:
        """:raises Overloaded: max_subscribers is reached"""
        if self.subscribers >= self._limits.max_subscribers:
            raise Overloaded(f"{self._limits.max_subscribers} subscribers are connected")

    async def events(self, product_id: int, subscriber: Subscriber, after: int) -> AsyncIterator[SSEvent]:
        """The events of one product, until the subscriber is closed.

        :param after: Last-Event-ID of the stream that this one resumes, or 0
        """
        product = self._products.setdefault(product_id, _Product())
        product.subscribers.add(subscriber)
        self.subscribers += 1
        metrics.stock_feed_subscribers.inc()
        try:
            if newest := self._unavailable or product.newest:
                subscriber.put(newest)
            if self._poller is None:
                self._poller = asyncio.create_task(self._poll())
            history = encode(product.changes_since(after))
            yield _Event("history", history, retry=self._limits.reconnect_delay)
            while not subscriber.is_closed:
                event = await subscriber.get(self._limits.heartbeat_interval)
                if not subscriber.is_closed:
                    yield event
        finally:
            self.subscribers -= 1
            metrics.stock_feed_subscribers.dec()
            product.subscribers.discard(subscriber)
            if not product.subscribers:
                del self._products[product_id]

    def close(self) -> None:
        """Stop the poller."""
        if self._poller is not None:
            self._poller.cancel()

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._products:
                due = loop.time() + self._limits.poll_interval
                await self._poll_once()
                await asyncio.sleep(max(due - loop.time(), self._limits.poll_interval / 5))
        finally:
            self._poller = None

    async def _poll_once(self) -> None:
        try:
            rows = await self._client.get_stock(list(self._products))
        except (Unavailable, RolledBack) as error:
            return self._publish_unavailable(error)
        except Exception as error:
            log.exception("the stock feed's poller failed unexpectedly")
            return self._publish_unavailable(error)
        was_unavailable, self._unavailable = self._unavailable is not None, None
        for row in rows:
            if product := self._products.get(row.id):
                self._publish(product, row, force=was_unavailable)

    def _publish(self, product: _Product, row: GetStockRow, *, force: bool) -> None:
        sample = StockSample(instant(row.at), row.available_stock)
        if self._with_taken_units:  # guard: taken-units-left-out
            sample.held, sample.awaiting, sample.paid = row.held, row.awaiting, row.paid
        event = StockEvent(
            sample.at,
            *_units(sample),
            sale_status=row.sale_status,
            starts_at=optional_instant(row.starts_at),
            ends_at=optional_instant(row.ends_at),
            max_per_buyer=row.max_per_buyer,
        )
        before = product.changes[-1][1] if product.changes else None
        product.newest = _Event("stock", encode(event), _event_id(row.at))
        terms = row.sale_status, row.starts_at, row.ends_at, row.max_per_buyer
        if terms != product.terms:  # guard: feed-has-terms
            product.terms = terms
            force = True
        if before is None or _units(sample) != _units(before):
            product.changes.append((row.at, sample))
            force = True
        # The last change before the window says what the stock was when the window began.
        begin = row.at - timedelta(seconds=self._limits.history)
        while len(product.changes) > 1 and product.changes[1][0] < begin:
            product.changes.popleft()
        if force:
            product.publish(product.newest)

    def _publish_unavailable(self, error: Exception) -> None:
        if self._unavailable is None:
            log.warning("stock feed: %s", error)
            data = encode({"code": UNAVAILABLE.code, "title": UNAVAILABLE.title})
            self._unavailable = _Event("unavailable", data)
            for product in self._products.values():
                product.publish(self._unavailable)


def _units(sample: StockSample) -> tuple[int, int | UnsetType, int | UnsetType, int | UnsetType]:
    return sample.available, sample.held, sample.awaiting, sample.paid


def _event_id(at: datetime) -> int:
    """Milliseconds since 1970 by the database's clock: the same in every process of the server."""
    return int(at.timestamp() * 1000)
