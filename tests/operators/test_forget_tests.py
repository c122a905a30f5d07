"""forget_tests(): removes test products with all that was sold of them; the books of the others stay."""

import pytest

from tests.operators.forgetting import forget, forgotten, wait_for_lapses
from tests.support.sale_steps import (
    create_order,
    create_product,
    expire_due,
    make_short,
    one,
    order,
    pay,
    place_hold,
    refused,
)
from tests.support.sql_calls import get_product, next_order_id, rows, sell_in_every_way
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.usefixtures("books_balance")]

TABLES = (
    *("products", "stock", "lapses", "holds", "orders", "payments", "inbox", "events", "ledger_carried"),
    *("operations", "settings", "claims", "refunds"),
)


def tables(db):
    """All rows of all tables."""
    return {
        name: sorted(rows(db, f"select t::text from flashsale_data.{name} t"))
        for name in TABLES
    }  # fmt: skip


def mark_as_test(db, product):
    """For steps that create a product themselves."""
    db.execute("update flashsale_data.products set is_test = true where product_id = %s", (product,))
    return product


def sell(db, product):
    """A product with holds and orders in every state, payments that are refunds, and one that came early."""
    make_short(db)
    place_hold(db, product, 1, f"lapsed {product}")
    order(db, product)
    wait_for_lapses(db, product)
    wait_until(lambda: expire_due(db) == 0, "both are swept")
    place_hold(db, product)
    wait_for_lapses(db, product)
    db.execute("select flashsale.change_settings('2 minutes', '15 minutes')")
    place_hold(db, product, 2)
    order(db, product)
    paid, failed = order(db, product), order(db, product)
    pay(db, paid)
    pay(db, paid)
    pay(db, failed, "failed")
    pay(db, order(db, product), amount="1.00")
    hold, coming = place_hold(db, product), next_order_id(db)
    pay(db, coming)
    assert create_order(db, hold) == coming
    db.execute("select flashsale.adjust_stock(%s, 5, %s)", (product, f"restock {product}"))


@pytest.fixture
def real(db):
    """A real product that is sold in every way."""
    product = create_product(db, stock=50)
    sell(db, product)
    return product


@pytest.fixture
def a_test(db):
    return create_product(db, stock=50, name="Test", is_test=True)


def test_nothing_of_a_test_is_left_and_nothing_else_has_changed(db, real):
    pay(db, 1_000_000, key="stored")
    expire_due(db)
    before = tables(db)
    test = create_product(db, stock=50, name="Test", is_test=True)
    sell(db, test)
    counted = [
        one(db, f"select count(*) from flashsale_data.{table} where product_id = %s", test)
        for table in ("holds", "orders")
    ]
    (found,) = forget(db)
    assert tables(db) == before
    assert (found.product_id, found.forgotten) == (test, True)
    assert [found.holds, found.orders] == counted
    assert (found.payments, found.events > 20) == (5, True)


def test_without_tests_nothing_is_removed(db, real):
    before = tables(db)
    assert forget(db) == []
    assert tables(db) == before


def test_every_test_is_forgotten_or_those_that_are_named(db, real):
    first, second, third = (create_product(db, is_test=True) for _ in range(3))
    for product in (first, second, third):
        sell(db, product)
    assert forgotten(db, second) == {second: True}
    assert one(db, "select count(*) from flashsale.list_stock(true)") == 3
    assert forgotten(db) == {first: True, third: True}
    assert one(db, "select count(*) from flashsale.list_stock(true)") == 1
    assert get_product(db, real).total_stock == 55


def test_a_repetition_has_nothing_to_do(db, a_test):
    assert forgotten(db, a_test) == {a_test: True}
    assert forget(db, a_test) == []


def test_refunds_go_with_their_product(db, real):
    product = mark_as_test(db, create_product(db))
    number = order(db, product)
    pay(db, number, key="test pays")
    pay(db, number, key="test pays again")
    db.execute("select flashsale.record_refund('re_test', 'test pays again', 40, 'done')")
    before = tables(db)["refunds"]
    assert forgotten(db, product) == {product: True}
    assert len(tables(db)["refunds"]) == len(before) - 1


def test_a_real_product_is_refused(db, real, a_test):
    before = tables(db)
    with refused("SA009") as raised:
        forget(db, a_test, real)
    assert raised.value.diag.message_detail == f"Product {real} is not a test product."
    assert tables(db) == before


def test_an_id_that_is_null_is_refused(db):
    with refused("SA009"):
        db.execute("select flashsale.forget_tests(array[null::bigint])")


def test_a_purge_before_changes_nothing(db, a_test):
    sell(db, a_test)
    db.execute("select flashsale.purge('0')")
    assert one(db, "select count(*) from flashsale_data.ledger_carried") == 1
    assert forgotten(db) == {a_test: True}
    assert one(db, "select count(*) from flashsale_data.ledger_carried") == 0


def test_keys_are_free_again(db, a_test):
    hold = place_hold(db, a_test, 1, "cart")
    pay(db, create_order(db, hold), key="pay")
    forget(db)
    product = create_product(db)
    again = place_hold(db, product, 1, "cart")
    assert again != hold
    assert pay(db, create_order(db, again), key="pay") == "applied"


def test_a_reader_goes_on(db, real, a_test):
    def read(after):
        return [found.event_id for found in rows(db, "select * from flashsale.read_events(%s, 1000)", after)]

    expire_due(db)
    last = read(0)[-1]
    sell(db, a_test)
    assert read(last) == []
    forget(db)
    assert read(last) == []
    place_hold(db, real)
    assert len(read(last)) == 1


def test_a_webhook_for_a_forgotten_order_is_one_for_an_unknown_order(db, a_test):
    paid = order(db, a_test)
    pay(db, paid, key="first")
    forget(db)
    assert pay(db, paid, key="first") == "stored"
    assert pay(db, paid, "failed", key="second") == "stored"
    db.execute("update flashsale_data.payments set wait_ends_at = clock_timestamp() - interval '1 minute'")
    assert expire_due(db) == 2
    refunds = rows(db, "select idempotency_key, reason from flashsale.refunds_due")
    assert refunds == [("first", "order_unknown")]


def test_a_stored_webhook_that_missed_its_order_leaves_the_inbox(db, connect, a_test):
    """Its wait had ended and a sweep had locked it when its order was created; the sweep was rolled back."""
    sweeper = connect(autocommit=False)
    coming = order(db, a_test) + 1
    db.execute("select flashsale.change_settings(p_inbox_keep => '1 second')")
    assert pay(db, coming, "failed", key="stored") == "stored"
    waited = "select wait_ends_at <= clock_timestamp() from flashsale_data.payments"
    wait_until(lambda: one(db, waited), "the webhook has waited too long")
    expire_due(sweeper)
    assert order(db, a_test) == coming
    db.execute("set lock_timeout = '1ms'")
    assert forgotten(db) == {a_test: False}
    sweeper.rollback()
    assert one(db, "select stored from flashsale_data.inbox") == 1
    assert forgotten(db) == {a_test: True}
    assert one(db, "select stored from flashsale_data.inbox") == 0


def test_a_product_sold_in_every_way_is_forgotten(db):
    mark_as_test(db, sell_in_every_way(db))
    before = one(db, "select count(*) from flashsale_data.holds")
    (found,) = forget(db)
    assert (found.holds, found.forgotten) == (before, True)
