"""While a slot stands still, what would change it waits, and is refused once the slot has been given up."""

import pytest

from tests.shards.sql.shops import Shop, create_in, early_order_id
from tests.support.slot_moves import exported, give_up, move, own
from tests.support.sql_calls import (
    adjust_stock,
    apply_payment,
    apply_payments,
    change_settings,
    create_order,
    expire_due,
    place_hold,
    place_holds,
    release_hold,
    rows,
    sqlstates,
    value,
    wait_until_past,
)


@pytest.fixture
def shop(source):
    return Shop(source)


@pytest.fixture
def caller(connect):
    return connect("flashsale_app")


@pytest.fixture
def operator(connect):
    return connect()


def test_calls_that_waited_are_refused(source, target, shop, connect, blocked):
    calls = [
        (place_hold, shop.product, 1, None, "eve"),
        (release_hold, shop.hold),
        (create_order, shop.hold),
        (apply_payment, "late", shop.pending),
    ]
    with exported(source, target, 1) as move_id:
        waiting = [blocked(call, connect("flashsale_app"), *args) for call, *args in calls]
        give_up(source, 1, move_id)
    assert [call.result() for call in waiting] == ["SA029"] * 4
    own(target, 1, move_id)
    assert create_order(target, shop.hold).status == "pending_payment"


def test_calls_that_waited_are_served_if_the_slot_stays(source, target, shop, caller, blocked):
    with exported(source, target, 1):
        waiting = blocked(place_hold, caller, shop.product, 1, None, "eve")
    assert waiting.result().status == "active"


def test_an_early_webhook_waits_and_is_refused(source, target, shop, caller, blocked):
    early = early_order_id(source, shop.product)
    with exported(source, target, 1) as move_id:
        waiting = blocked(apply_payment, caller, "early", early)
        give_up(source, 1, move_id)
    assert waiting.result() == "SA029"
    own(target, 1, move_id)
    assert apply_payment(target, "early", early).result == "stored"
    assert create_order(target, shop.hold).status == "paid"


def test_a_webhook_whose_order_came_back_with_its_slot_is_refused(source, target, shop, connect, blocked):
    other = create_in(source, 0)
    order = create_order(source, place_hold(source, other).hold_id)
    early = early_order_id(source, shop.product)
    first = connect(autocommit=False)
    place_hold(first, other)
    waiting = blocked(
        apply_payments,
        connect("flashsale_app"),
        ("known", order.order_id, "success"),
        ("early", early, "success"),
    )
    move(source, target, 1)
    assert create_order(target, shop.hold).order_id == early
    move(target, source, 1)
    first.commit()
    assert waiting.result() == "SA029"
    assert apply_payment(source, "early", early).result == "applied"


def test_a_product_is_not_created_in_a_slot_that_leaves(source, target, shop, operator, blocked):
    with exported(source, target, 1) as move_id:
        waiting = blocked(create_in, operator, 1)
        give_up(source, 1, move_id)
    assert waiting.result() == "SA029"
    own(target, 1, move_id)


def test_a_refund_waits(source, target, shop, operator, blocked):
    refund = "select still_due from flashsale.record_refund('re', 'pay', 1, 'done')"
    with exported(source, target, 1) as move_id:
        waiting = blocked(lambda conn: value(conn, refund), operator)
        give_up(source, 1, move_id)
    assert waiting.result() == "SA020"
    own(target, 1, move_id)
    assert value(target, refund) == 0


def test_a_rejected_webhook_is_dismissed_before_or_after(source, target, shop, operator, blocked):
    reject = "select flashsale.record_rejected_webhook('msg', '{}', 'malformed_json', 'd', null, %s, null)"
    value(source, reject, shop.pending)
    with exported(source, target, 1) as move_id:
        dismiss = "update flashsale_data.rejected_webhooks set dismissed_at = now()"
        waiting = blocked(lambda conn: conn.execute(dismiss).rowcount, operator)
        give_up(source, 1, move_id)
    assert waiting.result() == 0
    own(target, 1, move_id)


def test_the_sweep_leaves_the_slot_alone(source, target, shop, operator):
    change_settings(source, hold_time="100 ms")
    hold = place_hold(source, shop.product, 1, None, "eve")
    wait_until_past(source, hold.expires_at)
    adjust_stock(source, shop.product, 1)  # returns its units: the sweep needs no lock of the product
    with exported(source, target, 1) as move_id:
        assert expire_due(operator) == 0
        give_up(source, 1, move_id)
    own(target, 1, move_id)
    assert expire_due(target) == 1


def test_a_purge_waits(source, target, shop, operator, blocked):
    with exported(source, target, 1) as move_id:
        waiting = blocked(lambda conn: rows(conn, "select * from flashsale.purge('0')"), operator)
        give_up(source, 1, move_id)
    waiting.result()
    own(target, 1, move_id)


def test_other_slots_are_sold_meanwhile(source, target, shop, caller):
    other = create_in(source, 0)
    with exported(source, target, 1) as move_id:
        hold = place_hold(caller, other)
        order = create_order(caller, hold.hold_id)
        assert apply_payment(caller, "p", order.order_id).result == "applied"
        assert sqlstates(place_holds(caller, (other, 1), (shop.product, 1))) == [None, "55P03"]
        give_up(source, 1, move_id)
    own(target, 1, move_id)
