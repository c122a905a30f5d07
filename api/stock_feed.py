"""GET /api/products/{id}/live: stock as it goes, as Server-Sent Events (HTML Standard, section 9.2).

Nobody tells this process that stock has changed: NOTIFY would make every sale wait for the one before it.
It asks. One poller asks for all products that anybody here watches in one query, a few times a second, and
only while somebody does; what has changed goes to every listener. So a thousand open pages cost the database
as much as one.

Each listener has room for one sample, the newest: who reads slowly skips, and holds nobody up.

    event: history    an array of samples: the changes of the last minutes, or since Last-Event-ID
    event: stock      a sample, whenever it differs from the one before
    event: trouble    {"code", "title"}: the database gives no answer; a sample follows when it does again
    : (a comment)     nothing has happened, and the connection is alive
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
from falcon.asgi import Request, Response, SSEvent

from api.database.batching import NotSent, Overloaded, RolledBack, Row
from api.database.client import Checkout
from api.problems import PRODUCT_NOT_FOUND, UNAVAILABLE, refuse
from api.schemas.requests import id_from_path
from api.schemas.responses import encode, instant
from api.server.http_protocol import END_STREAM
from api.telemetry import metrics

log = logging.getLogger("flashsale.api")


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the live streams of one process. Times are in seconds."""

    interval: float = 0.25
    """from one look at the stock to the next"""
    listeners: int = 500
    """at most; the next one is refused (and so get_stock's 1,000 products are never exceeded)"""
    heartbeat: float = 5.0
    """of silence until a comment is sent"""
    history: float = 120.0
    """how far back a new listener is told"""
    reconnect: float = 2.0
    """until a browser comes back after its stream has ended"""


class Sample(msgspec.Struct):
    """Where a product's units are at an instant; they add up to its total stock."""

    at: str
    available: int
    held: int
    awaiting: int
    paid: int


class _Event(SSEvent):
    """An event that is written once and sent many times."""

    def __init__(
        self, name: str, data: bytes, event_id: int | None = None, retry: float | None = None
    ) -> None:
        lines = [f"event: {name}"]
        if event_id is not None:
            lines.append(f"id: {event_id}")
        if retry is not None:
            lines.append(f"retry: {retry * 1000:.0f}")
        self._written = "\n".join(lines).encode() + b"\ndata: " + data + b"\n\n"

    def serialize(self, handler: Any = None) -> bytes:
        return self._written


_HEARTBEAT = SSEvent()


class Listener:
    """Somebody's open stream, and the one event that waits for it."""

    def __init__(self) -> None:
        self.ended = False
        self._event: _Event | None = None
        self._came = asyncio.Event()

    def put(self, event: _Event) -> None:
        self._event = event
        self._came.set()

    def end(self) -> None:
        """Have the stream end: the listener has left, or the server stops."""
        self.ended = True
        self._came.set()

    async def take(self, patience: float) -> SSEvent:
        """The newest event since the last call, or a heartbeat if none comes in time."""
        try:
            async with asyncio.timeout(patience):
                await self._came.wait()
        except TimeoutError:
            pass
        self._came.clear()
        event, self._event = self._event, None
        return event or _HEARTBEAT


class _Watched:
    """A product that somebody watches."""

    def __init__(self) -> None:
        self.listeners: set[Listener] = set()
        self.changes: deque[tuple[datetime, Sample]] = deque()
        self.newest: _Event | None = None

    def tell(self, event: _Event) -> None:
        for listener in self.listeners:
            listener.put(event)

    def since(self, after: int) -> list[Sample]:
        return [sample for at, sample in self.changes if _event_id(at) > after]


class Live:
    """The streams of this process, and the poller behind them.

    :param checkout: whom the poller asks
    """

    def __init__(self, checkout: Checkout, limits: Limits | None = None) -> None:
        self._checkout = checkout
        self._limits = limits or Limits()
        self._watched: dict[int, _Watched] = {}
        self._listeners = 0
        self._poller: asyncio.Task[None] | None = None
        self._trouble: _Event | None = None

    def check_room(self) -> None:
        """:raises Overloaded: there are as many listeners as there may be"""
        if self._listeners >= self._limits.listeners:
            raise Overloaded(f"{self._limits.listeners} listen already")

    async def events(self, product_id: int, listener: Listener, after: int) -> AsyncIterator[SSEvent]:
        """The events of one product, until the listener is told to end.

        :param after: the Last-Event-ID of the stream that this one goes on from, or 0
        """
        product = self._watched.setdefault(product_id, _Watched())
        product.listeners.add(listener)
        self._listeners += 1
        metrics.live_listeners.inc()
        try:
            if event := self._trouble or product.newest:
                listener.put(event)
            if self._poller is None:
                self._poller = asyncio.create_task(self._poll())
            yield _Event("history", encode(product.since(after)), retry=self._limits.reconnect)
            while not listener.ended:
                event = await listener.take(self._limits.heartbeat)
                if not listener.ended:
                    yield event
        finally:
            self._listeners -= 1
            metrics.live_listeners.dec()
            product.listeners.discard(listener)
            if not product.listeners:
                del self._watched[product_id]

    def close(self) -> None:
        """Stop asking."""
        if self._poller is not None:
            self._poller.cancel()

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._watched:
                due = loop.time() + self._limits.interval
                await self._look()
                await asyncio.sleep(max(due - loop.time(), self._limits.interval / 5))
        finally:
            self._poller = None

    async def _look(self) -> None:
        """Ask once, and tell whom it concerns."""
        try:
            rows = await self._checkout.get_stock(list(self._watched))
        except (NotSent, RolledBack) as error:
            return self._tell_trouble(error)
        except Exception as error:
            log.exception("the live stock's poller failed in an unforeseen way")
            return self._tell_trouble(error)
        had_trouble, self._trouble = self._trouble is not None, None
        for row in rows:
            if product := self._watched.get(row[0]):
                self._tell(product, row, anyway=had_trouble)

    def _tell(self, product: _Watched, row: Row, *, anyway: bool) -> None:
        _, at, _, *units = row
        sample = Sample(instant(at), *units)
        before = product.changes[-1][1] if product.changes else None
        product.newest = _Event("stock", encode(sample), _event_id(at))
        if before is None or units != [before.available, before.held, before.awaiting, before.paid]:
            product.changes.append((at, sample))
            anyway = True
        # The last change before the window is what was true when the window began.
        begin = at - timedelta(seconds=self._limits.history)
        while len(product.changes) > 1 and product.changes[1][0] < begin:
            product.changes.popleft()
        if anyway:
            product.tell(product.newest)

    def _tell_trouble(self, error: Exception) -> None:
        if self._trouble is None:
            log.warning("live stock: %s", error)
            self._trouble = _Event("trouble", encode({"code": UNAVAILABLE.code, "title": UNAVAILABLE.title}))
            for product in self._watched.values():
                product.tell(self._trouble)


def _event_id(at: datetime) -> int:
    """Milliseconds since 1970 by the database's clock: the same for every process of the server."""
    return int(at.timestamp() * 1000)


class ProductLive:
    """The stream of one product."""

    def __init__(self, checkout: Checkout, live: Live) -> None:
        self._get_products = checkout.get_products
        self._live = live

    async def on_get(self, req: Request, resp: Response, product_id: str) -> None:
        id_ = id_from_path(product_id, PRODUCT_NOT_FOUND)
        self._live.check_room()
        row = await self._get_products.ask(id_)
        if row[1]:
            return refuse(resp, row)
        resp.content_type = "text/event-stream"
        resp.set_header("X-Accel-Buffering", "no")  # nginx would keep events back until they fill a buffer
        listener = Listener()
        req.scope.get("state", {})[END_STREAM] = listener.end
        resp.sse = self._live.events(id_, listener, _last_event_id(req))


def _last_event_id(req: Request) -> int:
    text = req.get_header("Last-Event-ID") or ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else 0
