"""Time: refused exactly from `expires_at` on, after any wait, when the clock steps back, and without a sweep.

Where an instant matters to the microsecond, PostgreSQL's clock is set by libfaketime.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from proof.campaign import Campaign
from proof.faketime import LIBRARIES, MICROSECOND, FaketimeCluster, faketime_cluster
from proof.random_sale import Sale, random_step
from tests.support import sql_calls as calls
from tests.support.sql_calls import outcome
from tests.support.waiting import wait_until_blocked

START = datetime(2031, 5, 4, 12, 0, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture(scope="module")
def faketime() -> Iterator[FaketimeCluster]:
    if not LIBRARIES:
        pytest.skip("libfaketime is not installed")
    with faketime_cluster(START) as cluster:
        yield cluster


@pytest.fixture
def frozen(faketime: FaketimeCluster) -> Iterator[psycopg.Connection]:
    """A connection to a new database whose clock is set to START."""
    faketime.clock.set(START)
    with psycopg.connect(faketime.new_database(), autocommit=True) as conn:
        yield conn


# --- exactly at the instant ---


def test_the_clock_is_the_one_that_was_set(faketime: FaketimeCluster, frozen: psycopg.Connection) -> None:
    for microsecond in (0, 1, 100_000, 299_999, 300_000, 700_000, 999_999):
        instant = START.replace(microsecond=microsecond)
        faketime.clock.set(instant)
        assert calls.value(frozen, "select clock_timestamp()") == instant


def test_refused_at_exactly_expires_at(
    campaign: Campaign, faketime: FaketimeCluster, frozen: psycopg.Connection
) -> None:
    times = campaign.size(5, 500)
    product = calls.create_product(frozen, 4)
    now = START
    for _ in range(times):
        now += timedelta(microseconds=campaign.random.randrange(10_000_000))
        faketime.clock.set(now)
        lasting = timedelta(milliseconds=campaign.random.randrange(100, 200_000))
        calls.change_settings(frozen, hold_time=lasting)
        used, released, late, left = (calls.place_hold(frozen, product) for _ in range(4))
        now = late.expires_at - MICROSECOND
        faketime.clock.set(now)
        assert calls.available(frozen, product) == 0
        assert calls.get_hold(frozen, late.hold_id).status == "active"
        order = calls.create_order(frozen, used.hold_id)
        calls.release_hold(frozen, released.hold_id)

        now = late.expires_at
        faketime.clock.set(now)
        assert calls.get_hold(frozen, late.hold_id).status == "expired"
        assert outcome(calls.create_order, frozen, late.hold_id) == "SA004"
        assert outcome(calls.release_hold, frozen, left.hold_id) == "SA004"
        assert calls.available(frozen, product) == 3
        assert len({calls.place_hold(frozen, product).hold_id for _ in range(3)}) == 3
        assert outcome(calls.place_hold, frozen, product) == "SA002"

        now = order.payment_due_at - MICROSECOND
        faketime.clock.set(now)
        assert calls.get_order(frozen, order.order_id).status == "pending_payment"
        now = order.payment_due_at
        faketime.clock.set(now)
        assert calls.get_order(frozen, order.order_id).cancel_reason == "payment_overdue"
        assert calls.available(frozen, product) == 4
    assert calls.audit(frozen) == []
    campaign.record(
        f"the clock set to expires_at, to payment_due_at, and to one microsecond less, {times} times",
        "all; refused at the instant, served before it",
        exact_instants=times,
    )


# --- in a lock queue ---

LOCKS: dict[str, Callable[[psycopg.Connection, int, int, str], object]] = {
    "product": lambda conn, product, hold, key: conn.execute(
        "select from flashsale_data.stock where product_id = %s for update", (product,)
    ),
    "hold": lambda conn, product, hold, key: conn.execute(
        "select from flashsale_data.holds where hold_id = %s for update", (hold,)
    ),
    "key": lambda conn, product, hold, key: conn.execute(
        "select pg_advisory_xact_lock(hashtext('flashsale.order'), hashtext(%s))", (key,)
    ),
}
"""the locks that a call can wait for; each function takes one"""


def create_order(conn: psycopg.Connection, hold: int, key: str) -> Any:
    return calls.create_order(conn, hold, key)


def release_hold(conn: psycopg.Connection, hold: int, key: str) -> Any:
    return calls.release_hold(conn, hold)


QUEUES = [(create_order, "product"), (create_order, "hold"), (create_order, "key"),
          (release_hold, "product"), (release_hold, "hold")]  # fmt: skip


class Queue:
    """A call that waits for a lock of another session."""

    def __init__(self, url: str, call: Callable[..., Any], lock: str, pool: ThreadPoolExecutor) -> None:
        self.holder = psycopg.connect(url)
        self.caller = psycopg.connect(url, autocommit=True)
        self.watcher = psycopg.connect(url, autocommit=True)
        product = calls.create_product(self.watcher)
        self.hold = calls.place_hold(self.watcher, product)
        key = f"key {product}"
        LOCKS[lock](self.holder, product, self.hold.hold_id, key)
        self.future: Future[Any] = pool.submit(outcome, call, self.caller, self.hold.hold_id, key)
        wait_until_blocked(self.caller, watcher=self.watcher)

    def end(self) -> Any:
        """Release the lock. Returns the outcome of the call."""
        self.holder.rollback()
        return self.future.result(30)

    def close(self) -> None:
        for conn in (self.holder, self.caller, self.watcher):
            conn.close()


@pytest.mark.parametrize(("call", "lock"), QUEUES, ids=lambda it: getattr(it, "__name__", it))
def test_a_call_that_waited_for_a_lock_is_decided_by_the_instant_after_the_wait(
    campaign: Campaign,
    faketime: FaketimeCluster,
    frozen: psycopg.Connection,
    call: Callable[..., Any],
    lock: str,
) -> None:
    offsets = {
        -100_000 * MICROSECOND: None,
        -MICROSECOND: None,
        timedelta(): "SA004",
        MICROSECOND: "SA004",
        5 * SECOND: "SA004",
    }
    with ThreadPoolExecutor(1) as pool:
        for offset, refusal in offsets.items():
            faketime.clock.set(START)
            with closing(Queue(frozen.info.dsn, call, lock, pool)) as queue:
                faketime.clock.set(queue.hold.expires_at + offset)
                result = queue.end()
            assert (result if isinstance(result, str) else None) == refusal, f"{offset} from expires_at"
            frozen.execute("select flashsale.expire_due()")
    assert calls.audit(frozen) == []
    campaign.record(
        f"{call.__name__.replace('_', ' ')} waits for the {lock}'s lock until 0.1 s or a microsecond before"
        " expires_at, until it, and past it"
    )


def test_expired_while_waiting_for_a_lock(
    campaign: Campaign, db: psycopg.Connection, database_url: str
) -> None:
    """The same by the real clock: calls wait for 5 s at full size; half of the holds expire meanwhile."""
    waits = campaign.size(0.5, 5)
    queues: list[tuple[Queue, bool]] = []
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(2 * len(QUEUES)))
        # Long enough for all calls to wait when the holds expire.
        for lasting, expires in (("2 minutes", False), (f"{2 + waits} seconds", True)):
            calls.change_settings(db, hold_time=lasting)
            for call, lock in QUEUES:
                queue = stack.enter_context(closing(Queue(database_url, call, lock, pool)))
                queues.append((queue, expires))
        last = max(queue.hold.expires_at for queue, expires in queues if expires)
        began = calls.value(db, "select clock_timestamp()")
        calls.wait_until_past(db, max(last, began + timedelta(seconds=waits)))
        for queue, expires in queues:
            assert queue.hold.expires_at > began, "the call waits before the hold expires"
            result = queue.end()
            assert (result == "SA004") is expires, result
    assert calls.audit(db) == []
    campaign.record(
        f"{len(queues)} calls wait {waits} s for a lock; the holds of {len(QUEUES)} expire meanwhile"
    )


def test_concurrent_calls_around_the_instant(
    campaign: Campaign, db: psycopg.Connection, connect: Callable[..., psycopg.Connection]
) -> None:
    """Concurrent calls, by the real clock: one that ends before the instant creates the order, one that
    begins at the instant or later is refused."""
    rounds, buyers = campaign.size(1, 20), 4
    conns = [connect() for _ in range(buyers)]
    product = calls.create_product(db, 1_000_000)
    for conn in conns:
        calls.order_units(conn, product)  # plans the functions
    calls.change_settings(db, hold_time="2 seconds")
    outcomes: Counter[str] = Counter()
    for tried in itertools.count(1):
        holds = calls.place_holds(db, *[(product, 1)] * 1000)
        instant = holds[0].expires_at
        assert {hold.expires_at for hold in holds} == {instant}
        mine = [[hold.hold_id for hold in holds[n::buyers]] for n in range(buyers)]
        with ThreadPoolExecutor(buyers) as pool:
            for counted in pool.map(order_around, conns, [instant] * buyers, mine):
                outcomes += counted
        assert not outcomes["too late"] and not outcomes["too early"], outcomes
        # On a busy machine a round may have no call around its instant.
        if tried >= rounds and outcomes["served before"] and outcomes["refused after"]:
            break
        assert tried < rounds + 20, outcomes
    assert calls.audit(db) == []
    campaign.record(
        f"{outcomes.total():,} calls of create_order around expires_at in {buyers} sessions",
        f"all: {outcomes['served before']} served before, {outcomes['refused after']} refused after,"
        f" {outcomes['across']} across it",
        calls_around_expires_at=outcomes.total(),
    )


def order_around(conn: psycopg.Connection, instant: datetime, holds: list[int]) -> Counter[str]:
    """Create orders of these holds from a moment before the instant to a moment after; count the outcomes."""
    outcomes: Counter[str] = Counter()
    moment = timedelta(milliseconds=80)
    calls.wait_until_past(conn, instant - moment)
    for hold in holds:
        before = calls.value(conn, "select clock_timestamp()")
        if before > instant + moment:
            break
        answer = outcome(calls.create_order, conn, hold)
        after = calls.value(conn, "select clock_timestamp()")
        served = not isinstance(answer, str)
        assert served or answer == "SA004", answer
        if after < instant:
            outcomes["served before" if served else "too early"] += 1
        elif before >= instant:
            outcomes["too late" if served else "refused after"] += 1
        else:
            outcomes["across"] += 1
    return outcomes


# --- a sale, step by step ---


def test_a_clock_that_steps_back(
    campaign: Campaign, faketime: FaketimeCluster, frozen: psycopg.Connection
) -> None:
    sales, steps = campaign.size((2, 60), (30, 100))
    for number_of_sale in range(sales):
        now = START
        faketime.clock.set(now)
        sale = Sale(frozen, [campaign.random.randint(3, 12) for _ in range(2)])
        for number in range(steps):
            before = sale.state()
            if campaign.random.random() < 0.3:
                jump = campaign.random.choice([1, 30, 300, 3600]) * SECOND
                now += jump * campaign.random.uniform(-1, 1)
                faketime.clock.set(now)
            elif campaign.random.random() < 0.15:
                sale.sweep()
                assert sale.state() == before, "a sweep changes no response"
            else:
                step = random_step(campaign.random, sale, number_of_sale * 1000 + number)
                step(sale)
            after = sale.state()
            for was, status in zip(before["holds"], after["holds"], strict=False):
                assert was == status or was in ("active", "expired"), "ordered and released are final"
            for (was, reason), (status, _) in zip(before["orders"], after["orders"], strict=False):
                assert was != "paid" or status == "paid", "paid is final"
                assert reason != "payment_cancelled" or status == "cancelled", "so is payment_cancelled"
            sale.assert_exact()
    campaign.record(
        f"{sales} sales of {steps} steps, the clock set forward and back by up to an hour",
        "all; stock exact and audit() empty after each step",
        sales_with_a_set_clock=sales,
    )


def test_units_of_an_expired_hold_stay_available_when_the_clock_steps_back(
    faketime: FaketimeCluster, frozen: psycopg.Connection
) -> None:
    """They may have been sold again: the hold stays expired."""
    product = calls.create_product(frozen, 1)
    lapsed = calls.place_hold(frozen, product)
    faketime.clock.set(lapsed.expires_at)
    sold = calls.place_hold(frozen, product)
    faketime.clock.set(START - 3600 * SECOND)
    assert calls.get_hold(frozen, lapsed.hold_id).status == "expired"
    assert outcome(calls.create_order, frozen, lapsed.hold_id) == "SA004"
    assert outcome(calls.release_hold, frozen, lapsed.hold_id) == "SA004"
    assert calls.get_hold(frozen, sold.hold_id).status == "active"
    assert calls.available(frozen, product) == 0
    assert outcome(calls.place_hold, frozen, product) == "SA002"
    assert calls.create_order(frozen, sold.hold_id).status == "pending_payment"
    assert calls.audit(frozen) == []


def test_ten_minutes_without_a_sweep(campaign: Campaign, faketime: FaketimeCluster) -> None:
    """The same steps at the same instants in two databases, one swept after each step, the other never."""
    sales, steps = campaign.size((2, 60), (25, 120))
    compared = 0
    with (
        psycopg.connect(faketime.new_database(), autocommit=True) as swept,
        psycopg.connect(faketime.new_database(), autocommit=True) as unswept,
    ):
        for conn in (swept, unswept):
            calls.change_settings(conn, payment_window="3 minutes")
        for number_of_sale in range(sales):
            now = START
            faketime.clock.set(now)
            stocks = [campaign.random.randint(3, 12) for _ in range(2)]
            pair = [Sale(conn, stocks) for conn in (swept, unswept)]

            for number in range(steps):
                step = random_step(campaign.random, pair[0], number_of_sale * 1000 + number)
                responses = [step(sale) for sale in pair]
                assert responses[0] == responses[1]
                now += timedelta(minutes=10) / steps * campaign.random.uniform(0, 2)
                faketime.clock.set(now)
                pair[0].sweep()
                states = [sale.state() for sale in pair]
                assert states[0] == states[1]
                compared += 1
            assert calls.audit(swept) == calls.audit(unswept) == []
            for sale in pair:
                sale.sweep()
            assert pair[0].state() == pair[1].state()
    campaign.record(
        f"10 minutes without a sweep: {sales} sales, {compared:,} responses as in a swept database"
    )
