"""flashsale.apply_payment and apply_payments: the payment provider's word, applied once."""

from decimal import Decimal

import pytest

from tests.support.sql_calls import (
    apply_payment,
    apply_payments,
    available,
    change_settings,
    create_overdue_order,
    create_product,
    expire_due,
    get_order,
    next_order_id,
    order_units,
    place_hold,
    refused,
    row,
    rows,
    sqlstates,
    value,
)

UNITS = 3  # of the order in the table; its product has 10, enough to pay for it once more


def a_pending_order(db, product):
    return order_units(db, product, UNITS)


def a_paid_order(db, product):
    return after_webhook(db, product, "success")


def an_overdue_order(db, product):
    return create_overdue_order(db, product, UNITS)


def a_swept_overdue_order(db, product):
    order = create_overdue_order(db, product, UNITS)
    assert expire_due(db) == 1
    return order


def a_failed_order(db, product):
    return after_webhook(db, product, "failed")


def a_cancelled_order(db, product):
    return after_webhook(db, product, "cancelled")


def after_webhook(db, product, status):
    order = order_units(db, product, UNITS)
    apply_payment(db, f"earlier {status}", order.order_id, status)
    return order


OVERDUE, FAILED, CANCELLED = "payment_overdue", "payment_failed", "payment_cancelled"


# The contract's table. "sold": other buyers took every available unit before the webhook came.
@pytest.mark.parametrize(("given", "others", "word", "status", "result", "reason", "available_delta"), [
    (a_pending_order,       "",     "success",   "paid",      "applied",    None,      0),
    (a_pending_order,       "sold", "success",   "paid",      "applied",    None,      0),
    (a_pending_order,       "",     "failed",    "cancelled", "applied",    FAILED,    UNITS),
    (a_pending_order,       "",     "cancelled", "cancelled", "applied",    CANCELLED, UNITS),
    (a_pending_order,        "",     "declined",  "pending_payment", "no_change", None,      0),
    (an_overdue_order,      "",     "success",   "paid",      "applied",    None,      -UNITS),
    (an_overdue_order,      "sold", "success",   "cancelled", "refund_due", OVERDUE,   0),
    (an_overdue_order,      "",     "failed",    "cancelled", "no_change",  OVERDUE,   0),
    (an_overdue_order,      "",     "cancelled", "cancelled", "no_change",  OVERDUE,   0),
    (an_overdue_order,       "",     "declined",  "cancelled", "no_change",  OVERDUE,   0),
    (a_swept_overdue_order, "",     "success",   "paid",      "applied",    None,      -UNITS),
    (a_swept_overdue_order, "sold", "success",   "cancelled", "refund_due", OVERDUE,   0),
    (a_swept_overdue_order, "",     "failed",    "cancelled", "no_change",  OVERDUE,   0),
    (a_swept_overdue_order, "",     "cancelled", "cancelled", "no_change",  OVERDUE,   0),
    (a_swept_overdue_order,  "",     "declined",  "cancelled", "no_change",  OVERDUE,   0),
    (a_paid_order,          "",     "success",   "paid",      "refund_due", None,      0),
    (a_paid_order,          "",     "failed",    "paid",      "no_change",  None,      0),
    (a_paid_order,          "",     "cancelled", "paid",      "no_change",  None,      0),
    (a_paid_order,           "",     "declined",  "paid",      "no_change",  None,      0),
    (a_failed_order,        "",     "success",   "paid",      "applied",    None,      -UNITS),
    (a_failed_order,        "sold", "success",   "cancelled", "refund_due", FAILED,    0),
    (a_failed_order,        "",     "failed",    "cancelled", "no_change",  FAILED,    0),
    (a_failed_order,        "",     "cancelled", "cancelled", "no_change",  FAILED,    0),
    (a_failed_order,         "",     "declined",  "cancelled", "no_change",  FAILED,    0),
    (a_cancelled_order,     "",     "success",   "cancelled", "refund_due", CANCELLED, 0),
    (a_cancelled_order,     "",     "failed",    "cancelled", "no_change",  CANCELLED, 0),
    (a_cancelled_order,     "",     "cancelled", "cancelled", "no_change",  CANCELLED, 0),
    (a_cancelled_order,     "",     "declined",  "cancelled", "no_change",  CANCELLED, 0),
])  # fmt: skip
def test_the_table(db, given, others, word, status, result, reason, available_delta):
    product = create_product(db, stock=10)
    order = given(db, product)
    if others == "sold":
        place_hold(db, product, available(db, product))
    before = available(db, product)
    refunds = value(db, "select count(*) from flashsale.refunds_due")

    assert apply_payment(db, "p", order.order_id, word) == (order.order_id, status, result, False)

    found = get_order(db, order.order_id)
    assert (found.status, found.cancel_reason) == (status, reason)
    assert available(db, product) - before == available_delta
    assert value(db, "select count(*) from flashsale.refunds_due") - refunds == (result == "refund_due")
    assert apply_payment(db, "p", order.order_id, word) == (order.order_id, status, result, True)


def test_the_last_unit_revives_an_order_and_one_less_does_not(db):
    product = create_product(db, stock=5)
    orders = [create_overdue_order(db, product, 3) for _ in range(2)]
    place_hold(db, product, 2)
    assert apply_payment(db, "first", orders[0].order_id).result == "applied"
    assert apply_payment(db, "second", orders[1].order_id).result == "refund_due"
    assert available(db, product) == 0


def test_units_of_an_order_revived_do_not_come_back_with_the_sweep(db):
    product = create_product(db, stock=5)
    order = create_overdue_order(db, product, 3)
    apply_payment(db, "p", order.order_id)
    assert expire_due(db) == 0
    assert available(db, product) == 2


# --- declined attempts ---


def test_an_order_is_paid_after_declined_attempts(db):
    product = create_product(db, stock=5)
    order = order_units(db, product, UNITS)
    words = ("declined", "declined again", "paid", "declined")
    outcomes = [
        apply_payment(db, word, order.order_id, "success" if word == "paid" else "declined") for word in words
    ]
    assert [(each.status, each.result, each.replayed) for each in outcomes] == [
        ("pending_payment", "no_change", False),
        ("pending_payment", "no_change", False),
        ("paid", "applied", False),
        ("pending_payment", "no_change", True),
    ]
    assert get_order(db, order.order_id).status == "paid"
    assert rows(db, "select * from flashsale.refunds_due") == []


def test_a_declined_attempt_for_an_unknown_order_leaves_nothing(db):
    unknown = next_order_id(db)
    for _ in range(2):
        assert apply_payment(db, "p", unknown, "declined") == (unknown, None, "no_change", False)
    assert value(db, "select count(*) from flashsale_data.payments") == 0
    assert apply_payment(db, "p", unknown, "success") == (unknown, None, "stored", False)


def test_declined_attempts_for_unknown_orders_take_no_room(db):
    unknown = next_order_id(db)
    change_settings(db, inbox_limit=0)
    outcomes = apply_payments(
        db, ("a", unknown, "declined"), ("b", unknown, "success"), ("c", unknown, "declined")
    )
    assert [(each.sqlstate, each.result) for each in outcomes] == [
        (None, "no_change"),
        ("SA011", None),
        (None, "no_change"),
    ]


def test_two_declined_attempts_with_one_key_in_one_call(db):
    """The first leaves nothing that could answer the second."""
    known = order_units(db, create_product(db, stock=5), UNITS).order_id
    unknown = known + 10
    outcomes = apply_payments(
        db,
        ("p", unknown, "declined"),
        ("p", unknown, "declined"),
        ("q", known, "declined"),
        ("q", known, "declined"),
    )
    assert [(each.order_id, each.sqlstate, each.status, each.result, each.replayed) for each in outcomes] == [
        (unknown, None, None, "no_change", False),
        (unknown, None, None, "no_change", False),
        (known, None, "pending_payment", "no_change", False),
        (known, None, "pending_payment", "no_change", True),
    ]


# --- amounts ---


@pytest.mark.parametrize(
    "given", [a_pending_order, a_swept_overdue_order, a_paid_order, a_failed_order, a_cancelled_order]
)
def test_another_amount_or_currency_changes_nothing_and_is_recorded(db, product, given):
    order = given(db, product)
    before = (get_order(db, order.order_id), available(db, product))
    refunds = value(db, "select count(*) from flashsale.refunds_due")
    for word in ("success", "failed", "cancelled"):
        for payload in (
            {"amount": "296.99"},
            {"amount": "297.00", "currency": "EUR"},
            {"currency": "EUR"},
            {"amount": "0", "currency": "USD"},
        ):
            answer = apply_payment(db, f"{word} {payload}", order.order_id, word, **payload)
            assert (answer.status, answer.result) == (before[0].status, "amount_mismatch")
    assert (get_order(db, order.order_id), available(db, product)) == before
    # Only what was captured goes back, in the amount that was captured; of nothing, nothing.
    found = rows(
        db,
        "select amount, currency from flashsale.refunds_due where reason = 'amount_mismatch'"
        " order by 1 nulls last",
    )
    assert [(refund.amount, refund.currency) for refund in found] == [
        (Decimal("296.99"), "USD"),
        (Decimal("297.00"), "EUR"),
        (None, "EUR"),
    ]
    assert value(db, "select count(*) from flashsale.refunds_due") - refunds == 3
    assert value(db, "select count(*) from flashsale_data.events where kind = 'amount_mismatch'") == 12


def test_a_wrong_amount_on_an_overdue_order_leaves_it_overdue(db, product):
    order = create_overdue_order(db, product)
    outcome = apply_payment(db, "p", order.order_id, amount="1.00")
    assert (outcome.status, outcome.result) == ("cancelled", "amount_mismatch")
    assert apply_payment(db, "q", order.order_id, amount="99.00").result == "applied"


def test_the_right_amount_is_right_however_it_is_written(db, product):
    for amount in ("99.00", "99", "99.0", "099.000"):
        order = order_units(db, product)
        assert apply_payment(db, amount, order.order_id, amount=amount, currency="USD").result == "applied"
        assert apply_payment(db, amount, order.order_id, amount="99.000000", currency="USD").replayed


def test_an_amount_may_be_a_number_a_currency_in_either_case_and_null_is_absent(db, product):
    order = order_units(db, product)
    payload = '{"amount": 99.00, "currency": "usd"}'
    query = "select result from flashsale.apply_payment(%s, %s, 'success', %s)"
    assert value(db, query, "p", order.order_id, payload) == "applied"
    assert value(db, "select amount::text || currency from flashsale.payments") == "99.00USD"
    assert apply_payment(db, "p", order.order_id, amount="99", currency="USD").replayed
    assert value(db, query, "q", order.order_id, '{"amount": 99.01}') == "amount_mismatch"
    assert value(db, query, "r", order.order_id, '{"amount": 9.9e1, "currency": null}') == "refund_due"
    assert value(db, query, "s", order.order_id, '{"amount": null, "currency": null}') == "refund_due"
    assert apply_payment(db, "s", order.order_id).replayed


def test_further_members_are_kept_with_the_event(db, product):
    order = order_units(db, product)
    apply_payment(db, "p", order.order_id, amount="99.00", provider={"id": "ch_1", "tries": [1, 2.5, None]})
    payload = value(db, "select payload from flashsale.payments")
    assert payload == {"amount": "99.00", "provider": {"id": "ch_1", "tries": [1, 2.5, None]}}


# --- refusals ---


MALFORMED = [
    (None, 1, "success"),
    ("", 1, "success"),
    ("k" * 256, 1, "success"),
    ("k", None, "success"),
    ("k", 0, "success"),
    ("k", -1, "success"),
    ("k", 1, None),
    ("k", 1, "paid"),
    ("k", 1, "SUCCESS"),
    ("k", 1, "success", None),
    ("k", 1, "success", [1]),
    ("k", 1, "success", "text"),
    ("k", 1, "success", {"amount": -1}),
    ("k", 1, "success", {"amount": 0.0000001}),
    ("k", 1, "success", {"amount": True}),
    ("k", 1, "success", {"amount": ["99.00"]}),
    ("k", 1, "success", {"amount": "-1"}),
    ("k", 1, "success", {"amount": "NaN"}),
    ("k", 1, "success", {"amount": "1e3"}),
    ("k", 1, "success", {"amount": " 1"}),
    ("k", 1, "success", {"amount": "1\n"}),
    ("k", 1, "success", {"amount": "1" * 400}),
    ("k", 1, "success", {"currency": "us"}),
    ("k", 1, "success", {"currency": "\u0130SD"}),
    ("k", 1, "success", {"currency": "USD\n"}),
    ("k", 1, "success", {"currency": 840}),
]


def test_a_malformed_webhook_is_refused_and_not_recorded(db):
    for webhook in MALFORMED:
        (outcome,) = apply_payments(db, webhook)
        assert outcome.sqlstate == "SA009", webhook
        assert outcome[3:] == (False, None, None, None)
    assert sqlstates(apply_payments(db, *MALFORMED)) == ["SA009"] * len(MALFORMED)
    assert value(db, "select count(*) from flashsale.payments") == 0
    assert apply_payment(db, "k" * 255, 2**63 - 1, amount="123456789012345.654321").result == "stored"


def test_a_payload_that_is_null_is_refused(db):
    with refused("SA009"):
        row(db, "select * from flashsale.apply_payment('k', 1, 'success', null)")


def test_the_payload_may_be_left_out(db, product):
    order = order_units(db, product)
    assert (
        row(db, "select * from flashsale.apply_payment('k', %s, 'success')", order.order_id).result
        == "applied"
    )


def test_the_same_key_with_another_body_is_refused_and_has_no_effect(db, product):
    order, other = order_units(db, product), order_units(db, product)
    apply_payment(db, "p", order.order_id, "failed", amount="99.00")
    for order_id, word, payload in (
        (other.order_id, "failed", {"amount": "99.00"}),
        (order.order_id, "success", {"amount": "99.00"}),
        (order.order_id, "failed", {"amount": "99.01"}),
        (order.order_id, "failed", {}),
        (order.order_id, "failed", {"amount": "99.00", "currency": "USD"}),
        (10**12, "failed", {"amount": "99.00"}),
    ):
        with refused("SA008"):
            apply_payment(db, "p", order_id, word, **payload)
    assert get_order(db, other.order_id).status == "pending_payment"


def test_further_members_do_not_count_as_the_body(db, product):
    order = order_units(db, product)
    apply_payment(db, "p", order.order_id, sent_at="noon")
    assert apply_payment(db, "p", order.order_id, sent_at="one").replayed


def test_a_replay_answers_with_the_result_that_was_recorded(db, product):
    order = order_units(db, product)
    failed = apply_payment(db, "f", order.order_id, "failed")
    apply_payment(db, "s", order.order_id, "success")
    again = apply_payment(db, "f", order.order_id, "failed")
    assert again == failed._replace(replayed=True)
    assert get_order(db, order.order_id).status == "paid"


def test_the_same_webhook_five_times_in_a_row_has_one_effect_and_one_answer(db, product):
    order = order_units(db, product)
    answers = {apply_payment(db, "p", order.order_id)[:3] for _ in range(5)}
    assert answers == {(order.order_id, "paid", "applied")}
    assert value(db, "select count(*) from flashsale_data.events where kind = 'order_paid'") == 1


def test_the_same_webhook_five_times_in_one_batch_has_one_effect_and_one_answer(db, product):
    order = order_units(db, product)
    outcomes = apply_payments(db, *[("p", order.order_id, "success")] * 5, ("p", order.order_id, "failed"))
    assert {outcome[4:] for outcome in outcomes[:5]} == {(order.order_id, "paid", "applied")}
    assert [outcome.replayed for outcome in outcomes[:5]] == [False, True, True, True, True]
    assert outcomes[5].sqlstate == "SA008"


def test_webhooks_of_one_batch_are_applied_in_array_order(db, product):
    order, other = order_units(db, product, 2), order_units(db, product, 2)
    outcomes = apply_payments(
        db,
        ("a", order.order_id, "failed"),
        ("b", other.order_id, "success"),
        ("c", order.order_id, "success"),
        ("d", order.order_id, "cancelled"),
        ("e", other.order_id, "success"),
    )
    assert [outcome.result for outcome in outcomes] == [
        "applied",
        "applied",
        "applied",
        "no_change",
        "refund_due",
    ]
    assert [outcome.status for outcome in outcomes] == ["cancelled", "paid", "paid", "paid", "paid"]
    assert available(db, product) == 6


def test_revived_orders_of_one_batch_share_what_is_left_in_array_order(db, product):
    orders = [create_overdue_order(db, product, qty) for qty in (6, 5, 4)]
    outcomes = apply_payments(db, *[(f"p{i}", order.order_id, "success") for i, order in enumerate(orders)])
    assert [outcome.result for outcome in outcomes] == ["applied", "refund_due", "applied"]
    assert available(db, product) == 0


def test_one_webhooks_refusal_never_touches_another(db, product):
    order, other = order_units(db, product), order_units(db, product)
    apply_payment(db, "used", other.order_id, "failed")
    outcomes = apply_payments(
        db,
        ("", order.order_id, "cancelled"),
        ("used", order.order_id, "cancelled"),
        ("bad", order.order_id, "cancelled", {"amount": "one"}),
        ("good", order.order_id, "success"),
        ("bad", order.order_id, "success"),
    )
    assert sqlstates(outcomes) == ["SA009", "SA008", "SA009", None, None]
    assert [outcome.result for outcome in outcomes[3:]] == ["applied", "refund_due"]


def test_distinct_captured_payments_are_paid_orders_and_refunds_due(db, product):
    for i in range(4):
        order = order_units(db, product)
        for word in ("success", "failed", "success", "cancelled")[i:]:
            apply_payment(db, f"{i} {word}", order.order_id, word)
            apply_payment(db, f"{i} {word} again", order.order_id, word, amount="99.00")
            apply_payment(db, f"{i} {word} wrong", order.order_id, word, amount="98.00")
    captured = value(db, "select count(*) from flashsale.payments where status = 'success'")
    paid = value(db, "select count(*) from flashsale_data.orders where status = 'paid'")
    refunds = value(db, "select count(*) from flashsale.refunds_due")
    assert captured == paid + refunds
