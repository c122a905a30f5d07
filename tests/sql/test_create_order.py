"""flashsale.create_order and create_orders: a hold becomes an order that awaits payment."""

from datetime import timedelta
from decimal import Decimal

import pytest

from tests.support.sql_calls import (
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
    place_hold,
    place_lapsed_hold,
    place_short_hold,
    refused,
    release_hold,
    sqlstates,
    value,
    wait_until_past,
)


def test_an_order_awaits_payment_of_its_amount(db, product):
    hold = place_hold(db, product, 3)
    order = create_order(db, hold.hold_id)
    assert (order.status, order.amount, order.currency, order.replayed) == (
        "pending_payment",
        Decimal("297.00"),
        "USD",
        False,
    )
    assert get_hold(db, hold.hold_id)[3:] == ("ordered", hold.expires_at, order.order_id, "pending_payment")
    assert available(db, product) == 7


def test_money_has_the_decimals_of_its_currency(db):
    for price, currency, amount in (
        ("99", "USD", "198.00"),
        ("0.1", "EUR", "0.20"),
        ("1200", "JPY", "2400"),
        ("1.5", "KWD", "3.000"),
        ("0", "USD", "0.00"),
    ):
        order = create_order(db, place_hold(db, create_product(db, 10, price, currency), 2).hold_id)
        assert (str(order.amount), order.currency) == (amount, currency)


def test_payment_is_due_in_15_minutes_rounded_up_to_a_tenth_of_a_second(db, product):
    hold = place_hold(db, product)
    before = value(db, "select clock_timestamp()")
    due_at = create_order(db, hold.hold_id).payment_due_at
    after = value(db, "select clock_timestamp()")
    assert before + timedelta(minutes=15) <= due_at < after + timedelta(minutes=15, milliseconds=100)
    assert due_at.microsecond % 100_000 == 0


def test_the_payment_window_is_a_setting(db, product):
    change_settings(db, payment_window="2 days")
    order = create_order(db, place_hold(db, product).hold_id)
    assert order.payment_due_at - get_order(db, order.order_id).created_at > timedelta(hours=47)


def test_order_ids_increase(db, product):
    ids = [create_order(db, place_hold(db, product).hold_id).order_id for _ in range(3)]
    ids += [
        order.order_id for order in create_orders(db, *[(place_hold(db, product).hold_id,) for _ in range(3)])
    ]
    assert ids == sorted(set(ids))
    assert ids[0] > 0


# --- refusals ---


def test_a_used_hold_names_the_order_that_used_it(db, product):
    hold = place_hold(db, product)
    order = create_order(db, hold.hold_id)
    apply_payment(db, "p", order.order_id)
    with refused("SA006") as refusal:
        create_order(db, hold.hold_id)
    assert f"order {order.order_id}, which is paid" in refusal.value.diag.message_detail
    (outcome,) = create_orders(db, (hold.hold_id, "another key"))
    assert (outcome.sqlstate, outcome.order_id, outcome.status) == ("SA006", order.order_id, "paid")
    assert (outcome.amount, outcome.payment_due_at) == (None, None)


@pytest.mark.parametrize("swept", [False, True])
def test_a_lapsed_hold_has_expired_swept_or_not(db, product, swept):
    hold = place_lapsed_hold(db, product)
    if swept:
        assert expire_due(db) == 1
    with refused("SA004"):
        create_order(db, hold.hold_id)
    assert available(db, product) == 10


def test_a_hold_can_be_ordered_until_the_very_instant_of_its_lapse(db, product):
    """Orders are attempted, and undone, through the whole life of a hold."""
    hold = place_short_hold(db, product, 1, "1 second")
    outcome = None
    while not outcome or not outcome.sqlstate:
        before = value(db, "select clock_timestamp()")
        with db.transaction(force_rollback=True):
            (outcome,) = create_orders(db, (hold.hold_id,))
            after = value(db, "select clock_timestamp()")
        assert outcome.sqlstate == "SA004" or before < hold.expires_at
    assert outcome.sqlstate == "SA004"
    assert after >= hold.expires_at


def test_a_released_hold_is_refused(db, product):
    hold = place_hold(db, product)
    release_hold(db, hold.hold_id)
    with refused("SA005"):
        create_order(db, hold.hold_id)


def test_an_unknown_hold_is_not_found(db):
    for hold_id in (1, -1, 2**63 - 1):
        with refused("SA003"):
            create_order(db, hold_id)


def test_an_order_needs_a_hold_and_a_key_of_1_to_255_characters(db, product):
    hold = place_hold(db, product)
    for hold_id, key in ((None, None), (None, "k"), (hold.hold_id, ""), (hold.hold_id, "k" * 256)):
        with refused("SA009"):
            create_order(db, hold_id, key)
    assert create_order(db, hold.hold_id, "k" * 255).status == "pending_payment"


# --- replays ---


def test_the_same_key_again_is_a_replay_without_effect(db, product):
    hold = place_hold(db, product)
    first = create_order(db, hold.hold_id, "k")
    again = create_order(db, hold.hold_id, "k")
    assert again.replayed
    assert again._replace(replayed=False) == first
    assert value(db, "select count(*) from flashsale_data.events where kind = 'order_created'") == 1


def test_the_same_key_with_another_hold_is_refused(db, product):
    hold, other = place_hold(db, product), place_hold(db, product)
    create_order(db, hold.hold_id, "k")
    for hold_id in (other.hold_id, 12345):
        with refused("SA008"):
            create_order(db, hold_id, "k")
    assert get_hold(db, other.hold_id).status == "active"


def test_a_key_whose_order_was_refused_is_free(db, product):
    with refused("SA003"):
        create_order(db, 12345, "k")
    assert create_order(db, place_hold(db, product).hold_id, "k").replayed is False


def test_a_replay_returns_the_order_as_it_now_stands(db, product):
    hold = place_hold(db, product)
    order = create_order(db, hold.hold_id, "k")
    apply_payment(db, "p", order.order_id)
    again = create_order(db, hold.hold_id, "k")
    assert (again.order_id, again.status, again.replayed) == (order.order_id, "paid", True)

    change_settings(db, payment_window="100 ms")
    hold = place_hold(db, product)
    order = create_order(db, hold.hold_id, "overdue")
    wait_until_past(db, order.payment_due_at)
    again = create_order(db, hold.hold_id, "overdue")
    assert (again.order_id, again.status, again.replayed) == (order.order_id, "cancelled", True)


def test_one_hold_in_one_batch_is_ordered_once_by_the_first_request(db, product):
    hold = place_hold(db, product)
    outcomes = create_orders(
        db, (hold.hold_id, "k"), (hold.hold_id,), (hold.hold_id, "k"), (hold.hold_id, "other")
    )
    assert sqlstates(outcomes) == [None, "SA006", None, "SA006"]
    assert {outcome.order_id for outcome in outcomes} == {outcomes[0].order_id}
    assert [outcome.replayed for outcome in outcomes if not outcome.sqlstate] == [False, True]


def test_one_key_in_one_batch_orders_one_hold(db, product):
    hold, other = place_hold(db, product), place_hold(db, product)
    outcomes = create_orders(db, (hold.hold_id, "k"), (other.hold_id, "k"), (other.hold_id,))
    assert sqlstates(outcomes) == [None, "SA008", None]
    assert outcomes[2].order_id != outcomes[0].order_id


def test_a_refused_request_does_not_use_up_its_key_for_the_rest_of_the_batch(db, product):
    hold = place_hold(db, product)
    outcomes = create_orders(db, (12345, "k"), (hold.hold_id, "k"), (hold.hold_id, "k"))
    assert sqlstates(outcomes) == ["SA003", None, None]
    assert [outcome.replayed for outcome in outcomes[1:]] == [False, True]


def test_a_refused_request_does_not_use_up_its_hold_for_the_rest_of_the_batch(db, product):
    used, hold = place_hold(db, product), place_hold(db, product)
    create_order(db, used.hold_id, "used")
    outcomes = create_orders(db, (hold.hold_id, "used"), (hold.hold_id, ""), (hold.hold_id,))
    assert sqlstates(outcomes) == ["SA008", "SA009", None]


# --- time ---


def test_an_overdue_order_returns_its_units_without_a_sweep(db, product):
    order = create_overdue_order(db, product, 4)
    assert available(db, product) == 10
    found = get_order(db, order.order_id)
    assert (found.status, found.cancel_reason) == ("cancelled", "payment_overdue")
    assert get_hold(db, found.hold_id).order_status == "cancelled"
    assert place_hold(db, product, 10).status == "active"
    assert expire_due(db) == 1
    assert available(db, product) == 0


def test_an_order_may_be_due_at_the_instant_at_which_its_hold_would_have_lapsed(db, product):
    change_settings(db, hold_time="500 ms", payment_window="400 ms")
    for _ in range(5):
        hold = place_hold(db, product, 10)
        order = create_order(db, hold.hold_id)
        wait_until_past(db, max(hold.expires_at, order.payment_due_at))
        assert available(db, product) == 10
