"""Webhooks that come before their order: stored, applied when it is created, or else ended after 24 hours."""

import pytest

from tests.support.sql_calls import (
    age_inbox,
    apply_payment,
    apply_payments,
    audit,
    available,
    change_settings,
    create_order,
    create_orders,
    create_product,
    expire_due,
    get_order,
    next_order_id,
    order_units,
    place_hold,
    refused,
    row,
    sqlstates,
    value,
)

FAILED, CANCELLED = "payment_failed", "payment_cancelled"


@pytest.mark.parametrize(("stored", "status", "reason", "results"), [
    (["success"],                        "paid",            None,      ["applied"]),
    (["failed"],                         "cancelled",       FAILED,    ["applied"]),
    (["cancelled"],                      "cancelled",       CANCELLED, ["applied"]),
    (["success", "failed"],              "paid",            None,      ["applied", "no_change"]),
    (["failed", "success"],              "paid",            None,      ["applied", "applied"]),
    (["cancelled", "success"],           "cancelled",       CANCELLED, ["applied", "refund_due"]),
    (["success", "success"],             "paid",            None,      ["applied", "refund_due"]),
    (["failed", "cancelled", "success"], "paid",            None,      ["applied", "no_change", "applied"]),
    (["success 1.00"],                   "pending_payment", None,      ["amount_mismatch"]),
    (["success 1.00", "success 99.00"],  "paid",            None,      ["amount_mismatch", "applied"]),
])  # fmt: skip
def test_stored_webhooks_are_applied_in_order_of_arrival_when_their_order_is_created(
    db, product, stored, status, reason, results
):
    order_id = next_order_id(db)

    def send(arrival):
        word, *amount = stored[arrival].split()
        return apply_payment(db, f"p{arrival}", order_id, word, **({"amount": amount[0]} if amount else {}))

    for arrival in range(len(stored)):
        assert send(arrival) == (order_id, None, "stored", False)
    assert send(0) == (order_id, None, "stored", True)

    order = create_order(db, place_hold(db, product).hold_id)

    assert (order.order_id, order.status) == (order_id, status)
    assert get_order(db, order_id).cancel_reason == reason
    # A webhook that was stored answers its replays with what has become of it.
    replays = [send(arrival) for arrival in range(len(stored))]
    assert [replay.result for replay in replays] == results
    assert all(replay.replayed for replay in replays)
    assert available(db, product) == (10 if status == "cancelled" else 9)


def test_webhooks_stored_in_one_batch_arrive_in_array_order(db, product):
    order_id = next_order_id(db)
    outcomes = apply_payments(
        db, ("z", order_id, "cancelled"), ("a", order_id, "success"), ("z", order_id, "cancelled")
    )
    assert [(outcome.result, outcome.replayed) for outcome in outcomes] == [
        ("stored", False),
        ("stored", False),
        ("stored", True),
    ]
    order_units(db, product)
    assert apply_payment(db, "a", order_id).result == "refund_due"


def test_one_batch_may_create_many_orders_with_stored_webhooks(db, product):
    first = next_order_id(db)
    for i, word in enumerate(("success", "failed", "cancelled")):
        apply_payment(db, f"p{i}", first + i, word)
    outcomes = create_orders(db, *[(place_hold(db, product, 2).hold_id,) for _ in range(4)])
    assert [outcome.status for outcome in outcomes] == ["paid", "cancelled", "cancelled", "pending_payment"]
    assert available(db, product) == 6


def test_a_stored_webhooks_key_is_used_up(db):
    apply_payment(db, "p", 1000)
    with refused("SA008"):
        apply_payment(db, "p", 1001)
    with refused("SA008"):
        apply_payment(db, "p", 1000, "failed")


def test_past_the_cap_webhooks_for_unknown_orders_are_refused(db, product):
    change_settings(db, inbox_limit=2)
    apply_payment(db, "a", 1001)
    outcomes = apply_payments(db, ("b", 1002, "success"), ("c", 1003, "success"), ("a", 1001, "success"))
    assert sqlstates(outcomes) == [None, "SA011", None]
    with refused("SA011"):
        apply_payment(db, "c", 1003)
    assert apply_payment(db, "a", 1001).result == "stored"
    order = order_units(db, product)
    assert apply_payment(db, "d", order.order_id).result == "applied"


def test_an_order_makes_room_in_a_full_inbox(db, product):
    change_settings(db, inbox_limit=1)
    apply_payment(db, "a", next_order_id(db))
    with refused("SA011"):
        apply_payment(db, "b", 1002)
    order_units(db, product)
    assert apply_payment(db, "b", 1002).result == "stored"


def test_a_stored_webhook_is_kept_for_24_hours_and_applied_until_then(db, product):
    apply_payment(db, "p", next_order_id(db))
    age_inbox(db, "23 hours 59 minutes")
    assert expire_due(db) == 0
    assert order_units(db, product).status == "paid"


@pytest.mark.parametrize("swept", [False, True])
def test_a_payment_whose_order_never_came_is_a_refund_after_24_hours(db, product, swept):
    order_id = next_order_id(db)
    for word in ("success", "failed", "cancelled"):
        apply_payment(db, word, order_id, word)
    age_inbox(db)
    if swept:
        assert expire_due(db) == 3
    assert order_units(db, product).status == "pending_payment"
    refund = row(db, "select * from flashsale.refunds_due")
    assert (refund.idempotency_key, refund.order_id, refund.reason) == ("success", order_id, "order_unknown")
    assert value(db, "select value from flashsale.get_sale_metrics() where metric = 'refunds_due'") == 1
    taken = db.execute("select idempotency_key, result from flashsale.payments").fetchall()
    assert taken == [("success", "refund_due")]
    assert apply_payment(db, "success", order_id)[1:] == (None, "refund_due", True)
    with refused("SA008"):
        apply_payment(db, "success", order_id + 1)
    # The other two are deleted: if they come again, they are new, with another body, too.
    assert apply_payment(db, "failed", order_id + 9, "failed")[1:] == (None, "stored", False)
    assert apply_payment(db, "cancelled", order_id, "success")[1:] == ("paid", "applied", False)
    assert audit(db) == []
    assert expire_due(db) == 0
    assert value(db, "select stored from flashsale_data.inbox") == 1


@pytest.mark.parametrize("swept", [False, True])
def test_a_batch_answers_in_array_order_when_it_makes_room_in_the_inbox(db, swept):
    change_settings(db, inbox_limit=2)
    for word in ("success", "failed"):
        apply_payment(db, word, 1000, word)
    age_inbox(db)
    if swept:
        assert expire_due(db) == 2
    outcomes = apply_payments(
        db, ("success", 1000, "success"), ("new", 2000, "success"), ("failed", 1000, "failed")
    )
    told = [(outcome.result, outcome.replayed) for outcome in outcomes]
    assert told == [("refund_due", True), ("stored", False), ("stored", False)]


def test_room_in_the_inbox_is_found_without_a_sweep(db):
    change_settings(db, inbox_limit=3)
    for i in range(3):
        apply_payment(db, f"old{i}", 1000 + i)
    age_inbox(db)
    outcomes = apply_payments(db, *[(f"new{i}", 2000 + i, "failed") for i in range(4)])
    assert sqlstates(outcomes) == [None, None, None, "SA011"]
    assert value(db, "select count(*) from flashsale.refunds_due") == 3


def test_thousands_of_webhooks_for_one_order_do_not_use_up_the_lock_table(db, product):
    order_id = next_order_id(db)
    for batch in range(10):
        apply_payments(db, *[(f"p{batch}-{i}", order_id, "failed") for i in range(1000)])
    assert order_units(db, product).status == "cancelled"
    assert value(db, "select stored from flashsale_data.inbox") == 0


def test_a_freed_key_that_meets_a_locked_product_is_to_be_sent_again(db, product, first):
    other = create_product(db)
    locked, free = order_units(db, product), order_units(db, other)
    apply_payment(db, "k", 10**9, "failed")
    age_inbox(db)
    place_hold(first, product)
    news = [("a", free.order_id, "success"), *[("k", locked.order_id, "success")] * 2]
    assert sqlstates(apply_payments(db, *news)) == [None, "55P03", "55P03"]
    first.rollback()
    assert [outcome.result for outcome in apply_payments(db, *news)] == ["applied"] * 3


def test_a_freed_key_without_room_in_the_inbox_is_refused(db):
    apply_payment(db, "k", 10**9, "failed")
    age_inbox(db)
    change_settings(db, inbox_limit=0)
    for order_id, word in ((10**9, "failed"), (10**9 + 1, "success")):
        with refused("SA011"):
            apply_payment(db, "k", order_id, word)
        assert sqlstates(apply_payments(db, ("k", order_id, word))) == ["SA011"]
    assert value(db, "select count(*) from flashsale.payments") == 0


def test_a_batch_stores_a_freed_key_only_if_there_is_room(db):
    order_id = next_order_id(db)
    change_settings(db, inbox_limit=1)
    apply_payment(db, "k", order_id, "cancelled")
    age_inbox(db)
    outcomes = apply_payments(db, ("new", 10**9, "success"), ("k", order_id, "cancelled"))
    assert sqlstates(outcomes) == [None, "SA011"]
    assert value(db, "select array_agg(idempotency_key) from flashsale.payments") == ["new"]
