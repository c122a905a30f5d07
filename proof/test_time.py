"""Time: refused at exactly `expires_at`, whatever the wait; the clock set back; no sweep for minutes.

Where an instant matters to the microsecond, PostgreSQL's clock stands still and is set by hand.
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
from proof.faketime import LIBRARIES, MICROSECOND, SettableCluster, settable_cluster
from proof.random_sale import WORDS, Sale, random_step
from tests.support import sql_calls as calls
from tests.support.sql_calls import outcome
from tests.support.waiting import wait_until_blocked

START = datetime(2031, 5, 4, 12, 0, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture(scope="module")
def settable() -> Iterator[SettableCluster]:
    if not LIBRARIES:
        pytest.skip("libfaketime is not installed: nobody can set the clock")
    with settable_cluster(START) as made:
        yield made


@pytest.fixture
def frozen(settable: SettableCluster) -> Iterator[psycopg.Connection]:
    """A fresh database whose clock stands at START."""
    settable.clock.set(START)
    with psycopg.connect(settable.new_database(), autocommit=True) as conn:
        yield conn


# --- exactly at the instant ---


def test_the_clock_is_the_one_that_was_set(settable: SettableCluster, frozen: psycopg.Connection) -> None:
    for microsecond in (0, 1, 100_000, 299_999, 300_000, 700_000, 999_999):
        instant = START.replace(microsecond=microsecond)
        settable.clock.set(instant)
        assert calls.value(frozen, "select clock_timestamp()") == instant


def test_refused_at_exactly_expires_at(
    campaign: Campaign, settable: SettableCluster, frozen: psycopg.Connection
) -> None:
    times = campaign.size(5, 500)
    product = calls.create_product(frozen, 4)
    now = START
    for _ in range(times):
        now += timedelta(microseconds=campaign.random.randrange(10_000_000))
        settable.clock.set(now)
        lasting = timedelta(milliseconds=campaign.random.randrange(100, 200_000))
        calls.change_settings(frozen, hold_time=lasting)
        used, released, late, left = (calls.place_hold(frozen, product) for _ in range(4))
        now = late.expires_at - MICROSECOND
        settable.clock.set(now)
        assert calls.available(frozen, product) == 0
        assert calls.get_hold(frozen, late.hold_id).status == "active"
        order = calls.create_order(frozen, used.hold_id)
        calls.release_hold(frozen, released.hold_id)

        now = late.expires_at
        settable.clock.set(now)
        assert calls.get_hold(frozen, late.hold_id).status == "expired"
        assert outcome(calls.create_order, frozen, late.hold_id) == "SA004"
        assert outcome(calls.release_hold, frozen, left.hold_id) == "SA004"
        assert calls.available(frozen, product) == 3
        assert len({calls.place_hold(frozen, product).hold_id for _ in range(3)}) == 3
        assert outcome(calls.place_hold, frozen, product) == "SA002"

        now = order.payment_due_at - MICROSECOND
        settable.clock.set(now)
        assert calls.get_order(frozen, order.order_id).status == "pending_payment"
        now = order.payment_due_at
        settable.clock.set(now)
        assert calls.get_order(frozen, order.order_id).cancel_reason == "payment_overdue"
        assert calls.available(frozen, product) == 4
    assert calls.audit(frozen) == []
    campaign.tried(
        f"the clock set to expires_at, to payment_due_at, and to one microsecond less, {times} times",
        "all; refused at the instant, served before it",
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
"""what a call for a hold can queue for; each takes one"""


def create_order(conn: psycopg.Connection, hold: int, key: str) -> Any:
    return calls.create_order(conn, hold, key)


def release_hold(conn: psycopg.Connection, hold: int, key: str) -> Any:
    return calls.release_hold(conn, hold)


QUEUES = [(create_order, "product"), (create_order, "hold"), (create_order, "key"),
          (release_hold, "product"), (release_hold, "hold")]  # fmt: skip


class Queue:
    """A call that waits for a lock which somebody else holds."""

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
        """Let go of the lock; what the call came to."""
        self.holder.rollback()
        return self.future.result(30)

    def close(self) -> None:
        for conn in (self.holder, self.caller, self.watcher):
            conn.close()


@pytest.mark.parametrize(("call", "lock"), QUEUES, ids=lambda it: getattr(it, "__name__", it))
def test_who_waits_for_a_lock_is_judged_by_when_it_came(
    campaign: Campaign,
    settable: SettableCluster,
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
            settable.clock.set(START)
            with closing(Queue(frozen.info.dsn, call, lock, pool)) as queue:
                settable.clock.set(queue.hold.expires_at + offset)
                came = queue.end()
            assert (came if isinstance(came, str) else None) == refusal, f"{offset} from expires_at"
            frozen.execute("select flashsale.expire_due()")
    assert calls.audit(frozen) == []
    campaign.tried(
        f"{call.__name__.replace('_', ' ')} waits for the {lock}'s lock until 0.1 s or a microsecond before"
        " expires_at, until it, and past it"
    )


def test_expired_in_the_queue(campaign: Campaign, db: psycopg.Connection, database_url: str) -> None:
    """The same by the real clock: all wait, for 5 s in full, and expire meanwhile; or do not."""
    waits = campaign.size(0.5, 5)
    queues: list[tuple[Queue, bool]] = []
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(2 * len(QUEUES)))
        # So long that everybody surely waits when it expires.
        for lasting, expires in (("2 minutes", False), (f"{2 + waits} seconds", True)):
            calls.change_settings(db, hold_time=lasting)
            for call, lock in QUEUES:
                queue = stack.enter_context(closing(Queue(database_url, call, lock, pool)))
                queues.append((queue, expires))
        last = max(queue.hold.expires_at for queue, expires in queues if expires)
        began = calls.value(db, "select clock_timestamp()")
        calls.wait_until_past(db, max(last, began + timedelta(seconds=waits)))
        for queue, expires in queues:
            assert queue.hold.expires_at > began, "nobody waited before the hold had expired"
            came = queue.end()
            assert (came == "SA004") is expires, came
    assert calls.audit(db) == []
    campaign.tried(
        f"{len(queues)} calls wait {waits} s for a lock; the holds of {len(QUEUES)} expire meanwhile"
    )


def test_around_the_instant(
    campaign: Campaign, db: psycopg.Connection, connect: Callable[..., psycopg.Connection]
) -> None:
    """Many at once, by the real clock: whoever is answered before the instant gets the order, whoever asks
    at it or after does not."""
    rounds, buyers = campaign.size(1, 20), 4
    conns = [connect() for _ in range(buyers)]
    product = calls.create_product(db, 1_000_000)
    for conn in conns:
        calls.order_units(conn, product)  # plans are made
    calls.change_settings(db, hold_time="2 seconds")
    seen: Counter[str] = Counter()
    for tried in itertools.count(1):
        holds = calls.place_holds(db, *[(product, 1)] * 1000)
        instant = holds[0].expires_at
        assert {hold.expires_at for hold in holds} == {instant}
        mine = [[hold.hold_id for hold in holds[n::buyers]] for n in range(buyers)]
        with ThreadPoolExecutor(buyers) as pool:
            for counted in pool.map(ask_around, conns, [instant] * buyers, mine):
                seen += counted
        assert not seen["too late"] and not seen["too early"], seen
        # A busy machine may have let a round sleep through its instant.
        if tried >= rounds and seen["served before"] and seen["refused after"]:
            break
        assert tried < rounds + 20, seen
    assert calls.audit(db) == []
    campaign.tried(
        f"{seen.total():,} orders asked for around expires_at by {buyers} at once",
        f"all: {seen['served before']} served before, {seen['refused after']} refused after,"
        f" {seen['across']} across it",
    )


def ask_around(conn: psycopg.Connection, instant: datetime, holds: list[int]) -> Counter[str]:
    """Orders for these holds from a moment before the instant to a moment after, and what was right."""
    seen: Counter[str] = Counter()
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
            seen["served before" if served else "too early"] += 1
        elif before >= instant:
            seen["too late" if served else "refused after"] += 1
        else:
            seen["across"] += 1
    return seen


# --- a sale, step by step ---


def test_the_clock_stepping_back(
    campaign: Campaign, settable: SettableCluster, frozen: psycopg.Connection
) -> None:
    sales, steps = campaign.size((2, 60), (30, 100))
    for number_of_sale in range(sales):
        now = START
        settable.clock.set(now)
        sale = Sale(frozen, [campaign.random.randint(3, 12) for _ in range(2)])
        for number in range(steps):
            before = sale.state()
            if campaign.random.random() < 0.3:
                jump = campaign.random.choice([1, 30, 300, 3600]) * SECOND
                now += jump * campaign.random.uniform(-1, 1)
                settable.clock.set(now)
            elif campaign.random.random() < 0.15:
                sale.sweep()
                assert sale.state() == before, "sweeping changes no answer"
            else:
                step = random_step(campaign.random, sale, number_of_sale * 1000 + number, lambda _: WORDS)
                step(sale)
            after = sale.state()
            for was, status in zip(before["holds"], after["holds"], strict=False):
                assert was == status or was in ("active", "expired"), "ordered and released are for good"
            for (was, reason), (status, _) in zip(before["orders"], after["orders"], strict=False):
                assert was != "paid" or status == "paid", "paid is for good"
                assert reason != "payment_cancelled" or status == "cancelled", "so is called off"
            sale.assert_exact()
    campaign.tried(
        f"{sales} sales of {steps} steps, the clock set forward and back by up to an hour",
        "all; stock exact and books balanced after each step",
    )


def test_hold_that_was_given_back_stays_given_back(
    settable: SettableCluster, frozen: psycopg.Connection
) -> None:
    """Its units have been sold again when the clock steps back: it must not come to life."""
    product = calls.create_product(frozen, 1)
    lapsed = calls.place_hold(frozen, product)
    settable.clock.set(lapsed.expires_at)
    sold = calls.place_hold(frozen, product)
    settable.clock.set(START - 3600 * SECOND)
    assert calls.get_hold(frozen, lapsed.hold_id).status == "expired"
    assert outcome(calls.create_order, frozen, lapsed.hold_id) == "SA004"
    assert outcome(calls.release_hold, frozen, lapsed.hold_id) == "SA004"
    assert calls.get_hold(frozen, sold.hold_id).status == "active"
    assert calls.available(frozen, product) == 0
    assert outcome(calls.place_hold, frozen, product) == "SA002"
    assert calls.create_order(frozen, sold.hold_id).status == "pending_payment"
    assert calls.audit(frozen) == []


def test_nobody_tidies_for_ten_minutes(campaign: Campaign, settable: SettableCluster) -> None:
    """The same steps at the same instants in two databases, one swept after each, the other never."""
    sales, steps = campaign.size((2, 60), (25, 120))
    compared = 0
    with (
        psycopg.connect(settable.new_database(), autocommit=True) as swept,
        psycopg.connect(settable.new_database(), autocommit=True) as unswept,
    ):
        for conn in (swept, unswept):
            calls.change_settings(conn, payment_window="3 minutes")
        for number_of_sale in range(sales):
            now = START
            settable.clock.set(now)
            stocks = [campaign.random.randint(3, 12) for _ in range(2)]
            pair = [Sale(conn, stocks) for conn in (swept, unswept)]

            def words(order: int) -> list[str]:
                # What failed or called off means to an overdue order depends, by contract, on whether it
                # has been swept: applied if not, no_change if it has (its table, rows 3 and 5).
                reason = pair[0].state()["orders"][order][1]  # noqa: B023
                return ["success"] if reason == "payment_overdue" else WORDS

            for number in range(steps):
                step = random_step(campaign.random, pair[0], number_of_sale * 1000 + number, words)
                answers = [step(sale) for sale in pair]
                assert answers[0] == answers[1]
                now += timedelta(minutes=10) / steps * campaign.random.uniform(0, 2)
                settable.clock.set(now)
                pair[0].sweep()
                states = [sale.state() for sale in pair]
                assert states[0] == states[1]
                compared += 1
            assert calls.audit(swept) == calls.audit(unswept) == []
            for sale in pair:
                sale.sweep()
            assert pair[0].state() == pair[1].state()
    campaign.tried(
        f"no sweep runs for 10 minutes: {sales} sales, {compared:,} answers compared with a swept one's"
    )
