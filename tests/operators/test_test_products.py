"""Test products: sold as any other, and part of neither lists, figures, views nor the events of readers."""

import pytest

from tests.support.sale_steps import (
    audit,
    create_order,
    create_product,
    one,
    order,
    pay,
    place_hold,
    refused,
)
from tests.support.sql_calls import get_product, next_order_id, row, rows

pytestmark = pytest.mark.usefixtures("books_balance")


def sell(db, product):
    """A hold, an order, a paid order, and a refund due for it."""
    held, awaiting, paid = place_hold(db, product), order(db, product), order(db, product)
    pay(db, paid)
    assert pay(db, paid) == "refund_due"
    return held, awaiting, paid


@pytest.fixture
def real(db):
    return create_product(db, name="Real")


@pytest.fixture
def a_test(db):
    return create_product(db, name="Test", is_test=True)


@pytest.fixture
def sold(db, real, a_test):
    """Both are sold in the same way, the test product's orders first."""
    orders = {product: sell(db, product) for product in (a_test, real)}
    # In the future, so that the events count as recent on a slow machine, too.
    db.execute("update flashsale_data.events set at = at + interval '1 hour'")
    return orders


def read(db, *, tests=False, after=0, limit=1000):
    query = "select * from flashsale.read_events(%s, %s, p_tests => %s)"
    return rows(db, query, after, limit, tests)


def test_a_test_product_is_sold_by_its_id(db, a_test):
    held, awaiting, _ = sell(db, a_test)
    assert get_product(db, a_test).available_stock == 7
    assert one(db, "select status from flashsale.get_hold(%s)", held) == "active"
    assert one(db, "select held from flashsale.get_stock(array[%s::bigint])", a_test) == 1
    with refused("SA002"):
        place_hold(db, a_test, 8)
    assert pay(db, awaiting, "failed") == "applied"


def test_it_is_not_listed(db, real, a_test):
    later = create_product(db)
    assert [row.id for row in rows(db, "select * from flashsale.list_products()")] == [real, later]
    page = "select id from flashsale.list_products(p_limit => 1, p_after => %s)"
    assert rows(db, page, real) == [(later,)], "a page is full if there is a product for it"


@pytest.mark.parametrize("view", ["stock", "sale", "active_holds", "open_orders"])
def test_views_of_the_sale_leave_it_out(db, real, sold, view):
    assert {row.product_id for row in rows(db, f"table flashsale.{view}")} == {real}


@pytest.mark.parametrize(
    "function", ["list_stock", "list_sale", "list_active_holds", "list_open_orders", "count_events"]
)
def test_the_functions_below_the_views_show_it_on_request(db, real, a_test, sold, function):
    of_real = {row.product_id for row in rows(db, f"select * from flashsale.{function}()")}
    of_all = {row.product_id for row in rows(db, f"select * from flashsale.{function}(p_tests => true)")}
    assert (of_real, of_all) == ({real}, {real, a_test})


def test_its_payments_are_not_refunded_but_found_apart(db, real, a_test, sold):
    (_, _, paid), (_, _, of_test) = sold[real], sold[a_test]
    assert [row.order_id for row in rows(db, "table flashsale.refunds_due")] == [paid]
    assert {row.order_id for row in rows(db, "table flashsale.payments")} == {paid}
    refunds = rows(db, "select order_id from flashsale.list_refunds_due(p_tests => true) order by 1")
    assert refunds == [(of_test,), (paid,)]
    found = rows(db, "select order_id, product_id, result from flashsale.test_payments order by received_at")
    assert found == [(of_test, a_test, "applied"), (of_test, a_test, "refund_due")]


def test_its_refunds_are_begun_only_by_name(db, real, a_test, sold):
    (_, _, paid), (_, _, of_test) = sold[real], sold[a_test]
    assert rows(db, "select order_id from flashsale.begin_refunds()") == [(paid,)]
    assert rows(db, "select order_id from flashsale.begin_refunds()") == []
    key = one(db, "select idempotency_key from flashsale.test_payments where result = 'refund_due'")
    begun = rows(db, "select order_id from flashsale.begin_refunds(p_payment_keys => array[%s])", key)
    assert begun == [(of_test,)]


def test_a_refund_of_an_unknown_order_stays_listed(db, a_test):
    db.execute("select flashsale.change_settings(p_inbox_keep => '1 second')")
    pay(db, 1_000_000, key="unknown")
    db.execute("update flashsale_data.payments set wait_ends_at = clock_timestamp() - interval '1 minute'")
    assert one(db, "select reason from flashsale.refunds_due") == "order_unknown"
    assert one(db, "select result from flashsale.payments") == "stored"


def test_metrics_leave_it_out(db, real, sold):
    metrics = rows(db, "select * from flashsale.get_sale_metrics()")
    assert {row.product_id for row in metrics} == {real, None}
    assert [row.value for row in metrics if row.metric == "refunds_due"] == [1]


def test_its_events_say_so_and_are_left_out(db, real, a_test, sold):
    everything, of_real = read(db, tests=True), read(db)
    assert [event for event in everything if not event.is_test] == of_real
    assert {event.product_id for event in of_real} == {real}
    assert {event.product_id for event in everything if event.is_test} == {a_test}
    assert len(everything) == 2 * len(of_real)


def test_pages_are_full_and_end_where_nothing_is_left(db, real, a_test):
    """A reader that follows its last event_id is not held up by test events, however many there are."""
    for product in (real, *[a_test] * 20, real, *[a_test] * 20, real):
        hold = place_hold(db, product)
        if product == a_test:
            db.execute("select flashsale.release_hold(%s)", (hold,))
    seen = []
    while page := read(db, after=seen[-1] if seen else 0, limit=1):
        (event,) = page
        seen.append(event.event_id)
    assert seen == [event.event_id for event in read(db)]
    assert len(seen) == 4
    place_hold(db, a_test)
    assert read(db, after=seen[-1]) == []
    place_hold(db, real)
    assert len(read(db, after=seen[-1])) == 1


def test_a_late_commit_is_not_skipped_beside_test_events(db, connect, real, a_test):
    late = connect(autocommit=False)
    place_hold(late, real)
    last = read(db)[-1].event_id
    place_hold(db, a_test)
    assert read(db, after=last) == []
    late.commit()
    place_hold(db, a_test)
    assert [event.product_id for event in read(db, after=last)] == [real]


def test_a_webhook_before_the_order_of_a_test_is_one_of_its_events(db, real, a_test):
    for product in (real, a_test):
        hold, coming = place_hold(db, product), next_order_id(db)
        assert pay(db, coming) == "stored"
        assert create_order(db, hold) == coming
    early = [event for event in read(db, tests=True) if event.kind == "payment_stored"]
    assert [event.is_test for event in early] == [False, True]
    assert [event for event in read(db) if event.kind == "payment_stored"] == early[:1]


def test_an_argument_that_is_null_is_refused(db):
    with refused("SA009"):
        db.execute("select flashsale.create_product('Shoe', 1, 1, p_is_test => null)")
    with refused("SA009"):
        db.execute("select flashsale.read_events(0, 1, p_tests => null)")


def test_a_key_of_a_real_product_does_not_create_a_test_product(db):
    query = "select flashsale.create_product('Shoe', 1, 1, 'USD', 'key', p_is_test => %s)"
    test = one(db, query, True)
    assert one(db, query, True) == test
    with refused("SA008"):
        one(db, query, False)


def test_the_key_of_a_product_from_before_tests_still_replays(db):
    query = "select flashsale.create_product('Shoe', 1, 1, 'USD', 'key')"
    made = one(db, query)
    arguments = one(db, "select arguments from flashsale_data.operations")
    assert arguments == {"name": "Shoe", "stock": 1, "price": 1, "currency": "USD"}
    assert one(db, query) == made
    assert audit(db) == []
    assert row(db, "select is_test from flashsale_data.products") == (False,)
