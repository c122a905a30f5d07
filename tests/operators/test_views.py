"""The operators' views: exact at every instant, whether or not anything has been swept."""

from datetime import timedelta
from decimal import Decimal

import pytest

from tests.support.sale_steps import (
    create_order,
    create_product,
    expire_due,
    hold_status,
    make_short,
    one,
    order,
    order_status,
    pay,
    place_hold,
    wait_until_lapsed,
)


@pytest.fixture
def ops(db, connect):
    """A session with an operator's privileges."""
    conn = connect()
    conn.execute("set role flashsale_ops")
    return conn


@pytest.fixture
def soon(db):
    """Holds and orders lapse soon, but late enough to query them before."""
    db.execute("select flashsale.change_settings('1 second', '1 second')")


def watch(db, ops, query, instant):
    """The results of `query` before `instant` and from `instant` on, as two sets."""
    early, late = set(), set()
    while not late:
        before = one(db, "select clock_timestamp()")
        answer = ops.execute(query).fetchone()
        after = one(db, "select clock_timestamp()")
        if after < instant:
            early.add(answer)
        elif before >= instant:
            late.add(answer)
    return early, late


# stock


def test_stock_accounts_for_every_unit(db, ops):
    product = create_product(db, stock=20, price="5", currency="JPY", name="Shoe")
    place_hold(db, product, 2)
    order(db, product, 3)
    pay(db, order(db, product, 4))
    pay(db, order(db, product, 5), "failed")
    cursor = ops.execute("select * from flashsale.stock")
    assert [column.name for column in cursor.description] == [
        "product_id", "name", "total_stock", "available_stock", "held", "awaiting", "paid",
        "price", "currency",
    ]  # fmt: skip
    assert cursor.fetchall() == [(product, "Shoe", 20, 11, 2, 3, 4, Decimal("5"), "JPY")]


def test_stock_has_a_row_for_each_product(db, ops):
    first, second = create_product(db, stock=1), create_product(db, stock=0)
    place_hold(db, first)
    rows = ops.execute(
        "select product_id, available_stock from flashsale.stock order by product_id"
    ).fetchall()
    assert rows == [(first, 0), (second, 0)]


def test_stock_is_exact_at_the_instant_a_hold_lapses(db, ops, soon):
    product = create_product(db, stock=5)
    hold = place_hold(db, product, 2)
    instant = one(db, "select expires_at from flashsale.get_hold(%s)", hold)
    seen = watch(db, ops, "select available_stock, held from flashsale.stock", instant)
    assert seen == ({(3, 2)}, {(5, 0)})
    assert hold_status(db, hold) == "active", "no sweep has run"


def test_stock_is_exact_at_the_instant_an_order_falls_due(db, ops, soon):
    product = create_product(db, stock=5)
    made = order(db, product, 2)
    instant = one(db, "select payment_due_at from flashsale.get_order(%s)", made)
    seen = watch(db, ops, "select available_stock, awaiting from flashsale.stock", instant)
    assert seen == ({(3, 2)}, {(5, 0)})
    assert order_status(db, made) == ("pending_payment", None), "no sweep has run"


# active_holds


def test_active_holds_are_those_that_reserve_units(db, ops):
    product = create_product(db)
    held, released, ordered = (place_hold(db, product, 2) for _ in range(3))
    db.execute("select flashsale.release_hold(%s)", (released,))
    create_order(db, ordered)
    rows = ops.execute("select hold_id, product_id, qty from flashsale.active_holds").fetchall()
    assert rows == [(held, product, 2)]


def test_active_holds_show_the_remaining_time(db, ops):
    product = create_product(db)
    before = one(db, "select clock_timestamp()")
    place_hold(db, product)
    placed, expires, left, now = ops.execute(
        "select placed_at, expires_at, time_left, statement_timestamp() from flashsale.active_holds"
    ).fetchone()
    # expires_at counts from the lock on its product; placed_at is when the row was written, a moment later.
    assert before <= placed <= now
    assert before + timedelta(minutes=2) <= expires < now + timedelta(minutes=2, milliseconds=100)
    assert expires - now - timedelta(seconds=1) < left <= expires - now


def test_a_hold_leaves_active_holds_at_the_instant_it_lapses(db, ops, soon):
    product = create_product(db)
    hold = place_hold(db, product)
    instant = one(db, "select expires_at from flashsale.get_hold(%s)", hold)
    seen = watch(db, ops, "select count(*) from flashsale.active_holds", instant)
    assert seen == ({(1,)}, {(0,)})
    assert hold_status(db, hold) == "active", "no sweep has run"


# open_orders


def test_open_orders_are_those_that_await_payment(db, ops):
    product = create_product(db, price="10")
    open_order, paid, failed = (order(db, product, 2) for _ in range(3))
    pay(db, paid)
    pay(db, failed, "failed")
    rows = ops.execute(
        "select order_id, product_id, qty, amount, currency, payment_due_at - created_at > '14 minutes',"
        " time_left between '14 minutes' and '15 minutes 1 second' from flashsale.open_orders"
    ).fetchall()
    assert rows == [(open_order, product, 2, Decimal("20.00"), "USD", True, True)]


def test_an_order_leaves_open_orders_at_the_instant_it_falls_due(db, ops, soon):
    product = create_product(db)
    made = order(db, product)
    instant = one(db, "select payment_due_at from flashsale.get_order(%s)", made)
    seen = watch(db, ops, "select count(*) from flashsale.open_orders", instant)
    assert seen == ({(1,)}, {(0,)})
    assert order_status(db, made) == ("pending_payment", None), "no sweep has run"


# refunds_due


def refunds(ops):
    return ops.execute(
        "select idempotency_key, order_id, amount, currency, reason from flashsale.refunds_due"
        " order by received_at"
    ).fetchall()


def test_nothing_is_due_when_every_payment_paid_an_order(db, ops):
    product = create_product(db)
    pay(db, order(db, product))
    pay(db, order(db, product), "failed")
    pay(db, 1_000_000)  # its order may still come
    assert refunds(ops) == []


def test_an_order_paid_twice(db, ops):
    made = order(db, create_product(db))
    pay(db, made)
    pay(db, made, key="again")
    assert refunds(ops) == [("again", made, Decimal("99.00"), "USD", "paid_twice")]


def test_a_payment_of_a_wrong_amount(db, ops):
    made = order(db, create_product(db))
    pay(db, made, key="cheap", amount="1.00", currency="USD")
    pay(db, made, key="foreign", amount="99.00", currency="EUR")
    assert refunds(ops) == [
        ("cheap", made, Decimal("1.00"), "USD", "amount_mismatch"),
        ("foreign", made, Decimal("99.00"), "EUR", "amount_mismatch"),
    ]


@pytest.mark.parametrize(
    ("payload", "amount", "currency"),
    [
        ({}, Decimal("99.00"), "USD"),
        ({"currency": "USD"}, Decimal("99.00"), "USD"),
        ({"amount": "5.00"}, Decimal("5.00"), "USD"),
        ({"amount": "5.00", "currency": "JPY"}, Decimal("5.00"), "JPY"),
        ({"currency": "JPY"}, None, "JPY"),
    ],
)
def test_an_amount_is_shown_in_no_currency_but_its_own(db, ops, payload, amount, currency):
    made = order(db, create_product(db))
    pay(db, made)
    pay(db, made, key="second", **payload)
    ((_, _, shown, shown_in, _),) = refunds(ops)
    assert (shown, shown_in) == (amount, currency)


def test_a_failed_payment_of_a_wrong_amount_is_not_due(db, ops):
    made = order(db, create_product(db))
    assert pay(db, made, "failed", amount="1.00") == "amount_mismatch"
    assert refunds(ops) == []


def test_a_payment_of_an_order_the_buyer_had_cancelled(db, ops):
    made = order(db, create_product(db))
    pay(db, made, "cancelled")
    pay(db, made, key="late")
    assert refunds(ops) == [("late", made, Decimal("99.00"), "USD", "order_cancelled")]


def test_a_payment_after_the_units_were_sold_again(db, ops):
    product = create_product(db, stock=1)
    made = order(db, product)
    pay(db, made, "failed")
    place_hold(db, product)
    pay(db, made, key="late")
    assert refunds(ops) == [("late", made, Decimal("99.00"), "USD", "sold_out")]


def test_a_payment_of_an_overdue_order_whose_units_are_gone(db, ops):
    product = create_product(db, stock=1)
    make_short(db)
    made = order(db, product)
    wait_until_lapsed(db)
    db.execute("select flashsale.change_settings('1 hour')")
    place_hold(db, product)
    pay(db, made, key="late")
    assert refunds(ops) == [("late", made, Decimal("99.00"), "USD", "sold_out")]


def test_a_payment_whose_order_never_came(db, ops):
    pay(db, 1_000_000, key="lost", amount="5.00", currency="EUR")
    db.execute(
        "update flashsale_data.payments set received_at = received_at - interval '2 days',"
        " wait_ends_at = wait_ends_at - interval '2 days'"
    )
    expire_due(db)
    assert refunds(ops) == [("lost", 1_000_000, Decimal("5.00"), "EUR", "order_unknown")]


def test_the_reason_stays_when_the_order_is_paid_later(db, ops):
    """Two late payments of a failed order: no units available at the first, enough at the second."""
    product = create_product(db, stock=1)
    made = order(db, product)
    pay(db, made, "failed")
    other = place_hold(db, product)
    pay(db, made, key="too late")
    db.execute("select flashsale.release_hold(%s)", (other,))
    assert pay(db, made, key="in luck") == "applied"
    assert refunds(ops) == [("too late", made, Decimal("99.00"), "USD", "sold_out")]


# payments


def test_payments_are_every_webhook_with_what_it_did(db, ops):
    made = order(db, create_product(db))
    pay(db, made, key="paid", amount="99.00", currency="USD", note="thanks")
    pay(db, made, "failed", key="in vain")
    pay(db, 1_000_000, "cancelled", key="stored")
    rows = ops.execute(
        "select idempotency_key, order_id, status, amount, currency, result, order_status, payload"
        " from flashsale.payments order by received_at"
    ).fetchall()
    payload = {"amount": "99.00", "currency": "USD", "note": "thanks"}
    assert rows == [
        ("paid", made, "success", Decimal("99.00"), "USD", "applied", "paid", payload),
        ("in vain", made, "failed", None, None, "no_change", "paid", {}),
        ("stored", 1_000_000, "cancelled", None, None, "stored", None, {}),
    ]


# settings


def test_settings_is_one_row(db, ops):
    rows = ops.execute(
        "select hold_time, payment_window, inbox_limit, inbox_keep, rejected_limit from flashsale.settings"
    ).fetchall()
    assert rows == [(timedelta(minutes=2), timedelta(minutes=15), 10000, timedelta(hours=24), 1000)]


# refusals


def test_refusals_are_the_contracts_table(db, connect):
    rows = connect("flashsale_app").execute("table flashsale.refusals").fetchall()
    assert rows == [
        ("SA001", "product_not_found", 404, "Product not found"),
        ("SA002", "insufficient_stock", 409, "Insufficient stock"),
        ("SA003", "hold_not_found", 404, "Hold not found"),
        ("SA004", "hold_expired", 410, "Hold expired"),
        ("SA005", "hold_released", 409, "Hold released"),
        ("SA006", "hold_already_used", 409, "Hold already used"),
        ("SA007", "order_not_found", 404, "Order not found"),
        ("SA008", "idempotency_key_reused", 422, "Idempotency key reused"),
        ("SA009", "invalid_request", 422, "Invalid request"),
        ("SA010", "stock_in_use", 409, "Stock in use"),
        ("SA011", "inbox_full", 503, "Too many unmatched webhooks"),
        ("SA012", "sale_not_started", 409, "Sale not started"),
        ("SA013", "sale_ended", 409, "Sale ended"),
        ("SA014", "sale_paused", 409, "Sale paused"),
        ("SA015", "sale_cancelled", 410, "Sale cancelled"),
        ("SA016", "buyer_required", 422, "Buyer required"),
        ("SA017", "limit_reached", 409, "Limit reached"),
        ("SA018", "extension_refused", 409, "Extension refused"),
        ("SA019", "order_settled", 409, "Order settled"),
        ("SA020", "payment_not_found", 404, "Payment not found"),
        ("SA021", "refund_too_large", 409, "Refund too large"),
        ("SA022", "preview_changed", 409, "Preview changed"),
        ("SA029", "wrong_shard", 503, "Wrong shard"),
        ("SA030", "not_primary", 503, "Not the primary"),
    ]


@pytest.mark.parametrize(
    "view", ["stock", "active_holds", "open_orders", "refunds_due", "payments", "settings", "terms"]
)
def test_views_cannot_be_written(db, ops, view):
    for statement in (f"delete from flashsale.{view}", f"insert into flashsale.{view} default values"):
        with pytest.raises(Exception) as raised:
            ops.execute(statement)
        assert raised.value.sqlstate in ("42501", "55000")
