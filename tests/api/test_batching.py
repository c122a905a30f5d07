"""Batcher with simulated calls, without a database."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from api.database.batching import Batcher, Limits
from api.database.client import FAST_LOCK_TIMEOUT_MS, SLOW_LOCK_TIMEOUT_MS
from api.database.connection import SOCKET_TIMEOUT_SECONDS, STATEMENT_TIMEOUT_MS
from api.database.errors import OutcomeUnknown, Overloaded, Unavailable
from tests.api.event_loop_clock import in_simulated_time
from tests.api.simulated_database import QUICK, Database, Row, outcome


@in_simulated_time
async def test_a_single_request_is_sent_at_once() -> None:
    database = Database()
    batcher = Batcher(database.call, database.call)
    assert await batcher.submit("a") == Row(0, None, "for ('a',)")
    assert database.batches == [[("a",)]]


@in_simulated_time
async def test_requests_that_arrive_during_a_call_share_the_next_and_each_gets_its_row() -> None:
    database = Database()
    batcher = Batcher(database.call, database.call)
    database.block()
    first = batcher.submit(0)
    await database.entered.wait()
    later = [batcher.submit(n) for n in range(1, 6)]
    database.may_return.set()
    rows = await asyncio.gather(first, *later)
    assert [row.detail for row in rows] == [f"for ({n},)" for n in range(6)]
    assert database.batches == [[(0,)], [(n,) for n in range(1, 6)]]


@in_simulated_time
async def test_a_batch_has_at_most_max_batch_size_requests() -> None:
    database = Database()
    batcher = Batcher(database.call, database.call, limits=Limits(max_batch_size=4))
    await asyncio.gather(*[batcher.submit(n) for n in range(10)])
    assert [len(batch) for batch in database.batches] == [4, 4, 2]


@in_simulated_time
async def test_a_read_is_served_by_a_later_call_and_equal_reads_share_a_row() -> None:
    database = Database()
    batcher = Batcher(database.call, read_only=True)
    database.block()
    first = batcher.submit("shoe")
    await database.entered.wait()
    later = [batcher.submit("shoe"), batcher.submit("hat"), batcher.submit("shoe")]
    database.may_return.set()
    await first
    rows = await asyncio.gather(*later)
    assert database.batches == [[("shoe",)], [("shoe",), ("hat",)]]
    assert [row.detail for row in rows] == ["for ('shoe',)", "for ('hat',)", "for ('shoe',)"]


@in_simulated_time
async def test_equal_writes_never_share_a_row() -> None:
    database = Database()
    batcher = Batcher(database.call, database.call)
    rows = await asyncio.gather(batcher.submit(1), batcher.submit(1))
    assert database.batches == [[(1,), (1,)]]
    assert [row.request_no for row in rows] == [0, 1]


@in_simulated_time
async def test_a_full_queue_rejects_at_once() -> None:
    database = Database()
    batcher = Batcher(database.call, database.call, limits=Limits(max_queue_size=2))
    database.block()
    served = [batcher.submit("in flight")]
    await database.entered.wait()
    served += [batcher.submit("waits"), batcher.submit("waits too")]
    with pytest.raises(Overloaded):
        batcher.submit("one too many")
    database.may_return.set()
    await asyncio.gather(*served)


@in_simulated_time
async def test_a_request_that_reaches_its_queue_timeout_is_never_sent() -> None:
    database = Database()
    batcher = Batcher(database.call, database.call, limits=QUICK)
    database.block()
    in_flight = batcher.submit("in flight")
    await database.entered.wait()
    await asyncio.sleep(QUICK.queue_timeout / 2)
    late = batcher.submit("late")
    assert isinstance(await outcome(late), Unavailable), "the call before it does not return"
    assert isinstance(await outcome(in_flight), OutcomeUnknown), "sent, and no response in time"
    database.may_return.set()
    assert (await batcher.submit("next")).sqlstate is None
    assert database.batches == [[("in flight",)], [("next",)]]


@in_simulated_time
async def test_a_cancelled_request_does_not_affect_others() -> None:
    database = Database()
    batcher = Batcher(database.call, database.call)
    database.block()
    leaves_in_flight, stays_in_flight = (
        batcher.submit("leaves in flight"),
        batcher.submit("stays in flight"),
    )
    await database.entered.wait()
    stays, leaves_waiting = batcher.submit("stays"), batcher.submit("leaves waiting")
    leaves_in_flight.cancel()
    leaves_waiting.cancel()
    database.may_return.set()
    assert (await stays_in_flight).detail == "for ('stays in flight',)"
    assert (await stays).detail == "for ('stays',)"
    assert database.batches[1:] == [[("stays",)]]


@pytest.mark.parametrize("rows", [[], [Row(0, None, "")], [Row(7, None, "")]])
@in_simulated_time
async def test_a_call_with_wrong_rows_leaves_no_request_waiting(rows: list[Row]) -> None:
    async def call(batch: Sequence[tuple[Any, ...]]) -> list[Row]:
        return rows

    batcher = Batcher(call, call)
    outcomes = await asyncio.gather(outcome(batcher.submit(1)), outcome(batcher.submit(2)))
    assert isinstance(outcomes[1], OutcomeUnknown)


def test_server_timeouts_are_shorter_than_request_timeouts() -> None:
    left = Limits().response_timeout - Limits().queue_timeout
    assert SLOW_LOCK_TIMEOUT_MS < STATEMENT_TIMEOUT_MS < left * 1000
    assert Limits().response_timeout < min(SOCKET_TIMEOUT_SECONDS, 2)
    assert FAST_LOCK_TIMEOUT_MS < SLOW_LOCK_TIMEOUT_MS
    assert Limits().max_batch_size <= 1000, "the functions accept no more"


@in_simulated_time
async def test_requests_time_out_while_their_call_hangs() -> None:
    database = Database()
    batcher = Batcher(database.call, read_only=True, limits=QUICK)
    database.block()
    assert isinstance(await outcome(batcher.submit(1)), Unavailable)
    took = asyncio.get_running_loop().time()
    assert QUICK.response_timeout <= took < QUICK.response_timeout + 2 * QUICK.timer_interval
    database.may_return.set()
    assert (await batcher.submit(2)).sqlstate is None
