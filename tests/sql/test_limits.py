"""The limit for each buyer: what counts towards it, and from when to when."""

import pytest

from tests.support.sql_calls import (
    abandon_order,
    apply_payment,
    apply_payments,
    audit,
    change_settings,
    change_terms,
    create_order,
    create_product,
    expire_due,
    extend_hold,
    get_allowance,
    get_hold,
    outcome,
    place_hold,
    place_holds,
    refused,
    release_hold,
    rows,
    sqlstates,
    value,
    wait_until_past,
)


@pytest.fixture
def limited(db):
    """10 units, of which each buyer gets at most 2."""
    return create_product(db, max_per_buyer=2)


def allowance(db, product, buyer="ann"):
    found = get_allowance(db, product, buyer)
    return found.taken, found.remaining


def lapse(db, product, buyer="ann", qty=1):
    """A hold of the buyer whose end has come, unswept."""
    change_settings(db, hold_time="100 ms")
    hold = place_hold(db, product, qty, buyer=buyer)
    change_settings(db, hold_time="2 minutes")
    wait_until_past(db, hold.expires_at)
    return hold


# --- what counts ---


def test_a_buyer_gets_no_more_than_the_limit(db, limited):
    place_hold(db, limited, 1, buyer="ann")
    with refused("SA017") as refusal:
        place_hold(db, limited, 2, buyer="ann")
    assert "at most 2" in refusal.value.diag.message_detail
    place_hold(db, limited, 1, buyer="ann")
    with refused("SA017"):
        place_hold(db, limited, 1, buyer="ann")
    place_hold(db, limited, 2, buyer="bob")


def test_a_limit_needs_a_buyer(db, limited):
    with refused("SA016"):
        place_hold(db, limited)
    assert sqlstates(place_holds(db, (limited, 1), (limited, 1, None, "ann"))) == ["SA016", None]


@pytest.mark.parametrize("buyer", ["", "x" * 256])
def test_a_buyer_has_1_to_255_characters(db, limited, product, buyer):
    for each in (limited, product):
        with refused("SA009") as refusal:
            place_hold(db, each, buyer=buyer)
        assert "buyer" in refusal.value.diag.message_detail
    place_hold(db, limited, buyer="é" * 255)


def test_the_refusal_has_the_limit_and_what_remains(db, limited):
    place_hold(db, limited, 1, buyer="ann")
    served, refused_one, plain = place_holds(
        db, (limited, 1, None, "bob"), (limited, 2, None, "ann"), (limited, 99, None, "cid")
    )
    assert refused_one.members == {"limit": 2, "taken": 1, "remaining": 1}
    assert (plain.sqlstate, plain.members) == ("SA017", {"limit": 2, "taken": 0, "remaining": 2})
    assert served.members is None


def test_pending_and_paid_orders_count(db, limited):
    first = create_order(db, place_hold(db, limited, buyer="ann").hold_id)
    assert allowance(db, limited) == (1, 1)
    apply_payment(db, "pays", first.order_id)
    assert allowance(db, limited) == (1, 1)
    create_order(db, place_hold(db, limited, buyer="ann").hold_id)
    with refused("SA017"):
        place_hold(db, limited, buyer="ann")


def test_what_is_given_back_counts_no_more(db, limited):
    """A released hold, a failed payment, an order that the buyer gives back."""
    for give_back in (
        lambda hold: release_hold(db, hold),
        lambda hold: apply_payment(db, f"fails {hold}", create_order(db, hold).order_id, "failed"),
        lambda hold: abandon_order(db, create_order(db, hold).order_id, hold),
    ):
        hold = place_hold(db, limited, 2, buyer="ann").hold_id
        assert allowance(db, limited) == (2, 0)
        give_back(hold)
        assert allowance(db, limited) == (0, 2)


def test_a_lapsed_hold_counts_no_more_swept_or_not(db, limited):
    lapse(db, limited, qty=2)
    assert allowance(db, limited) == (0, 2)
    place_hold(db, limited, 1, buyer="ann")
    assert expire_due(db) == 1
    assert allowance(db, limited) == (1, 1)
    assert value(db, "select count(*) from flashsale_data.claims") == 1


def test_an_overdue_order_counts_no_more_swept_or_not(db, limited):
    change_settings(db, payment_window="100 ms")
    order = create_order(db, place_hold(db, limited, 2, buyer="ann").hold_id)
    wait_until_past(db, order.payment_due_at)
    assert allowance(db, limited) == (0, 2)
    place_hold(db, limited, 2, buyer="ann")
    expire_due(db)
    assert allowance(db, limited) == (2, 0)


def test_an_extended_hold_counts_until_its_new_end(db, limited):
    change_settings(db, hold_time="200 ms", extension_time="1 day")
    hold = place_hold(db, limited, 2, buyer="ann")
    extend_hold(db, hold.hold_id, hold.expires_at)
    wait_until_past(db, hold.expires_at)
    assert allowance(db, limited) == (2, 0)
    with refused("SA017"):
        place_hold(db, limited, buyer="ann")


def test_a_batch_counts_what_it_has_placed(db, limited):
    batch = place_holds(db, *[(limited, 1, None, buyer) for buyer in ("ann", "bob", "ann", "ann", "bob")])
    assert sqlstates(batch) == [None, None, None, "SA017", None]
    assert [refusal.members["taken"] for refusal in batch if refusal.sqlstate] == [2]


def test_replays_count_once(db, limited):
    batch = place_holds(db, (limited, 2, "cart", "ann"), (limited, 2, "cart", "ann"))
    assert sqlstates(batch) == [None, None] and batch[1].replayed
    assert place_hold(db, limited, 2, "cart", "ann").hold_id == batch[0].hold_id


def test_a_key_of_another_buyer_is_reused(db, limited, product):
    place_hold(db, limited, 1, "cart", "ann")
    with refused("SA008"):
        place_hold(db, limited, 1, "cart", "bob")
    with refused("SA008"):
        place_hold(db, limited, 1, "cart")
    both = place_holds(db, (product, 1, "box", "ann"), (product, 1, "box", "bob"))
    assert sqlstates(both) == [None, "SA008"]


def test_without_a_limit_a_buyer_gets_all(db, product):
    place_hold(db, product, 10, buyer="ann")
    assert get_hold(db, place_hold(db, create_product(db), 10, "all", "ann").hold_id).status == "active"
    assert value(db, "select count(*) from flashsale_data.claims") == 0


def test_a_hold_has_at_most_so_many_units_for_any_buyer(db):
    product = create_product(db, max_per_hold=3)
    place_hold(db, product, 3)
    place_hold(db, product, 3, buyer="ann")
    with refused("SA017") as refusal:
        place_hold(db, product, 4)
    assert "at most 3" in refusal.value.diag.message_detail
    (row,) = place_holds(db, (product, 4))
    assert row.members == {"limit": 3, "taken": 0, "remaining": 3}


def test_a_sold_out_product_is_sold_out_whatever_the_buyer_has(db):
    product = create_product(db, stock=2, max_per_buyer=2)
    place_hold(db, product, 2, buyer="ann")
    assert (
        sqlstates(place_holds(db, (product, 1, None, "ann"), (product, 1), (product, 1, None, "bob")))
        == ["SA002"] * 3
    )


def test_limits_near_the_end_of_int_do_not_overflow(db):
    product = create_product(db, stock=2147483647, max_per_buyer=2147483647)
    place_hold(db, product, 2147483646, buyer="ann")
    with refused("SA017"):
        place_hold(db, product, 2147483647, buyer="ann")


# --- late payments ---


def overdue(db, product, buyer, qty=1):
    change_settings(db, payment_window="100 ms")
    order = create_order(db, place_hold(db, product, qty, buyer=buyer).hold_id)
    change_settings(db, payment_window="15 minutes")
    wait_until_past(db, order.payment_due_at)
    return order.order_id


@pytest.mark.parametrize("swept", [False, True])
def test_a_late_payment_must_fit_the_limit(db, limited, swept):
    late = overdue(db, limited, "ann", 2)
    if swept:
        expire_due(db)
    place_hold(db, limited, 1, buyer="ann")
    payment = apply_payment(db, "late", late)
    assert (payment.status, payment.result) == ("cancelled", "refund_due")
    assert rows(db, "select idempotency_key, reason from flashsale.refunds_due") == [
        ("late", "limit_reached")
    ]
    data = "select data from flashsale_data.events where kind = 'refund_due'"
    assert value(db, data) == {"reason": "limit_reached"}


@pytest.mark.parametrize("swept", [False, True])
def test_a_late_payment_that_fits_counts_again(db, limited, swept):
    late = overdue(db, limited, "ann", 1)
    place_hold(db, limited, 1, buyer="ann")
    if swept:
        expire_due(db)
    assert apply_payment(db, "late", late).result == "applied"
    assert allowance(db, limited) == (2, 0)


@pytest.mark.parametrize("swept", [False, True])
def test_an_overdue_order_that_the_shop_cancels_has_counted_until_it_was_due(db, limited, swept):
    order = overdue(db, limited, "ann", 2)
    if swept:
        expire_due(db)
    place_hold(db, limited, 2, buyer="ann")
    db.execute("select flashsale.cancel_order(%s)", (order,))
    assert audit(db) == []


@pytest.mark.parametrize("paid", ["in time", "late"])
def test_a_paid_order_that_the_shop_cancels_counts_no_more(db, limited, paid):
    if paid == "late":
        order = overdue(db, limited, "ann", 2)
        expire_due(db)
    else:
        order = create_order(db, place_hold(db, limited, 2, buyer="ann").hold_id).order_id
    assert apply_payment(db, "pays", order).status == "paid"
    db.execute("select flashsale.cancel_order(%s)", (order,))
    place_hold(db, limited, 2, buyer="ann")
    assert audit(db) == []


def test_late_payments_of_one_call_count_together(db, limited):
    orders = [overdue(db, limited, "ann") for _ in range(3)]
    others = overdue(db, limited, "bob")
    paid = apply_payments(db, *[(f"late {order}", order, "success") for order in [*orders, others]])
    assert [payment.result for payment in paid] == ["applied", "applied", "refund_due", "applied"]


def test_a_failure_makes_room_for_the_late_payment_behind_it(db, limited):
    late = overdue(db, limited, "ann", 2)
    pending = create_order(db, place_hold(db, limited, 2, buyer="ann").hold_id).order_id
    paid = apply_payments(db, ("fails", pending, "failed"), ("late", late, "success"))
    assert [payment.result for payment in paid] == ["applied", "applied"]
    assert allowance(db, limited) == (2, 0)


def test_a_payment_that_fails_and_comes_after_all_counts_once(db, limited):
    order = create_order(db, place_hold(db, limited, 2, buyer="ann").hold_id).order_id
    paid = apply_payments(db, ("no", order, "failed"), ("yes", order, "success"), ("no2", order, "failed"))
    assert [payment.result for payment in paid] == ["applied", "applied", "no_change"]
    assert allowance(db, limited) == (2, 0)


def test_a_late_payment_without_a_limit_needs_no_room(db, product):
    late = overdue(db, product, "ann", 2)
    place_hold(db, product, 5, buyer="ann")
    assert apply_payment(db, "late", late).result == "applied"


# --- groups ---


@pytest.fixture
def sizes(db):
    """Four sizes of one shoe, 2 for each buyer."""
    return [create_product(db, max_per_buyer=2, limit_group="shoe") for _ in range(4)]


def test_the_products_of_a_group_count_together(db, sizes):
    place_hold(db, sizes[0], buyer="ann")
    place_hold(db, sizes[3], buyer="ann")
    for size in sizes:
        with refused("SA017"):
            place_hold(db, size, buyer="ann")
        assert allowance(db, size) == (2, 0)
    place_hold(db, sizes[1], 2, buyer="bob")


def test_a_batch_counts_across_the_products_of_a_group(db, sizes, limited):
    batch = place_holds(
        db, *[(size, 1, None, "ann") for size in sizes], (limited, 2, None, "ann"), (sizes[0], 2, None, "bob")
    )
    assert sqlstates(batch) == [None, None, "SA017", "SA017", None, None]


def test_a_group_of_another_name_counts_for_itself(db, sizes):
    other = create_product(db, max_per_buyer=1, limit_group="product 1")
    place_hold(db, sizes[0], 2, buyer="ann")
    place_hold(db, other, buyer="ann")


def test_each_product_of_a_group_has_its_own_limit(db, sizes):
    change_terms(db, sizes[1], max_per_buyer=3)
    place_hold(db, sizes[0], 2, buyer="ann")
    place_hold(db, sizes[1], 1, buyer="ann")
    assert [allowance(db, size) for size in sizes[:2]] == [(3, 0), (3, 0)]


def test_a_product_of_a_group_without_a_limit_counts_for_the_others(db, sizes):
    free = create_product(db, limit_group="shoe")
    place_hold(db, free, 1, buyer="ann")
    place_hold(db, free, 1)
    assert allowance(db, sizes[0]) == (1, 1)
    place_hold(db, free, 5, buyer="ann")
    with refused("SA017"):
        place_hold(db, sizes[0], buyer="ann")


def test_a_product_that_joins_a_group_brings_what_its_buyers_have(db, sizes):
    late = create_product(db, max_per_buyer=2)
    place_hold(db, late, 1, buyer="ann")
    change_terms(db, late, limit_group="shoe")
    assert allowance(db, sizes[0]) == (1, 1)
    change_terms(db, late, limit_group="")
    assert (allowance(db, sizes[0]), allowance(db, late)) == ((0, 2), (1, 1))


# --- limits that change ---


def test_a_new_limit_counts_what_buyers_have_already(db, product):
    """Holds, pending and paid orders; not what is over, and nothing without a buyer."""
    place_hold(db, product, 1, buyer="ann")
    create_order(db, place_hold(db, product, 1, buyer="ann").hold_id)
    paid = create_order(db, place_hold(db, product, 1, buyer="bob").hold_id)
    apply_payment(db, "pays", paid.order_id)
    release_hold(db, place_hold(db, product, 1, buyer="bob").hold_id)
    lapse(db, product, "bob")
    place_hold(db, product, 1)
    change_terms(db, product, max_per_buyer=2)
    assert [allowance(db, product, buyer) for buyer in ("ann", "bob", "cid")] == [(2, 0), (1, 1), (0, 2)]
    assert audit(db) == []
    expire_due(db)


def test_a_lower_limit_touches_nothing_that_exists(db, limited):
    hold = place_hold(db, limited, 2, buyer="ann").hold_id
    change_terms(db, limited, max_per_buyer=1)
    found = get_allowance(db, limited, "ann")
    assert (found.max_per_buyer, found.taken, found.remaining) == (1, 2, 0)
    order = create_order(db, hold)
    assert apply_payment(db, "pays", order.order_id).result == "applied"


def test_a_limit_that_is_lifted_holds_no_more_and_forgets_no_one(db, limited):
    place_hold(db, limited, 2, buyer="ann")
    change_terms(db, limited, max_per_buyer=0)
    found = get_allowance(db, limited, "ann")
    assert (found.max_per_buyer, found.taken, found.remaining) == (None, None, None)
    place_hold(db, limited, 1, buyer="ann")
    place_hold(db, limited, 1)
    change_terms(db, limited, max_per_buyer=4)
    assert allowance(db, limited) == (3, 1)


def test_an_allowance_is_of_a_known_product_and_a_buyer(db, limited):
    with refused("SA001"):
        get_allowance(db, 10**9, "ann")
    for product, buyer in ((None, "ann"), (limited, None), (limited, ""), (limited, "x" * 256)):
        with refused("SA009"):
            get_allowance(db, product, buyer)


# --- cost ---


def test_ten_thousand_expired_holds_cost_what_none_do(db):
    """No claim is read that has ended."""
    product = create_product(db, stock=100_000, max_per_buyer=2)
    db.execute(
        "insert into flashsale_data.claims (hold_id, scope, buyer, ends_at, product_id, qty)"
        " select g, 'product ' || %(p)s, 'old', now() - interval '1 hour' - g * interval '1 second', %(p)s, 1"
        " from generate_series(1, 10000) g",
        {"p": product},
    )
    db.execute("vacuum analyze flashsale_data.claims")

    def claims_read(buyer):
        with db.transaction():
            assert outcome(place_hold, db, product, 2, None, buyer).status == "active"
            return value(db, "select idx_tup_fetch from pg_stat_xact_user_tables where relname = 'claims'")

    assert (claims_read("new"), claims_read("old")) == (0, 0)
    db.execute("delete from flashsale_data.claims where ends_at < now()")
