"""Sweeps at the same time as each other, and as callers of the same holds, orders and products."""

import pytest

from tests.support.sql_calls import (
    age_inbox,
    apply_payment,
    available,
    change_settings,
    create_order,
    create_orders,
    create_overdue_order,
    create_product,
    expire_due,
    get_hold,
    get_order,
    next_order_id,
    outcome,
    place_hold,
    place_holds,
    place_lapsed_hold,
    place_short_hold,
    value,
    wait_until_past,
)

pytestmark = pytest.mark.slow


def test_two_sweepers_share_the_work(db, first, second):
    products = [create_product(db) for _ in range(6)]
    change_settings(db, hold_time="100 ms")
    holds = [place_hold(db, product) for product in products]
    wait_until_past(db, holds[-1].expires_at)
    second.execute("set lock_timeout = '1ms'")
    assert expire_due(first, 4) == 4
    assert expire_due(second) == 2
    first.commit()
    assert expire_due(second) == 0
    assert {get_hold(db, hold.hold_id).status for hold in holds} == {"expired"}
    assert value(db, "select count(*) from flashsale_data.events where kind = 'hold_expired'") == 6


def test_a_sweep_waits_for_no_lock(db, product, first, second):
    """The first has a lapsed hold, an overdue order, their product and the next sweep's lapses locked."""
    other = create_product(db)
    lapsed, overdue = place_lapsed_hold(db, product), create_overdue_order(db, product)
    elsewhere = place_lapsed_hold(db, other)
    first.execute("select from flashsale_data.holds where hold_id = %s for update", (lapsed.hold_id,))
    first.execute("select from flashsale_data.orders where order_id = %s for update", (overdue.order_id,))
    place_hold(first, product)
    second.execute("set lock_timeout = '1ms'")
    assert expire_due(second) == 1
    assert (
        value(db, "select status from flashsale_data.holds where hold_id = %s", elsewhere.hold_id)
        == "expired"
    )
    first.commit()
    assert expire_due(second) == 2


def test_a_sweep_lets_the_order_in_progress_of_a_lapsing_hold_decide(
    db, product, first, second, connect, blocked
):
    hold = place_short_hold(db, product, 1, "1 second")
    place_hold(first, product)
    order = blocked(create_order, second, hold.hold_id)
    wait_until_past(db, hold.expires_at)
    assert expire_due(db) == 0
    first.rollback()
    assert order.result() == "SA004"
    assert expire_due(db) == 1


def test_a_late_payment_and_an_open_sweep_count_the_units_of_one_instant(
    db, product, first, second, connect, blocked
):
    holds = place_holds(db, (product, 1), (product, 2))
    change_settings(db, payment_window="100 ms")
    paid, swept = create_orders(db, *[(hold.hold_id,) for hold in holds])
    wait_until_past(db, swept.payment_due_at)
    place_hold(db, product)
    payer = connect(autocommit=False)
    payer.execute("select from flashsale_data.orders where order_id = %s for update", (paid.order_id,))
    assert expire_due(first) == 1
    payer.rollback()
    payment = blocked(apply_payment, second, "p", paid.order_id)
    first.commit()
    assert payment.result().result == "applied"


def test_an_order_finds_a_hold_expired_that_is_being_swept(db, product, first, second):
    hold = place_lapsed_hold(db, product)
    assert expire_due(first) == 1
    second.execute("set lock_timeout = '1ms'")
    assert outcome(create_order, second, hold.hold_id) == "SA004"
    first.commit()


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_payment_of_an_order_that_is_being_swept_takes_its_units_again(
    db, product, first, second, blocked, end
):
    order = create_overdue_order(db, product)
    assert expire_due(first) == 1
    payment = blocked(apply_payment, second, "p", order.order_id)
    getattr(first, end)()
    assert payment.result()[1:] == ("paid", "applied", False)
    assert available(db, product) == 9


def test_a_sweep_leaves_an_order_that_is_being_paid(db, product, first, second):
    order = create_overdue_order(db, product)
    apply_payment(first, "p", order.order_id)
    second.execute("set lock_timeout = '1ms'")
    assert expire_due(second) == 0
    first.commit()
    assert expire_due(second) == 0
    assert get_order(db, order.order_id).status == "paid"


def test_a_sweep_of_the_inbox_and_the_order_it_waits_for(db, product, first, second, blocked):
    hold = place_hold(db, product)
    apply_payment(db, "p", next_order_id(db))
    age_inbox(db)
    assert expire_due(first) == 1
    second.execute("set lock_timeout = '1ms'")
    assert create_order(second, hold.hold_id).status == "pending_payment"
    first.commit()
    assert value(db, "select count(*) from flashsale.refunds_due") == 1
