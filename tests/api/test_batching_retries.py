"""Batcher when rows are locked, calls fail and connections break: what is retried, and what is not."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from api.database.batching import LOCK_NOT_AVAILABLE, Batcher, Limits
from api.database.errors import Busy, OutcomeUnknown, RolledBack, Unavailable
from tests.api.event_loop_clock import in_simulated_time
from tests.api.simulated_database import QUICK, Database, outcome


@in_simulated_time
async def test_a_locked_row_delays_only_requests_for_it() -> None:
    fast = Database(lambda product: LOCK_NOT_AVAILABLE if product == "locked" else None)
    slow = Database()
    batcher = Batcher(fast.call, slow.call)
    slow.block()
    locked, free = batcher.submit("locked"), batcher.submit("free")
    assert (await free).sqlstate is None
    await slow.entered.wait()
    assert (await batcher.submit("also free")).sqlstate is None, "served while the slow call still waits"
    slow.may_return.set()
    assert (await locked).sqlstate is None
    assert slow.batches == [[("locked",)]]


@in_simulated_time
async def test_later_requests_with_a_contended_key_skip_the_fast_path() -> None:
    fast = Database(lambda product, n: LOCK_NOT_AVAILABLE if product == "locked" else None)
    slow = Database()
    batcher = Batcher(fast.call, slow.call, key_index=0)
    slow.block()
    first = batcher.submit("locked", 1)
    await slow.entered.wait()
    others = [batcher.submit("locked", n) for n in (2, 3)]
    slow.may_return.set()
    await asyncio.gather(first, *others)
    assert fast.batches == [[("locked", 1)]]
    assert slow.batches == [[("locked", 1)], [("locked", 2), ("locked", 3)]]
    fast.sqlstate_of = lambda product, n: None
    await batcher.submit("locked", 4)
    assert fast.batches[-1] == [("locked", 4)]


@in_simulated_time
async def test_a_key_is_not_contended_after_one_request_was_served() -> None:
    fast = Database(lambda product, n: LOCK_NOT_AVAILABLE if n < 3 else None)
    slow = Database(lambda product, n: None if n == 1 else LOCK_NOT_AVAILABLE)
    batcher = Batcher(fast.call, slow.call, key_index=0, limits=QUICK)
    slow.block()
    first, second = batcher.submit("locked", 1), batcher.submit("locked", 2)
    await slow.entered.wait()
    slow.may_return.set()
    await first
    assert not second.done()
    await batcher.submit("locked", 3)
    assert fast.batches[-1] == [("locked", 3)]
    assert isinstance(await outcome(second), Busy)


@in_simulated_time
async def test_a_key_stays_contended_after_its_requests_failed() -> None:
    fast = Database(lambda product, n: LOCK_NOT_AVAILABLE)
    slow = Database(lambda product, n: LOCK_NOT_AVAILABLE if n < 3 else None)
    batcher = Batcher(fast.call, slow.call, key_index=0, limits=replace(QUICK, contention_ttl=30))
    for n in (1, 2):
        assert isinstance(await outcome(batcher.submit("locked", n)), Busy)
    assert fast.batches == [[("locked", 1)]], "the second does not block the fast path again"
    await batcher.submit("locked", 3)
    fast.sqlstate_of = lambda product, n: None
    await batcher.submit("locked", 4)
    assert fast.batches[-1] == [("locked", 4)], "a served request clears the key"


@in_simulated_time
async def test_a_contended_key_expires() -> None:
    fast = Database(lambda product: LOCK_NOT_AVAILABLE)
    slow = Database(lambda product: LOCK_NOT_AVAILABLE)
    batcher = Batcher(fast.call, slow.call, key_index=0, limits=replace(QUICK, contention_ttl=0.01))
    assert isinstance(await outcome(batcher.submit("locked")), Busy)
    await asyncio.sleep(0.05)
    fast.sqlstate_of = lambda product: None
    await batcher.submit("locked")
    assert len(fast.batches) == 2


@in_simulated_time
async def test_the_slow_path_serves_requests_in_order_of_arrival() -> None:
    fast = Database(lambda product, n: LOCK_NOT_AVAILABLE)
    slow = Database(lambda product, n: LOCK_NOT_AVAILABLE if len(slow.batches) == 1 else None)
    batcher = Batcher(fast.call, slow.call, key_index=0)
    slow.block()
    first = batcher.submit("locked", 1)
    await slow.entered.wait()
    await asyncio.sleep(0.01)
    later = [batcher.submit("locked", n) for n in (2, 3)]
    slow.may_return.set()
    await asyncio.gather(first, *later)
    assert slow.batches == [[("locked", 1)], [("locked", 1), ("locked", 2), ("locked", 3)]]


@in_simulated_time
async def test_requests_for_a_locked_row_stay_in_one_batch_and_others_are_served_past_them() -> None:
    def breaks(batch: Sequence[tuple[Any, ...]]) -> Exception | None:
        return RolledBack(LOCK_NOT_AVAILABLE) if all(row == "locked" for row, _ in batch) else None

    fast = Database()
    fast.break_batch = lambda batch: RolledBack(LOCK_NOT_AVAILABLE)
    slow = Database(lambda row, n: LOCK_NOT_AVAILABLE if row == "locked" else None)
    slow.break_batch = breaks
    batcher = Batcher(fast.call, slow.call, limits=QUICK)
    slow.block()
    locked = [batcher.submit("locked", n) for n in range(8)]
    await slow.entered.wait()
    free = batcher.submit("free", 8)
    while len(fast.batches) < 2:
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    slow.may_return.set()
    await free
    assert ("free", 8) in slow.batches[1], "the next call, not the one after all of the others"
    for future in locked:
        assert isinstance(await outcome(future), Busy)


@in_simulated_time
async def test_a_request_for_a_locked_row_is_retried_until_its_queue_timeout_and_then_busy() -> None:
    fast = Database(lambda product: LOCK_NOT_AVAILABLE)
    slow = Database(lambda product: LOCK_NOT_AVAILABLE)
    batcher = Batcher(fast.call, slow.call, limits=QUICK)
    assert isinstance(await outcome(batcher.submit("locked")), Busy)
    assert len(fast.batches) == 1
    assert 2 < len(slow.batches) <= QUICK.queue_timeout / QUICK.retry_delay, "repeatedly, with a delay"


@in_simulated_time
async def test_a_retry_after_the_queue_timeout_is_not_sent() -> None:
    """Even before the next check of the timeouts: one more call could outlast the response timeout."""
    fast = Database(lambda product: LOCK_NOT_AVAILABLE)
    slow = Database(lambda product: LOCK_NOT_AVAILABLE)
    batcher = Batcher(
        fast.call,
        slow.call,
        limits=Limits(queue_timeout=0.1, response_timeout=60, retry_delay=0, timer_interval=60),
    )
    slow.block()
    locked = batcher.submit("locked")
    await slow.entered.wait()
    await asyncio.sleep(0.1)
    slow.may_return.set()
    async with asyncio.timeout(5):
        assert isinstance(await outcome(locked), Busy)
    assert len(slow.batches) == 1


@in_simulated_time
async def test_a_request_is_served_once_its_row_is_unlocked() -> None:
    fast = Database(lambda product: LOCK_NOT_AVAILABLE)
    slow = Database(lambda product: None if len(slow.batches) == 3 else LOCK_NOT_AVAILABLE)
    batcher = Batcher(fast.call, slow.call, limits=QUICK)
    assert (await batcher.submit("locked")).sqlstate is None


@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "57014"])
@in_simulated_time
async def test_a_batch_that_was_rolled_back_is_split_and_retried(sqlstate: str) -> None:
    fast, slow = Database(), Database()
    fast.break_batch = lambda batch: RolledBack(sqlstate)
    batcher = Batcher(fast.call, slow.call, limits=QUICK)
    rows = await asyncio.gather(*[batcher.submit(n) for n in range(16)])
    assert [row.detail for row in rows] == [f"for ({n},)" for n in range(16)]
    assert [len(batch) for batch in fast.batches] == [16]
    assert [len(batch) for batch in slow.batches] == [4, 4, 4, 4]


@in_simulated_time
async def test_only_the_invalid_request_of_a_batch_fails() -> None:
    def breaks(batch: Sequence[tuple[Any, ...]]) -> Exception | None:
        return RolledBack("22P02") if ("poison",) in batch else None

    fast, slow = Database(), Database()
    fast.break_batch = slow.break_batch = breaks
    batcher = Batcher(fast.call, slow.call)
    names = ["poison" if n == 7 else n for n in range(20)]
    outcomes = await asyncio.gather(*[outcome(batcher.submit(name)) for name in names])
    assert isinstance(outcomes[7], RolledBack)
    assert outcomes[7].sqlstate == "22P02"
    assert all(row.sqlstate is None for n, row in enumerate(outcomes) if n != 7)
    assert slow.batches.count([("poison",)]) == 1


@in_simulated_time
async def test_a_server_error_is_not_retried() -> None:
    fast, slow = Database(), Database()
    fast.break_batch = lambda batch: RolledBack("53100", "disk full")
    batcher = Batcher(fast.call, slow.call)
    outcomes = await asyncio.gather(*[outcome(batcher.submit(n)) for n in range(3)])
    assert all(isinstance(error, Unavailable) for error in outcomes)
    assert len(fast.batches) == 1
    assert not slow.batches


@in_simulated_time
async def test_a_write_whose_outcome_is_unknown_is_never_retried() -> None:
    fast, slow = Database(), Database()
    fast.break_batch = lambda batch: OutcomeUnknown("the connection broke")
    batcher = Batcher(fast.call, slow.call)
    outcomes = await asyncio.gather(outcome(batcher.submit(1)), outcome(batcher.submit(2)))
    assert all(isinstance(error, OutcomeUnknown) for error in outcomes)
    assert fast.batches == [[(1,), (2,)]]
    assert not slow.batches


@in_simulated_time
async def test_a_read_whose_outcome_is_unknown_is_retried_twice() -> None:
    database = Database()
    database.break_batch = lambda batch: OutcomeUnknown("cut") if len(database.batches) < 3 else None
    batcher = Batcher(database.call, read_only=True)
    assert (await batcher.submit(1)).sqlstate is None
    database.batches.clear()
    database.break_batch = lambda batch: OutcomeUnknown("cut")
    assert isinstance(await outcome(batcher.submit(2)), Unavailable)
    assert len(database.batches) == 3


@in_simulated_time
async def test_a_retry_of_a_read_is_accepted_by_a_full_queue() -> None:
    database = Database()
    database.break_batch = lambda batch: OutcomeUnknown("cut") if len(database.batches) == 1 else None
    batcher = Batcher(database.call, read_only=True, limits=Limits(max_queue_size=1))
    database.block()
    first = batcher.submit(1)
    await database.entered.wait()
    second = batcher.submit(2)
    database.may_return.set()
    assert [row.sqlstate for row in await asyncio.gather(first, second)] == [None, None]


@in_simulated_time
async def test_an_unavailable_database_fails_all_requests_until_it_is_back() -> None:
    database = Database()
    database.break_batch = lambda batch: Unavailable("refused")
    batcher = Batcher(database.call, database.call)
    outcomes = await asyncio.gather(outcome(batcher.submit(1)), outcome(batcher.submit(2)))
    assert all(isinstance(error, Unavailable) for error in outcomes)
    database.break_batch = lambda batch: None
    assert (await batcher.submit(3)).sqlstate is None


@in_simulated_time
async def test_a_batch_that_the_server_has_no_locks_for_is_split_until_it_has() -> None:
    database = Database()
    locks = 30
    database.break_batch = lambda batch: (
        RolledBack("53200", "out of shared memory") if len(batch) > locks else None
    )
    batcher = Batcher(database.call, database.call, limits=replace(QUICK, max_batch_size=100), key_index=0)
    answers = await asyncio.gather(*[batcher.submit(0, number) for number in range(100)])
    assert [answer.detail for answer in answers] == [f"for (0, {number})" for number in range(100)]
    assert [len(batch) for batch in database.batches[:3]] == [100, 50, 25]
    assert sum(len(batch) for batch in database.batches if len(batch) <= locks) == 100, "each is served once"

    # Later batches begin small, and grow again once there are locks.
    database.batches.clear()
    locks = 1000
    for _ in range(20):
        await asyncio.gather(*[batcher.submit(0, number) for number in range(100)])
    assert len(database.batches[0]) <= 2 * 30
    assert len(database.batches[-1]) == 100


@in_simulated_time
async def test_a_request_that_the_server_has_no_lock_for_fails_alone() -> None:
    database = Database()
    database.break_batch = lambda batch: (
        RolledBack("53200", "out of shared memory") if (7,) in batch else None
    )
    batcher = Batcher(database.call, limits=QUICK)
    answers = await asyncio.gather(*[outcome(batcher.submit(number)) for number in range(10)])
    failed = [number for number, answer in enumerate(answers) if isinstance(answer, RolledBack)]
    assert failed == [7]
