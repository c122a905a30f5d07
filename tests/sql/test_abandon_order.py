"""abandon_order(), abandon_orders(): the buyer gives a pending order back."""

import pytest

from tests.support.sql_calls import (
    LOCKED,
    abandon_order,
    abandon_orders,
    apply_payment,
    available,
    create_order,
    create_overdue_order,
    expire_due,
    get_order,
    order_units,
    place_hold,
    refused,
    rows,
    sqlstates,
    value,
)


def pending(db, product, qty=1):
    hold = place_hold(db, product, qty)
    return create_order(db, hold.hold_id).order_id, hold.hold_id


def test_an_order_is_given_back(db, product):
    order, hold = pending(db, product, 4)
    given_back = abandon_order(db, order, hold)
    assert (given_back.order_id, given_back.status) == (order, "cancelled")
    found = get_order(db, order)
    assert (found.status, found.cancel_reason, available(db, product)) == ("cancelled", "buyer_cancelled", 10)
    event = "select order_id, available_delta, data from flashsale_data.events where kind = 'order_cancelled'"
    assert rows(db, event) == [(order, 4, {"cancel_reason": "buyer_cancelled"})]


def test_a_second_time_has_no_effect(db, product):
    order, hold = pending(db, product)
    for _ in range(3):
        assert abandon_order(db, order, hold).status == "cancelled"
    assert value(db, "select count(*) from flashsale_data.events where kind = 'order_cancelled'") == 1


def test_a_payment_that_comes_later_is_a_refund(db, product):
    order, hold = pending(db, product)
    abandon_order(db, order, hold)
    payment = apply_payment(db, "late", order)
    assert (payment.status, payment.result) == ("cancelled", "refund_due")
    assert value(db, "select reason from flashsale.refunds_due") == "order_cancelled"
    assert apply_payment(db, "fails", order, "failed").result == "no_change"


def test_a_paid_order_is_settled(db, product):
    order, hold = pending(db, product)
    apply_payment(db, "pays", order)
    with refused("SA019"):
        abandon_order(db, order, hold)
    assert abandon_orders(db, (order, hold))[0].status == "paid"


def test_only_the_order_of_the_hold_is_given_back(db, product):
    order, hold = pending(db, product)
    _, other = pending(db, product)
    for arguments in ((order, other), (order, 1), (10**9, hold)):
        with refused("SA007"):
            abandon_order(db, *arguments)
    for arguments in ((None, hold), (order, None)):
        with refused("SA009"):
            abandon_order(db, *arguments)
    assert sqlstates(abandon_orders(db, (order, other))) == ["SA007"]
    assert get_order(db, order).status == "pending_payment"


@pytest.mark.parametrize("swept", [False, True])
def test_an_order_that_is_cancelled_already_stays_as_it_is(db, product, swept):
    """Overdue, so that a late payment may still take its units again."""
    order = create_overdue_order(db, product).order_id
    hold = value(db, "select hold_id from flashsale_data.orders")
    if swept:
        expire_due(db)
    assert abandon_order(db, order, hold).status == "cancelled"
    assert get_order(db, order).cancel_reason == "payment_overdue"
    assert apply_payment(db, "late", order).result == "applied"


def test_a_batch_gives_back_each_order_once(db, product):
    one, two = pending(db, product, 2), pending(db, product, 3)
    paid = order_units(db, product).order_id
    apply_payment(db, "pays", paid)
    hold = value(db, "select hold_id from flashsale_data.orders where order_id = %s", paid)
    batch = abandon_orders(db, one, (one[0], two[1]), (paid, hold), one, two)
    assert sqlstates(batch) == [None, "SA007", "SA019", None, None]
    assert available(db, product) == 9


def test_a_batch_leaves_a_locked_order_alone(db, product, first):
    one, two = pending(db, product), pending(db, product)
    first.execute("select from flashsale_data.orders where order_id = %s for no key update", one[:1])
    assert sqlstates(abandon_orders(db, one, two)) == [LOCKED, None]


@pytest.mark.slow
def test_it_waits_for_the_payment_that_came_before(db, product, first, second, blocked):
    order, hold = pending(db, product)
    apply_payment(first, "pays", order)
    giving_back = blocked(abandon_order, second, order, hold)
    first.commit()
    assert giving_back.result() == "SA019"
