"""The live streams of api/stock_feed.py by themselves; tests/page/test_stream.py tests them over HTTP."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from api.database.batching import NotSent, Overloaded
from api.stock_feed import Limits, Listener, Live
from tests.api.event_loop_clock import run


class NoCheckout:
    """Sells one unit of product 1 each time it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    async def get_stock(self, product_ids: list[int]) -> list[tuple[Any, ...]]:
        self.calls += 1
        return [(1, datetime.now(UTC), 1000, 1000 - self.calls, 0, 0, self.calls)]


def test_there_are_only_so_many_listeners():
    async def three_of_two() -> None:
        live = Live(NoCheckout(), Limits(listeners=2))  # type: ignore[arg-type]
        streams = [live.events(1, Listener(), 0) for _ in range(2)]
        for stream in streams:
            live.check_room()
            await anext(stream)
        with pytest.raises(Overloaded):
            live.check_room()
        await streams[0].aclose()
        live.check_room()
        await streams[1].aclose()
        live.close()

    run(three_of_two())


def test_a_slow_listener_gets_the_newest_and_nothing_between():
    async def skip() -> list[dict[str, Any]]:
        checkout = NoCheckout()
        live = Live(checkout, Limits(interval=0.001, heartbeat=10))  # type: ignore[arg-type]
        stream = live.events(1, Listener(), 0)
        await anext(stream)
        while checkout.calls < 50:
            await asyncio.sleep(0.001)
        got = json.loads((await anext(stream)).serialize().partition(b"data: ")[2])
        await stream.aclose()
        live.close()
        return got

    assert run(skip())["paid"] >= 49


def test_a_silent_stream_sends_comments():
    async def listen() -> bytes:
        live = Live(NoCheckout(), Limits(interval=10, heartbeat=0.01))  # type: ignore[arg-type]
        stream = live.events(1, Listener(), 0)
        written = [(await anext(stream)).serialize() for _ in range(4)]
        await stream.aclose()
        live.close()
        return b"".join(written)

    assert run(listen()).endswith(b": ping\n\n: ping\n\n")


def test_a_poller_that_fails_goes_on():
    class Failing(NoCheckout):
        async def get_stock(self, product_ids: list[int]) -> list[tuple[Any, ...]]:
            rows = await super().get_stock(product_ids)
            if self.calls in (2, 3):
                raise NotSent("nobody is there")
            if self.calls in (5, 6):
                raise ZeroDivisionError
            return rows

    async def listen() -> list[str]:
        live = Live(Failing(), Limits(interval=0.02))  # type: ignore[arg-type]
        stream = live.events(1, Listener(), 0)
        names = [(await anext(stream)).serialize().split(b"\n")[0] for _ in range(7)]
        await stream.aclose()
        live.close()
        return [name.decode().removeprefix("event: ") for name in names]

    assert run(listen()) == ["history", "stock", "trouble", "stock", "trouble", "stock", "stock"]
