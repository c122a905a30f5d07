"""Webhooks at the same time as each other, as their orders and as a sweep of the inbox."""

import pytest

from tests.support.sql_calls import (
    age_inbox,
    apply_payment,
    apply_payments,
    audit,
    change_settings,
    create_order,
    create_product,
    expire_due,
    next_order_id,
    order_units,
    outcome,
    place_hold,
    place_holds,
    value,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("end", "status"), [("commit", "paid"), ("rollback", "pending_payment")])
def test_an_order_waits_for_the_webhook_that_is_being_stored_for_it(
    db, product, first, second, blocked, end, status
):
    hold = place_hold(db, product)
    assert apply_payment(first, "p", next_order_id(db)).result == "stored"
    order = blocked(create_order, second, hold.hold_id)
    getattr(first, end)()
    assert order.result().status == status


@pytest.mark.parametrize(("end", "result"), [("commit", "applied"), ("rollback", "stored")])
def test_a_webhook_waits_for_the_order_that_is_being_created(
    db, product, first, second, blocked, end, result
):
    hold = place_hold(db, product)
    order = create_order(first, hold.hold_id)
    webhook = blocked(apply_payment, second, "p", order.order_id)
    getattr(first, end)()
    assert webhook.result().result == result


def test_stored_webhooks_and_orders_at_once_never_miss_each_other(db, at_once, connect, meanwhile):
    product = create_product(db, stock=60)
    holds = [placed.hold_id for placed in place_holds(db, *[(product, 1)] * 60)]
    start = next_order_id(db)

    def send_webhooks(conn):
        return [apply_payment(conn, f"p{i}", start + i) for i in range(60)]

    webhooks = meanwhile(send_webhooks, connect("flashsale_app"))
    for i in range(0, 60, 6):
        at_once(create_order, [(hold_id,) for hold_id in holds[i : i + 6]])
    webhooks.result()
    assert value(db, "select count(*) from flashsale_data.orders where status = 'paid'") == 60


@pytest.mark.parametrize(("end", "answer"), [("commit", "SA011"), ("rollback", "stored")])
def test_a_webhook_waits_for_the_one_that_takes_the_last_place_in_the_inbox(
    db, first, second, blocked, end, answer
):
    change_settings(db, inbox_limit=1)
    apply_payment(first, "p", 10**9)
    webhook = blocked(apply_payment, second, "q", 10**9 + 1)
    getattr(first, end)()
    assert getattr(webhook.result(), "result", webhook.result()) == answer


def test_a_replay_of_a_webhook_that_a_sweep_forgets_meanwhile_returns_what_was_found(
    db, product, first, second, blocked
):
    apply_payment(db, "old", 10**9, "failed")
    order = order_units(db, product)
    apply_payment(first, "p", order.order_id)
    answers = blocked(apply_payments, second, ("old", 10**9, "failed"), ("q", order.order_id, "success"))
    age_inbox(db)
    assert expire_due(db) == 1
    first.commit()
    assert [answer[1:] for answer in answers.result()] == [
        (None, None, True, 10**9, None, "stored"),
        (None, None, False, order.order_id, "paid", "refund_due"),
    ]


def test_an_expired_webhook_takes_no_room_while_its_key_is_used_again(db, product, first, second, blocked):
    change_settings(db, inbox_limit=1)
    order = order_units(db, product)
    apply_payment(db, "p", 10**9, "failed")
    age_inbox(db)
    first.execute("select from flashsale_data.stock for update")
    payment = blocked(apply_payment, second, "p", order.order_id)
    assert apply_payment(db, "q", 10**9 + 1).result == "stored"
    assert outcome(apply_payment, db, "r", 10**9 + 2) == "SA011"
    first.commit()
    assert payment.result().result == "applied"
    assert audit(db) == []
    assert value(db, "select stored from flashsale_data.inbox") == 1


def test_the_inbox_limit_is_exact(db, at_once):
    change_settings(db, inbox_limit=5)
    answers = at_once(apply_payment, [(f"p{i}", 1000 + i) for i in range(12)])
    assert answers.count("SA011") == 7
