"""The limit for each buyer when requests come at the same time."""

from datetime import timedelta

import pytest
from psycopg import IsolationLevel

from tests.support.sql_calls import (
    LOCKED,
    apply_payment,
    audit,
    change_settings,
    change_terms,
    create_order,
    create_product,
    extend_hold,
    get_allowance,
    outcome,
    place_hold,
    place_holds,
    release_hold,
    rows,
    sqlstates,
    value,
    wait_until_past,
)
from tests.support.waiting import wait_until_blocked

pytestmark = pytest.mark.slow


@pytest.fixture
def sizes(db):
    """Four sizes of one shoe, 2 for each buyer."""
    return [create_product(db, stock=100, max_per_buyer=2, limit_group="shoe") for _ in range(4)]


def lasting(db, product, milliseconds, buyer="ann", qty=1):
    change_settings(db, hold_time=timedelta(milliseconds=milliseconds))
    hold = place_hold(db, product, qty, buyer=buyer)
    change_settings(db, hold_time="2 minutes")
    return hold


def test_200_requests_of_one_buyer_for_four_sizes_get_the_limit(sizes, connect, meanwhile, db):
    """50 callers on 4 products, 4 requests each; nothing sweeps."""
    conns = [connect() for _ in range(50)]

    def ask(n):
        return [outcome(place_hold, conns[n], sizes[(n + i) % 4], 1, None, "ann") for i in range(4)]

    found = [each for future in [meanwhile(ask, n) for n in range(50)] for each in future.result()]
    assert [each for each in found if isinstance(each, str)] == ["SA017"] * 198
    assert get_allowance(db, sizes[0], "ann").taken == 2


def test_at_the_instant_at_which_one_lapses_the_buyer_gets_one_more(sizes, connect, meanwhile, db):
    """And not before: the callers ask without pause from well before it."""
    first = lasting(db, sizes[0], 700)
    place_hold(db, sizes[1], 1, buyer="ann")
    conns = [connect() for _ in range(16)]
    until = first.expires_at + timedelta(milliseconds=300)

    def ask(n):
        placed = []
        while value(conns[n], "select clock_timestamp()") < until:
            found = outcome(place_hold, conns[n], sizes[n % 4], 1, None, "ann")
            if not isinstance(found, str):
                placed.append(
                    value(conns[n], "select placed_at from flashsale_data.holds where hold_id = %s", found[0])
                )
        return placed

    placed = [at for future in [meanwhile(ask, n) for n in range(16)] for at in future.result()]
    assert len(placed) == 1 and placed[0] >= first.expires_at
    assert value(db, "select count(*) from flashsale_data.holds where status = 'expired'") == 0


def test_a_product_without_a_group_needs_no_other_lock(db, at_once):
    product = create_product(db, stock=100, max_per_buyer=3)
    found = at_once(place_hold, [(product, 1, None, f"buyer {n % 8}") for n in range(40)])
    assert found.count("SA017") == 40 - 8 * 3


def test_batches_of_one_buyer_get_the_limit_between_them(sizes, at_once, db):
    found = at_once(
        place_holds, [[(size, 1, None, "ann") for size in sizes[n:] + sizes[:n]] for n in range(4)] * 4
    )
    states = [state for batch in found for state in sqlstates(batch)]
    assert states.count(None) == 2
    assert set(states) <= {None, "SA017", LOCKED}


def test_a_buyer_waits_for_another_size_of_his(sizes, first, second, blocked):
    place_hold(first, sizes[0], 2, buyer="ann")
    hold = blocked(place_hold, second, sizes[1], 1, None, "ann")
    first.commit()
    assert hold.result() == "SA017"


def test_a_buyer_who_waits_delays_no_other(sizes, first, second, blocked, connect):
    place_hold(first, sizes[0], 2, buyer="ann")
    hold = blocked(place_hold, second, sizes[1], 1, None, "ann")
    assert outcome(place_hold, connect(), sizes[1], 1, None, "bob").status == "active"
    batch = place_holds(connect(), (sizes[1], 1, None, "ann"), (sizes[1], 1, None, "cid"))
    assert sqlstates(batch) == [LOCKED, None]
    first.rollback()
    assert hold.result().status == "active"


ENDS = {
    "order": lambda conn, hold: create_order(conn, hold.hold_id),
    "extension": lambda conn, hold: extend_hold(conn, hold.hold_id, hold.expires_at),
}


@pytest.mark.parametrize("kept", ENDS)
def test_a_hold_that_is_kept_in_time_and_committed_late_still_counts(db, sizes, first, second, blocked, kept):
    """The buyer's next hold, of another size, waits for the transaction that keeps the first one."""
    hold = lasting(db, sizes[0], 1000, qty=2)
    ENDS[kept](first, hold)
    wait_until_past(db, hold.expires_at)
    other = blocked(place_hold, second, sizes[1], 1, None, "ann")
    first.commit()
    assert other.result() == "SA017"


@pytest.mark.parametrize("kept", ENDS)
def test_a_hold_is_not_kept_after_its_end_has_made_room(db, sizes, first, second, meanwhile, kept):
    """The other way round: the next hold comes first, at the instant at which this one ends."""
    hold = lasting(db, sizes[0], 1000, qty=2)
    wait_until_past(db, hold.expires_at)
    place_hold(first, sizes[1], 2, buyer="ann")
    keeping = meanwhile(outcome, ENDS[kept], second, hold)
    if kept == "extension":  # an order is refused without a lock
        wait_until_blocked(second, watcher=db)
    first.commit()
    assert keeping.result() == "SA004"


def test_a_payment_that_is_committed_late_still_counts(db, sizes, first, second, blocked):
    change_settings(db, payment_window="1 second")
    order = create_order(db, place_hold(db, sizes[0], 2, buyer="ann").hold_id)
    apply_payment(first, "pays", order.order_id)
    wait_until_past(db, order.payment_due_at)
    other = blocked(place_hold, second, sizes[1], 1, None, "ann")
    first.commit()
    assert other.result() == "SA017"


def test_a_late_payment_waits_for_the_hold_that_takes_its_place(db, sizes, first, second, blocked):
    change_settings(db, payment_window="100 ms")
    order = create_order(db, place_hold(db, sizes[0], 2, buyer="ann").hold_id)
    wait_until_past(db, order.payment_due_at)
    place_hold(first, sizes[1], 1, buyer="ann")
    payment = blocked(apply_payment, second, "late", order.order_id)
    first.commit()
    assert payment.result().result == "refund_due"


def test_a_limit_that_is_set_meanwhile_counts_the_hold_that_waited(db, product, first, second, blocked):
    place_hold(first, product, 2, buyer="ann")
    change = blocked(change_terms, second, product)
    first.commit()
    change.result()
    change_terms(first, product, max_per_buyer=2)
    hold = blocked(place_hold, second, product, 1, None, "ann")
    first.commit()
    assert hold.result() == "SA017"


def test_a_product_that_joins_a_group_while_a_buyer_waits(db, sizes, first, second, blocked):
    """The hold has looked up the group before it waits for the product, and is judged by the new one."""
    late = create_product(db, max_per_buyer=2)
    place_hold(db, sizes[0], 2, buyer="ann")
    change_terms(first, late, limit_group="shoe")
    hold = blocked(place_hold, second, late, 1, None, "ann")
    first.commit()
    assert hold.result() == "SA017"


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_an_old_snapshot_does_not_exceed_the_limit(db, sizes, connect, level):
    """What the buyer has in another size is not in the snapshot: 40001."""
    conn = connect(autocommit=False)
    conn.isolation_level = level
    rows(conn, "select 1 from flashsale_data.claims")
    place_hold(db, sizes[0], 2, buyer="ann")
    assert outcome(place_hold, conn, sizes[1], 1, None, "ann") == "40001"
    conn.rollback()
    assert outcome(place_hold, conn, sizes[1], 1, None, "bob").status == "active"
    conn.commit()
    assert outcome(place_hold, conn, sizes[1], 1, None, "ann") == "SA017"


def test_buyers_who_do_everything_at_once_never_exceed_it(db, sizes, connect, meanwhile):
    """Holds that lapse, orders, payments, releases and extensions of two buyers; the audit replays them."""
    change_settings(db, hold_time="200 ms", payment_window="300 ms", extension_time="200 ms")
    conns = [connect() for _ in range(8)]
    until = value(db, "select clock_timestamp() + interval '3 seconds'")

    def act(n):
        conn, done = conns[n], 0
        while value(conn, "select clock_timestamp()") < until:
            done += 1
            hold = outcome(place_hold, conn, sizes[(n + done) % 4], 1 + done % 2, None, f"buyer {n % 2}")
            if isinstance(hold, str):
                assert hold in ("SA017", LOCKED)
                continue
            match done % 5:
                case 0:
                    outcome(release_hold, conn, hold.hold_id)
                case 1:
                    outcome(extend_hold, conn, hold.hold_id, hold.expires_at)
                case 2 | 3:
                    order = outcome(create_order, conn, hold.hold_id)
                    if not isinstance(order, str):
                        status = "success" if done % 7 == 0 else "failed"
                        outcome(apply_payment, conn, f"pay {order.order_id}", order.order_id, status)
        return done

    for future in [meanwhile(act, n) for n in range(8)]:
        assert future.result() > 0
    assert value(db, "select count(*) from flashsale_data.holds") > 10
    assert audit(db) == []


def test_the_control_finds_a_limit_that_is_read_without_the_lock(db, sizes, first, second, without):
    """Two sizes at once, without the lock on what the buyer has: both are placed, and the audit says so."""
    without("claim-lock", "and false", "")
    place_hold(first, sizes[0], 2, buyer="ann")
    assert place_hold(second, sizes[1], 2, buyer="ann").status == "active"
    first.commit()
    assert audit(db) == ["limit_kept"]
