"""forget_tests(): removes test products with all that was sold of them; the books of the others stay."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg import IsolationLevel

from tests.support import ROOT
from tests.support.guards import replaced
from tests.support.sale_steps import (
    audit,
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
from tests.support.sql_calls import LOCKED, get_product, next_order_id, outcome, rows, sell_in_every_way
from tests.support.waiting import wait_until, wait_until_blocked

pytestmark = [pytest.mark.usefixtures("books_balance")]

TABLES = (
    *("products", "stock", "lapses", "holds", "orders", "payments", "inbox", "events", "ledger_carried"),
    *("operations", "settings", "claims", "refunds"),
)


def forget(conn, *product_ids):
    """The rows of forget_tests() for these products, or for all."""
    return rows(conn, "select * from flashsale.forget_tests(%s::bigint[])", list(product_ids) or None)


def forgotten(conn, *product_ids):
    """Which test products are forgotten."""
    return {found.product_id: found.forgotten for found in forget(conn, *product_ids)}


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


def wait_for_lapses(db, product):
    """Return when the short holds and orders of the product have lapsed."""
    query = (
        "select count(*) from flashsale_data.lapses where product_id = %s"
        " and lapses_at between clock_timestamp() and clock_timestamp() + interval '10 seconds'"
    )
    wait_until(lambda: one(db, query, product) == 0, "they have lapsed")


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


# --- concurrent transactions ---


def test_a_test_in_use_is_taken_off_sale_and_forgotten_later(db, connect):
    """A sweep has locked a hold: without waiting for it, the rest of the stock is withdrawn."""
    test, free = (create_product(db, stock=5, is_test=True) for _ in range(2))
    make_short(db)
    place_hold(db, test, 2)
    wait_for_lapses(db, test)
    db.execute("select flashsale.change_settings('2 minutes', '15 minutes')")
    place_hold(db, test)  # returns the lapsed units
    sweeper = connect(autocommit=False)
    assert expire_due(sweeper) == 1
    db.execute("set lock_timeout = '1ms'")
    assert forgotten(db) == {test: False, free: True}
    stock = rows(db, "select total_stock, available_stock, held from flashsale.list_stock(true)")
    assert stock == [(1, 0, 1)]
    assert audit(db) == []
    with refused("SA002"):
        place_hold(db, test)
    sweeper.commit()
    assert audit(db) == []
    assert forgotten(db) == {test: True}


@pytest.mark.parametrize("status", ["success", "failed"])
def test_a_payment_that_has_locked_its_order_is_not_waited_for(db, connect, a_test, status):
    """It may wait for the product, which forget_tests() has locked."""
    paid = order(db, a_test)
    provider = connect(autocommit=False)
    provider.execute("select from flashsale_data.orders where order_id = %s for no key update", (paid,))
    db.execute("set lock_timeout = '1ms'")
    assert forgotten(db) == {a_test: False}
    assert pay(provider, paid, status) == "applied"
    provider.commit()
    assert forgotten(db) == {a_test: True}


def test_a_call_waits_for_a_product_and_sees_what_was_sold_meanwhile(db, connect, a_test):
    buyer, operator = connect(autocommit=False), connect()
    hold = place_hold(buyer, a_test)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(forgotten, operator, a_test)
        wait_until_blocked(operator, watcher=db)
        pay(buyer, create_order(buyer, hold))
        buyer.commit()
        assert call.result() == {a_test: True}
    assert one(db, "select count(*) from flashsale_data.payments") == 0


def test_of_several_products_a_locked_one_is_left_for_the_next_call(db, connect):
    locked, free = (create_product(db, is_test=True) for _ in range(2))
    buyer = connect(autocommit=False)
    place_hold(buyer, locked)
    db.execute("set lock_timeout = '1ms'")
    assert forgotten(db) == {locked: False, free: True}
    buyer.commit()
    assert forgotten(db) == {locked: True}


AFTERWARDS = {
    "a hold": (lambda conn, s: place_hold(conn, s["product"]), LOCKED, "SA001"),
    "a release": (lambda conn, s: conn.execute("select flashsale.release_hold(%s)", (s["hold"],)),
                  "SA003", "SA003"),
    "an order": (lambda conn, s: create_order(conn, s["hold"]), "SA003", "SA003"),
    "a payment": (lambda conn, s: pay(conn, s["order"], key="pays"), "stored", "stored"),
    "stock": (lambda conn, s: conn.execute("select flashsale.adjust_stock(%s, 1)", (s["product"],)),
              "SA001", "SA001"),
    "a price": (lambda conn, s: conn.execute("select flashsale.change_price(%s, 1)", (s["product"],)),
                "SA001", "SA001"),
    "another call": (lambda conn, s: forget(conn, s["product"]), [], []),
    "a purge": (lambda conn, s: conn.execute("select from flashsale.purge('0') limit 1").fetchall(),
                [()], [()]),
}  # fmt: skip


@pytest.mark.parametrize("request_name", AFTERWARDS)
def test_a_request_that_waits_for_a_test_that_is_forgotten(db, connect, a_test, request_name):
    """It ends as if it had come later, and nothing of the product is written any more."""
    call, waited, repeated = AFTERWARDS[request_name]
    situation = {"product": a_test, "hold": place_hold(db, a_test), "order": order(db, a_test)}
    operator, caller = connect(autocommit=False), connect()
    assert forgotten(operator) == {a_test: True}
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(outcome, call, caller, situation)
        wait_until_blocked(caller, watcher=db)
        operator.commit()
        assert waiting.result() == waited
    assert outcome(call, caller, situation) == repeated
    assert audit(db) == []


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
@pytest.mark.parametrize("request_name", ["a hold", "a release", "an order", "a payment", "stock", "a price"])
def test_a_request_above_read_committed_gets_no_answer_from_before(db, connect, a_test, request_name, level):
    call, *_ = AFTERWARDS[request_name]
    situation = {"product": a_test, "hold": place_hold(db, a_test), "order": order(db, a_test)}
    caller = connect(autocommit=False)
    caller.isolation_level = level
    one(caller, "select count(*) from flashsale.settings")
    assert forgotten(db) == {a_test: True}
    assert outcome(call, caller, situation) == "40001"


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_it_is_refused_above_read_committed(connect, a_test, level):
    operator = connect(autocommit=False)
    operator.isolation_level = level
    with refused("SA009"):
        forget(operator)


def test_a_purge_and_a_call_do_not_meet(db, connect, a_test):
    """They would wait for each other's events."""
    purger, operator = connect(autocommit=False), connect()
    purger.execute("select flashsale.purge('1 day')")  # finds nothing
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(forgotten, operator)
        wait_until_blocked(operator, watcher=db)
        purger.commit()
        assert call.result() == {a_test: True}


def test_tests_are_forgotten_while_they_and_others_are_sold(db, connect):
    """Buyers of two test products and a real one; the calls end when the tests are sold out."""
    real = create_product(db, stock=1000)
    tests = [create_product(db, stock=300, is_test=True) for _ in range(2)]
    over = False

    def buy(product):
        bought = 0
        with connect() as conn:
            while not over:
                try:
                    made = order(conn, product)
                    pay(conn, made)
                    bought += 1
                except psycopg.Error as error:
                    if error.sqlstate in ("SA001", "SA002"):
                        return bought
                    assert error.sqlstate in ("SA003", LOCKED), error
        return bought

    conns = connect(), connect()
    with ThreadPoolExecutor(6) as pool:
        buyers = [pool.submit(buy, product) for product in (*tests, *tests, real)]
        wait_until(
            lambda: one(db, "select count(*) from flashsale.test_payments") > 20, "the tests are being sold"
        )
        left = set(tests)
        while left:
            for conn in conns:
                left -= (
                    {product for product, done in forgotten(conn, *left).items() if done} if left else set()
                )
        over = True
        *_, bought = [buyer.result() for buyer in buyers]
    # A payment whose order was forgotten before it came is stored.
    assert one(db, "select count(*) from flashsale_data.payments where result <> 'stored'") == bought
    assert one(db, "select paid from flashsale.stock where product_id = %s", real) == bought
    events = rows(db, "select * from flashsale.read_events(0, 10000, p_tests => true)")
    assert {event.product_id for event in events} <= {real, None}


def test_control_a_call_that_waits_for_an_order_deadlocks(db, connect, a_test):
    """With the product locked it must not wait for what the product's buyers have locked."""
    paid = order(db, a_test)
    provider, operator = connect(autocommit=False), connect(autocommit=False)
    operator.execute("set local deadlock_timeout = '20ms'")
    for text in replaced(ROOT, "forget-waits-for-no-order", ["for update"]).values():
        operator.execute(text)
    provider.execute("select from flashsale_data.orders where order_id = %s for no key update", (paid,))
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(outcome, forgotten, operator)
        wait_until_blocked(operator, watcher=db)
        assert "40P01" in (outcome(pay, provider, paid), (provider.commit(), call.result())[1])
    operator.rollback()


def test_a_product_sold_in_every_way_is_forgotten(db):
    mark_as_test(db, sell_in_every_way(db))
    before = one(db, "select count(*) from flashsale_data.holds")
    (found,) = forget(db)
    assert (found.holds, found.forgotten) == (before, True)
