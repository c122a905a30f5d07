"""Callers in REPEATABLE READ and SERIALIZABLE get 40001 or a correct answer, never a wrong one.

Correct is what one of the two would have been told had they come one after the other, in either order; both
orders are really run, and undone, to find out.
"""

from contextlib import suppress
from types import SimpleNamespace

import psycopg
import pytest
from psycopg import IsolationLevel, errors

from tests.support.sql_calls import (
    adjust_stock,
    age_inbox,
    apply_payment,
    available,
    change_settings,
    create_order,
    create_orders,
    create_product,
    expire_due,
    get_hold,
    get_order,
    next_order_id,
    order_units,
    outcome,
    place_hold,
    place_holds,
    release_hold,
    release_holds,
    sqlstates,
    value,
    wait_until_blocked_or_done,
    wait_until_past,
)

pytestmark = pytest.mark.slow

LEVELS = [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE]
SET_LEVEL = {
    level: f"set default_transaction_isolation = '{level.name.replace('_', ' ')}'" for level in LEVELS
}

# Of 10 units 5 are available: 2 are held, 2 await payment, and 1 was held until a moment ago.
WRITES = {
    "place_hold": lambda conn, shop: place_hold(conn, shop.product, 5),
    "place_hold with key": lambda conn, shop: place_hold(conn, shop.product, 1, f"k{shop.product}"),
    "release_hold": lambda conn, shop: release_hold(conn, shop.hold),
    "create_order": lambda conn, shop: create_order(conn, shop.hold),
    "create_order with key": lambda conn, shop: create_order(conn, shop.hold, f"k{shop.product}"),
    "apply_payment success": lambda conn, shop: apply_payment(conn, f"s{shop.product}", shop.order),
    "apply_payment failed": lambda conn, shop: apply_payment(conn, f"f{shop.product}", shop.order, "failed"),
    "apply_payment stored": lambda conn, shop: apply_payment(conn, f"e{shop.product}", shop.next_order),
    "adjust_stock": lambda conn, shop: adjust_stock(conn, shop.product, -6),
    "expire_due": lambda conn, shop: expire_due(conn),
}


def open_shops(db, count):
    shops = []
    for _ in range(count):
        product = create_product(db, stock=10)
        hold, order = place_hold(db, product, 2).hold_id, order_units(db, product, 2).order_id
        shops.append(SimpleNamespace(product=product, hold=hold, order=order, next_order=None))
    change_settings(db, hold_time="100 ms")
    lapsing = [place_hold(db, shop.product, 1) for shop in shops]
    change_settings(db, hold_time="2 minutes")
    wait_until_past(db, lapsing[-1].expires_at)
    return shops


def said(result):
    """The answer without ids and times, which differ from run to run.

    Nor does a sweep's count matter: it leaves to the next one what it would have to wait for.
    """
    if isinstance(result, (str, int)):
        return result if isinstance(result, str) else "swept"
    names = [
        name
        for name in ("status", "result", "replayed", "total_stock", "available_stock")
        if hasattr(result, name)
    ]
    return tuple(getattr(result, name) for name in names)


def state(db, shop):
    born = value(db, "select array_agg(status) from flashsale_data.orders where hold_id = %s", shop.hold)
    return available(db, shop.product), get_hold(db, shop.hold).status, get_order(db, shop.order).status, born


def one_after_the_other(db, shop, *writes):
    """The answers to these writes and the state they leave behind. Undone."""
    with db.transaction(force_rollback=True):
        shop.next_order = next_order_id(db)
        answers = [in_savepoint(db, write, shop) for write in writes]
        return answers, state(db, shop)


def in_savepoint(db, write, shop):
    try:
        with db.transaction():
            return said(write(db, shop))
    except psycopg.Error as error:
        return error.sqlstate


def write_and(commit, conn, write, shop):
    """The answer to a write, after a commit if that is asked for."""
    try:
        answer = said(write(conn, shop))
        if commit:
            conn.commit()
        return answer
    except psycopg.Error as error:
        conn.rollback()
        return error.sqlstate


def commit(conn, answer):
    """The answer to a write that has been made, now that it is committed."""
    try:
        conn.commit()
        return answer
    except errors.SerializationFailure:
        return "40001"


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
@pytest.mark.parametrize("late", WRITES)
def test_a_write_whose_snapshot_is_older_than_another_write(db, connect, meanwhile, level, late):
    """The early one has committed, or is in progress, when the late one, whose snapshot is older, writes."""
    first, second = connect(autocommit=False), connect(autocommit=False)
    first.isolation_level = second.isolation_level = level
    shops = iter(open_shops(db, 2 * len(WRITES)))
    for early in WRITES:
        for in_progress in (False, True):
            shop = next(shops)
            # Not an id for which the last round has left a webhook behind.
            db.execute("select nextval('flashsale_data.order_ids')")
            (forth, after_forth) = one_after_the_other(db, shop, WRITES[early], WRITES[late])
            (back, after_back) = one_after_the_other(db, shop, WRITES[late], WRITES[early])
            (early_alone, after_early) = one_after_the_other(db, shop, WRITES[early])
            (late_alone, after_late) = one_after_the_other(db, shop, WRITES[late])
            right = [
                (*forth, after_forth),
                (*back[::-1], after_back),
                (*early_alone, "40001", after_early),
                ("40001", *late_alone, after_late),
            ]

            shop.next_order = next_order_id(db)
            second.execute("select count(*) from flashsale_data.orders")
            answer = write_and(not in_progress, first, WRITES[early], shop)
            if in_progress:
                late_answer = meanwhile(write_and, True, second, WRITES[late], shop)
                wait_until_blocked_or_done(db, second, late_answer)
                answer = commit(first, answer)
                late_answer = late_answer.result()
            else:
                late_answer = write_and(True, second, WRITES[late], shop)

            assert (answer, late_answer, state(db, shop)) in right, (early, late, in_progress)


# --- one by one: what the pairs above cannot show ---


@pytest.fixture(params=LEVELS, ids=lambda level: level.name)
def second(request, connect):
    conn = connect(autocommit=False)
    conn.isolation_level = request.param
    return conn


def test_a_key_used_for_another_product_since(db, product, second):
    other = create_product(db)
    available(second, product)
    place_hold(db, other, 1, "k")
    assert outcome(place_hold, second, product, 1, "k") == "40001"


def test_a_key_used_for_another_hold_since(db, product, second):
    hold, other = place_hold(db, product), place_hold(db, create_product(db))
    available(second, product)
    create_order(db, other.hold_id, "k")
    assert outcome(create_order, second, hold.hold_id, "k") == "40001"


def test_a_key_used_for_another_payment_since(db, product, second):
    order, other = order_units(db, product), order_units(db, create_product(db))
    available(second, product)
    apply_payment(db, "k", other.order_id)
    assert outcome(apply_payment, second, "k", order.order_id) == "40001"


def test_a_key_used_for_a_webhook_without_an_order_since(db, product, second):
    order = order_units(db, product)
    available(second, product)
    apply_payment(db, "k", 10**9)
    assert outcome(apply_payment, second, "k", order.order_id) == "40001"


def test_a_webhook_stored_since_is_not_missed_by_its_order(db, product, second):
    hold = place_hold(db, product)
    available(second, product)
    apply_payment(db, "p", next_order_id(db))
    assert outcome(create_order, second, hold.hold_id) == "40001"
    second.rollback()
    apply_payment(db, "q", next_order_id(db))
    assert create_order(second, hold.hold_id).status == "paid"
    second.commit()


def test_an_order_created_since_is_not_missed_by_its_webhook(db, product, second):
    available(second, product)
    order = order_units(db, product)
    assert outcome(apply_payment, second, "p", order.order_id) == "40001"
    second.rollback()
    assert apply_payment(second, "p", order.order_id).result == "applied"
    second.commit()


def test_a_webhook_for_an_order_that_never_was_can_be_stored(db, product, second):
    """An id that was drawn, and whose order was then undone, must not send its webhooks round for ever."""
    hold = place_hold(db, product)
    with db.transaction(force_rollback=True):
        order = create_order(db, hold.hold_id)
    assert outcome(apply_payment, second, "p", order.order_id).result == "stored"
    second.commit()


def test_a_product_sold_out_before_is_not_refused_by_an_old_snapshot(db, product, second):
    hold = place_hold(db, product, 10)
    available(second, product)
    release_hold(db, hold.hold_id)
    assert outcome(place_hold, second, product) == "40001"


def test_an_inbox_emptied_since(db, second):
    change_settings(db, inbox_limit=1)
    apply_payment(db, "old", 10**9)
    value(second, "select count(*) from flashsale_data.payments")
    age_inbox(db)
    assert expire_due(db) == 1
    assert outcome(apply_payment, second, "new", 10**9 + 1) == "40001"


# --- final answers: a write does not give one that is out of date ---


def test_a_hold_placed_since_is_not_unknown(db, product, second):
    available(second, product)
    hold = place_hold(db, product)
    assert outcome(create_order, second, hold.hold_id) == "40001"
    second.rollback()
    available(second, product)
    hold = place_hold(db, product)
    assert outcome(release_hold, second, hold.hold_id) == "40001"


def test_a_product_created_since_is_not_unknown(db, product, second):
    available(second, product)
    other = create_product(db)
    assert outcome(place_hold, second, other) == "40001"
    second.rollback()
    available(second, product)
    other = create_product(db)
    assert outcome(adjust_stock, second, other, 1) == "40001"


def test_what_there_is_not_is_unknown_at_every_level_and_leaves_no_trace(db, product, second):
    assert sqlstates(create_orders(second, (4711,), (4712, "k"))) == ["SA003", "SA003"]
    assert sqlstates(release_holds(second, 4711)) == ["SA003"]
    assert sqlstates(place_holds(second, (4711, 1), (4711, 1, "k"))) == ["SA001", "SA001"]
    second.commit()
    for table, count in (("holds", 0), ("orders", 0), ("products", 1)):
        assert value(db, f"select count(*) from flashsale_data.{table}") == count
    assert outcome(adjust_stock, second, 4711, 1) == "SA001"


def test_a_replayed_hold_is_not_returned_in_an_old_state(db, product, second):
    hold = place_hold(db, product, 1, "k")
    available(second, product)
    create_order(db, hold.hold_id)
    assert outcome(place_hold, second, product, 1, "k") == "40001"
    second.rollback()
    assert place_hold(second, product, 1, "k").order_status == "pending_payment"


def test_a_replayed_order_is_not_returned_in_an_old_state(db, product, second):
    hold = place_hold(db, product)
    order = create_order(db, hold.hold_id, "k")
    available(second, product)
    apply_payment(db, "p", order.order_id)
    assert outcome(create_order, second, hold.hold_id, "k") == "40001"
    second.rollback()
    assert create_order(second, hold.hold_id, "k").status == "paid"


def test_the_order_of_a_used_hold_is_not_returned_in_an_old_state(db, product, second):
    hold = place_hold(db, product)
    order = create_order(db, hold.hold_id)
    available(second, product)
    apply_payment(db, "p", order.order_id)
    assert outcome(create_order, second, hold.hold_id) == "40001"
    second.rollback()
    assert outcome(create_order, second, hold.hold_id) == "SA006"


def test_a_replayed_webhook_is_not_returned_in_an_old_state(db, product, second):
    order_id = next_order_id(db)
    apply_payment(db, "p", order_id)
    available(second, product)
    order_units(db, product)
    assert outcome(apply_payment, second, "p", order_id) == "40001"
    second.rollback()
    assert apply_payment(second, "p", order_id).result == "applied"


def test_a_key_of_a_sold_out_product_that_was_used_since(db, product, second):
    place_hold(db, product, 10)
    available(second, product)
    place_hold(db, create_product(db), 1, "k")
    assert outcome(place_hold, second, product, 1, "k") == "40001"


def test_a_long_key_and_odd_ids_are_refused_at_every_level(second):
    assert outcome(place_hold, second, 1, 1, "k" * 10_000) == "SA009"
    second.rollback()
    assert outcome(create_order, second, -(2**63)) == "SA003"
    second.rollback()
    assert outcome(create_order, second, 1, "k" * 10_000) == "SA009"
    second.rollback()
    assert outcome(place_hold, second, 2**63 - 1) == "SA001"


def test_read_uncommitted_is_read_committed(db, connect, product):
    conn = connect()
    conn.execute("set default_transaction_isolation = 'read uncommitted'")
    conn.execute("select * from flashsale.read_events(0, 10)")
    conn.execute("select * from flashsale.purge('1 day')")
    assert create_order(conn, place_hold(conn, product).hold_id).status == "pending_payment"


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_orders_with_stored_webhooks_never_deadlock(db, connect, blocked, level):
    """Both orders have a webhook to take out of the inbox, and one product."""
    product = create_product(db)
    holds = [place_hold(db, product), place_hold(db, product)]
    ids = [next_order_id(db), next_order_id(db) + 1]
    for order_id in ids:
        apply_payment(db, f"p{order_id}", order_id)
    blocker, first, second = connect(autocommit=False), connect(), connect()
    second.execute(SET_LEVEL[level])
    adjust_stock(blocker, product, 1)
    orders = [blocked(create_order, first, holds[0].hold_id), blocked(create_order, second, holds[1].hold_id)]
    blocker.rollback()
    answers = [order.result() for order in orders]
    assert [answer if isinstance(answer, str) else answer.status for answer in answers] in (
        ["paid", "paid"],
        ["paid", "40001"],
    )


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_retries_after_40001_succeed_in_the_end(db, at_once, level):
    product = create_product(db, stock=12)
    start = next_order_id(db)

    def retry(conn, call, *args):
        while True:
            with suppress(errors.SerializationFailure):
                return call(conn, *args)

    def buy(conn, buyer):
        conn.execute(SET_LEVEL[level])
        retry(conn, apply_payment, f"stored{buyer}", start + buyer)
        hold = retry(conn, lambda c: place_holds(c, (product, 1, f"k{buyer}"))[0])
        if hold.sqlstate:
            return hold.sqlstate
        order = retry(conn, lambda c: create_orders(c, (hold.hold_id, f"k{buyer}"))[0])
        assert order.sqlstate is None
        return retry(conn, apply_payment, f"p{buyer}", order.order_id).status

    answers = at_once(buy, [(buyer,) for buyer in range(16)])
    assert sorted(answers) == ["SA002"] * 4 + ["paid"] * 12


def test_settings_that_were_changed_since_are_not_used(db, product, second):
    change_settings(db, inbox_limit=0)
    available(second, product)
    change_settings(db, inbox_limit=10)
    assert outcome(apply_payment, second, "k", 10**9) == "40001"
    second.rollback()
    available(second, product)
    change_settings(db, hold_time="1 hour")
    assert outcome(place_hold, second, product) == "40001"
