"""StockFeed without a server; tests/page/test_stock_feed.py tests the streams over HTTP."""

import asyncio
import json
from datetime import UTC, datetime

import pytest

from api.database.errors import Overloaded, Unavailable
from api.database.functions import GetStockRow
from api.stock_feed import Limits, StockFeed, Subscriber
from tests.api.event_loop_clock import in_simulated_time


class FakeClient:
    """Sells one unit of product 1 at each poll."""

    def __init__(self) -> None:
        self.calls = 0

    async def get_stock(self, product_ids: list[int]) -> list[GetStockRow]:
        self.calls += 1
        return [
            GetStockRow(
                1, datetime.now(UTC), 1000, 1000 - self.calls, 0, 0, self.calls, "open", None, None, None
            )
        ]


@in_simulated_time
async def test_max_subscribers():
    feed = StockFeed(FakeClient(), Limits(max_subscribers=2))  # type: ignore[arg-type]
    streams = [feed.events(1, Subscriber(), 0) for _ in range(2)]
    for stream in streams:
        feed.check_capacity()
        await anext(stream)
    with pytest.raises(Overloaded):
        feed.check_capacity()
    await streams[0].aclose()
    feed.check_capacity()
    await streams[1].aclose()
    feed.close()


@in_simulated_time
async def test_a_slow_subscriber_skips_to_the_newest_sample():
    client = FakeClient()
    feed = StockFeed(client, Limits(poll_interval=0.001, heartbeat_interval=10))  # type: ignore[arg-type]
    stream = feed.events(1, Subscriber(), 0)
    await anext(stream)
    while client.calls < 50:
        await asyncio.sleep(0.001)
    got = json.loads((await anext(stream)).serialize().partition(b"data: ")[2])
    await stream.aclose()
    feed.close()
    assert got["paid"] >= 49


@in_simulated_time
async def test_a_change_of_terms_is_sent_without_a_change_of_stock():
    class Pausing(FakeClient):
        async def get_stock(self, product_ids: list[int]) -> list[GetStockRow]:
            self.calls += 1
            status = "open" if self.calls < 3 else "paused"
            return [GetStockRow(1, datetime.now(UTC), 1000, 1000, 0, 0, 0, status, None, None, None)]

    feed = StockFeed(Pausing(), Limits(poll_interval=0.02, heartbeat_interval=10))  # type: ignore[arg-type]
    stream = feed.events(1, Subscriber(), 0)
    await anext(stream)
    events = [(await anext(stream)).serialize().partition(b"data: ")[2] for _ in range(2)]
    await stream.aclose()
    feed.close()
    assert [json.loads(event or "{}").get("sale_status") for event in events] == ["open", "paused"]


@in_simulated_time
async def test_an_idle_stream_sends_comments():
    feed = StockFeed(FakeClient(), Limits(poll_interval=10, heartbeat_interval=0.01))  # type: ignore[arg-type]
    stream = feed.events(1, Subscriber(), 0)
    written = [(await anext(stream)).serialize() for _ in range(4)]
    await stream.aclose()
    feed.close()
    assert b"".join(written).endswith(b": ping\n\n: ping\n\n")


@in_simulated_time
async def test_a_stream_ends_as_soon_as_it_is_closed():
    """When the server shuts down: not at the next sample or comment."""
    feed = StockFeed(FakeClient(), Limits(poll_interval=10, heartbeat_interval=20))  # type: ignore[arg-type]
    subscriber = Subscriber()
    stream = feed.events(1, subscriber, 0)
    for _ in ("history", "stock"):
        await anext(stream)
    following = asyncio.ensure_future(anext(stream, None))
    await asyncio.sleep(1)
    before = asyncio.get_running_loop().time()
    subscriber.close()
    assert await following is None
    assert asyncio.get_running_loop().time() - before < 1
    feed.close()


@in_simulated_time
async def test_a_poller_continues_after_a_failure():
    class Failing(FakeClient):
        async def get_stock(self, product_ids: list[int]) -> list[GetStockRow]:
            rows = await super().get_stock(product_ids)
            if self.calls in (2, 3):
                raise Unavailable("no connection")
            if self.calls in (5, 6):
                raise ZeroDivisionError
            return rows

    feed = StockFeed(Failing(), Limits(poll_interval=0.02))  # type: ignore[arg-type]
    stream = feed.events(1, Subscriber(), 0)
    events = [(await anext(stream)).serialize().split(b"\n")[0] for _ in range(7)]
    await stream.aclose()
    feed.close()
    names = [event.decode().removeprefix("event: ") for event in events]
    assert names == ["history", "stock", "unavailable", "stock", "unavailable", "stock", "stock"]
