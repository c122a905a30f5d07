"""The failures that systems of this kind are known for, one after the other.

Each has its control: with the guard taken out of the function that has it, the failure appears. A control
that fails says that the test above it proves nothing any more.
"""

import pytest
from psycopg import IsolationLevel

from tests.support.sql_calls import (
    LOCKED,
    adjust_stock,
    apply_payment,
    apply_payments,
    audit,
    available,
    change_terms,
    create_order,
    create_orders,
    create_overdue_order,
    create_product,
    expire_due,
    get_order,
    next_order_id,
    order_units,
    outcome,
    place_hold,
    place_holds,
    place_lapsed_hold,
    place_short_hold,
    release_hold,
    sqlstates,
    value,
    wait_until_blocked_or_done,
    wait_until_past,
)

pytestmark = pytest.mark.slow

# --- pending orders not counted as taken ---


def try_to_buy_ordered_units(db):
    product = create_product(db, stock=1)
    order_units(db, product)
    return sqlstates(place_holds(db, (product, 1)))


def test_pending_orders_count_as_taken(db):
    assert try_to_buy_ordered_units(db) == ["SA002"]


def test_pending_orders_count_as_taken_control(db, without):
    without("order-takes-units", "")
    assert try_to_buy_ordered_units(db) == [None]
    assert "never_oversold" in audit(db)


# --- expiry racing the order ---


def order_a_hold_that_lapses_in_the_queue(db, first, second, blocked):
    """A request that is ahead in the queue takes its units meanwhile."""
    product = create_product(db, stock=1)
    hold = place_short_hold(db, product, 1, "1 second")
    adjust_stock(first, product, 1)
    order = blocked(create_order, second, hold.hold_id)
    wait_until_past(db, hold.expires_at)
    place_hold(first, product, 2)
    first.commit()
    return order.result()


def test_expiry_racing_the_order(db, first, second, blocked):
    assert order_a_hold_that_lapses_in_the_queue(db, first, second, blocked) == "SA004"


def test_expiry_racing_the_order_control(db, first, second, blocked, without):
    """The clock that stands still in a transaction is the one to mistrust."""
    without("hold-not-expired", "and hold.expires_at > now()")
    assert order_a_hold_that_lapses_in_the_queue(db, first, second, blocked).status == "pending_payment"
    assert "never_oversold" in audit(db)


# --- two sweepers ---


def sweep_twice_at_once(db, product, first, second, meanwhile):
    """A lapsed hold, marked by two."""
    place_lapsed_hold(db, product)
    place_hold(db, product)  # gives back what has lapsed
    counts = [expire_due(first)]
    late = meanwhile(expire_due, second)
    wait_until_blocked_or_done(db, second, late)
    first.commit()
    return [*counts, late.result()]


def test_two_sweepers_expire_a_hold_once(db, product, first, second, meanwhile):
    assert sweep_twice_at_once(db, product, first, second, meanwhile) == [1, 0]


def test_two_sweepers_expire_a_hold_once_control(db, product, first, second, meanwhile, without):
    without("sweep-skips-locked", "", ") l;")
    assert sweep_twice_at_once(db, product, first, second, meanwhile) == [1, 1]
    assert audit(db) == ["ledger"]


# --- stored webhook swallowed by its own idempotency key ---


def pay_early_and_again(db, product):
    """The provider sends its webhook before there is an order, and once more when there is one."""
    order_id = next_order_id(db)
    apply_payment(db, "p", order_id)
    order_units(db, product)
    return apply_payment(db, "p", order_id).result, get_order(db, order_id).status


def test_a_stored_webhook_is_not_swallowed_by_its_own_key(db, product):
    assert pay_early_and_again(db, product) == ("applied", "paid")


def test_a_stored_webhook_is_not_swallowed_by_its_own_key_control(db, product, without):
    without("stored-webhooks-applied", "")
    assert pay_early_and_again(db, product) == ("stored", "pending_payment")
    assert audit(db) == ["webhook_missed_its_order"]


def pay_while_the_order_is_being_created(db, product, first, second, meanwhile):
    hold = place_hold(db, product)
    order_id = next_order_id(db)
    apply_payment(first, "p", order_id)
    order = meanwhile(create_order, second, hold.hold_id)
    wait_until_blocked_or_done(db, second, order)
    first.commit()
    order.result()
    return get_order(db, order_id).status


def test_a_stored_webhook_and_its_order_do_not_miss_each_other(db, product, first, second, meanwhile):
    assert pay_while_the_order_is_being_created(db, product, first, second, meanwhile) == "paid"


def test_a_stored_webhook_and_its_order_do_not_miss_each_other_control(
    db, product, first, second, meanwhile, without
):
    without("order-id-lock", "perform 1")
    assert pay_while_the_order_is_being_created(db, product, first, second, meanwhile) == "pending_payment"
    assert audit(db) == ["webhook_missed_its_order"]


# --- success after failure consuming another buyer's unit ---


def succeed_after_failing_when_the_unit_is_sold(db):
    product = create_product(db, stock=1)
    order = order_units(db, product)
    apply_payment(db, "failed", order.order_id, "failed")
    place_hold(db, product)
    answer = outcome(apply_payment, db, "success", order.order_id)
    return answer if isinstance(answer, str) else answer.result


def test_success_after_failure_takes_no_unit_of_another_order(db):
    assert succeed_after_failing_when_the_unit_is_sold(db) == "refund_due"


def test_success_after_failure_takes_no_unit_of_another_order_control(db, without):
    without("units-left-to-revive", "when true then 'applied'")
    # The table is the last to object.
    assert succeed_after_failing_when_the_unit_is_sold(db) == "23514"
    with db.transaction(force_rollback=True):
        db.execute("alter table flashsale_data.stock drop constraint stock_never_oversold")
        assert apply_payment(db, "success", 1).result == "applied"
        assert audit(db) == ["never_oversold"]


# --- failure after success restocking ---


def fail_after_succeeding(db, product):
    """Of two orders that are due at one instant: of one alone, the table would not take it."""
    holds = place_holds(db, (product, 1), (product, 1))
    _, order = create_orders(db, *[(hold.hold_id,) for hold in holds])
    apply_payment(db, "success", order.order_id, "success")
    return apply_payment(db, "failed", order.order_id, "failed")[1:3], available(db, product)


def test_failure_after_success_restocks_nothing(db, product):
    assert fail_after_succeeding(db, product) == (("paid", "no_change"), 8)


def test_failure_after_success_restocks_nothing_control(db, product, without):
    without("failed-payment-in-time", "when v_payment.status <> 'success' then 'applied'")
    assert fail_after_succeeding(db, product)[0] == ("cancelled", "applied")
    assert {"ledger", "paid_counter", "paid_by_one_payment"} <= set(audit(db))


# --- the wrong product restocked ---


def fail_orders_of_two_products_in_one_batch(db):
    products = create_product(db), create_product(db)
    for product in products:
        order_units(db, product, 4)
    orders = [order_units(db, product, qty) for product, qty in zip(products, (1, 3), strict=True)]
    apply_payments(db, *[(f"p{order.order_id}", order.order_id, "failed") for order in orders])
    return sorted(available(db, product) for product in products)


def test_the_right_product_is_restocked(db):
    assert fail_orders_of_two_products_in_one_batch(db) == [6, 6]


def test_the_right_product_is_restocked_control(db, without):
    without("product-of-order", "v_product_slot := 1;")
    assert fail_orders_of_two_products_in_one_batch(db) != [6, 6]
    assert "awaiting_counter" in audit(db)


# --- an abandoned order holding stock for ever ---


def buy_what_an_abandoned_order_has_kept(db):
    """Without a sweep."""
    product = create_product(db, stock=1)
    create_overdue_order(db, product)
    return sqlstates(place_holds(db, (product, 1)))


def test_an_abandoned_order_gives_its_stock_back(db):
    assert buy_what_an_abandoned_order_has_kept(db) == [None]


def test_an_abandoned_order_gives_its_stock_back_control(db, without):
    without("overdue-units-return", "")
    assert buy_what_an_abandoned_order_has_kept(db) == ["SA002"]
    assert audit(db) != []


# --- undersell ---


def buy_the_last_unit_while_the_one_before_is_bought(db, first, second, meanwhile):
    """The outcome for the second buyer, and what is then left."""
    product = create_product(db, stock=2)
    place_hold(first, product)
    hold = meanwhile(place_holds, second, (product, 1))
    wait_until_blocked_or_done(db, second, hold)
    first.commit()
    return sqlstates(hold.result()), available(db, product)


def test_no_unit_stays_unsold_because_its_buyer_met_another(db, first, second, meanwhile):
    assert buy_the_last_unit_while_the_one_before_is_bought(db, first, second, meanwhile) == ([None], 0)


def test_no_unit_stays_unsold_because_its_buyer_met_another_control(db, first, second, meanwhile, without):
    without("product-lock", "for no key update skip locked;")
    assert buy_the_last_unit_while_the_one_before_is_bought(db, first, second, meanwhile) == ([LOCKED], 1)


# --- a REPEATABLE READ caller ---


@pytest.fixture
def old_snapshot(connect, db):
    """A REPEATABLE READ caller whose snapshot is taken now."""
    conn = connect(autocommit=False)
    conn.isolation_level = IsolationLevel.REPEATABLE_READ
    return conn


def create_an_order_whose_webhook_came_since(db, product, caller):
    hold = place_hold(db, product)
    available(caller, product)
    apply_payment(db, "p", next_order_id(db))
    order = outcome(create_order, caller, hold.hold_id)
    caller.commit()
    return order if isinstance(order, str) else order.status


def test_a_repeatable_read_caller_does_not_miss_a_webhook(db, product, old_snapshot):
    assert create_an_order_whose_webhook_came_since(db, product, old_snapshot) == "40001"


def test_a_repeatable_read_caller_does_not_miss_a_webhook_control(db, product, old_snapshot, without):
    without("inbox-in-snapshot", "")
    assert create_an_order_whose_webhook_came_since(db, product, old_snapshot) == "pending_payment"
    assert audit(db) == ["webhook_missed_its_order"]


def pay_an_order_created_since(db, product, caller):
    hold = place_hold(db, product)
    available(caller, product)
    order = create_order(db, hold.hold_id)
    payment = outcome(apply_payment, caller, "p", order.order_id)
    caller.commit()
    return payment if isinstance(payment, str) else payment.result


def test_a_repeatable_read_caller_does_not_miss_an_order(db, product, old_snapshot):
    assert pay_an_order_created_since(db, product, old_snapshot) == "40001"


def test_a_repeatable_read_caller_does_not_miss_an_order_control(db, product, old_snapshot, without):
    without("unseen-orders", "")
    assert pay_an_order_created_since(db, product, old_snapshot) == "stored"
    assert audit(db) == ["webhook_missed_its_order"]


def buy_what_has_come_back_since(db, caller):
    product = create_product(db, stock=1)
    hold = place_hold(db, product)
    available(caller, product)
    release_hold(db, hold.hold_id)
    return outcome(place_hold, caller, product)


def test_a_repeatable_read_caller_gets_no_old_count(db, old_snapshot):
    assert buy_what_has_come_back_since(db, old_snapshot) == "40001"


def test_a_repeatable_read_caller_gets_no_old_count_control(db, old_snapshot, without):
    without("sold-out-in-snapshot", "")
    assert buy_what_has_come_back_since(db, old_snapshot) == "SA002"


# --- a limit that counts finished orders only ---


def hold_three_units(db, *buyers):
    """One after the other, of a product of which a buyer gets 2."""
    product = create_product(db, max_per_buyer=2)
    return [sqlstates(place_holds(db, (product, 1, None, buyer)))[0] for buyer in buyers]


def test_holds_count_towards_the_limit(db):
    assert hold_three_units(db, "ann", "ann", "ann") == [None, None, "SA017"]


def test_holds_count_towards_the_limit_control(db, without):
    without("claim-recorded", "where false;")
    assert hold_three_units(db, "ann", "ann", "ann") == [None, None, None]
    assert audit(db) == ["claims_add_up", "limit_kept"]


# --- a guest who avoids the limit ---


def test_a_guest_does_not_avoid_the_limit(db):
    assert hold_three_units(db, "ann", "ann", None) == [None, None, "SA016"]


def test_a_guest_does_not_avoid_the_limit_control(db, without):
    without("buyer-required", "")
    assert hold_three_units(db, "ann", "ann", None) == [None, None, None]


# --- a limit by the cart, not by the buyer ---


def hold_the_limit_twice(db):
    product = create_product(db, max_per_buyer=2)
    return [outcome(place_hold, db, product, 2, cart, "ann") for cart in ("cart 1", "cart 2")]


def test_a_second_cart_is_no_second_limit(db):
    assert hold_the_limit_twice(db)[1] == "SA017"


def test_a_second_cart_is_no_second_limit_control(db, without):
    without("limit-reached", "end;")
    assert hold_the_limit_twice(db)[1].status == "active"
    assert audit(db) == ["limit_kept"]


# --- a window checked before the lock ---


def buy_while_the_sale_ends(db, first, second, blocked):
    """A buyer waits for the product's lock until the sale is over."""
    product = create_product(db, hold_time="1 minute")
    ends_at = value(db, "select clock_timestamp() + interval '1 second'")
    change_terms(db, product, ends_at=ends_at)
    place_hold(first, product)
    hold = blocked(place_hold, second, product)
    wait_until_past(db, ends_at)
    first.commit()
    return hold.result()


def test_a_sale_ends_for_who_waits(db, first, second, blocked):
    assert buy_while_the_sale_ends(db, first, second, blocked) == "SA013"


def test_a_sale_ends_for_who_waits_control(db, first, second, blocked, without):
    without(
        "window-after-lock",
        "then flashsale_data.sale_status(p.starts_at, p.ends_at, p.paused, p.cancelled,"
        " transaction_timestamp())",
    )
    assert buy_while_the_sale_ends(db, first, second, blocked).status == "active"
    assert audit(db) == ["held_in_time"]
