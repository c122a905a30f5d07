"""Orders of the amount 0: nothing is to be paid, so they are created as paid."""

import pytest

from tests.support.sql_calls import (
    abandon_order,
    apply_payment,
    audit,
    change_settings,
    create_order,
    create_orders,
    create_product,
    expire_due,
    get_order,
    next_order_id,
    place_hold,
    refused,
    rows,
    value,
    wait_until_past,
)


@pytest.fixture
def free(db):
    return create_product(db, price="0")


def test_an_order_of_nothing_is_created_as_paid(db, free):
    order = create_order(db, place_hold(db, free, 3).hold_id)
    assert (order.status, str(order.amount), order.replayed) == ("paid", "0.00", False)
    assert get_order(db, order.order_id).status == "paid"
    assert rows(db, "select available_stock, held, awaiting, paid from flashsale.stock") == [(7, 0, 0, 3)]
    kinds = "select kind from flashsale_data.events where order_id is not null order by event_id"
    assert rows(db, kinds) == [("order_created",), ("order_paid",)]


def test_its_replay_is_paid_too(db, free):
    hold = place_hold(db, free).hold_id
    order = create_order(db, hold, "checkout")
    again = create_order(db, hold, "checkout")
    assert (again.order_id, again.status, again.replayed) == (order.order_id, "paid", True)


def test_it_never_lapses(db, free):
    change_settings(db, payment_window="100 ms")
    order = create_order(db, place_hold(db, free).hold_id)
    wait_until_past(db, order.payment_due_at)
    assert (get_order(db, order.order_id).status, expire_due(db)) == ("paid", 0)


@pytest.mark.parametrize("payload", [{}, {"amount": "0.00"}, {"amount": 0, "currency": "USD"}])
def test_a_success_of_nothing_changes_nothing(db, free, payload):
    order = create_order(db, place_hold(db, free).hold_id).order_id
    for key in ("pays", "pays again"):
        payment = apply_payment(db, key, order, **payload)
        assert (payment.status, payment.result) == ("paid", "no_change")
    assert apply_payment(db, "fails", order, "failed").result == "no_change"
    assert value(db, "select count(*) from flashsale.refunds_due") == 0


@pytest.mark.parametrize("payload", [{}, {"amount": "0.00"}])
def test_a_success_of_nothing_changes_nothing_once_it_is_cancelled(db, free, payload):
    order = create_order(db, place_hold(db, free).hold_id).order_id
    db.execute("select flashsale.cancel_order(%s)", (order,))
    payment = apply_payment(db, "pays", order, **payload)
    assert (payment.status, payment.result) == ("cancelled", "no_change")
    assert value(db, "select count(*) from flashsale.refunds_due") == 0
    assert audit(db) == []


def test_money_for_it_goes_back(db, free):
    order = create_order(db, place_hold(db, free).hold_id).order_id
    assert apply_payment(db, "too much", order, amount="5.00").result == "amount_mismatch"
    assert value(db, "select amount from flashsale.refunds_due") == 5


def test_a_webhook_that_came_before_it_changes_nothing(db, free):
    hold = place_hold(db, free).hold_id
    order_id = next_order_id(db)
    apply_payment(db, "pays", order_id)
    apply_payment(db, "fails", order_id, "failed")
    assert create_order(db, hold).status == "paid"
    assert rows(db, "select result, order_status from flashsale.payments") == [("no_change", "paid")] * 2


def test_it_is_settled_and_not_given_back(db, free):
    hold = place_hold(db, free).hold_id
    order = create_order(db, hold).order_id
    with refused("SA019"):
        abandon_order(db, order, hold)


def test_a_batch_of_both_kinds(db, free, product):
    holds = [place_hold(db, each, qty).hold_id for each, qty in ((free, 1), (product, 2), (free, 3))]
    assert [order.status for order in create_orders(db, *[(hold,) for hold in holds])] == [
        "paid", "pending_payment", "paid",
    ]  # fmt: skip
    units = rows(db, "select product_id, awaiting, paid from flashsale.stock")
    assert sorted(units) == sorted([(free, 0, 4), (product, 2, 0)])
    assert audit(db) == []


def test_it_counts_towards_the_limit(db):
    product = create_product(db, price="0", max_per_buyer=1)
    create_order(db, place_hold(db, product, buyer="ann").hold_id)
    with refused("SA017"):
        place_hold(db, product, buyer="ann")
