"""forget_tests() beside transactions that sell, sweep and purge; it waits for no order and no hold."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg import IsolationLevel

from tests.operators.forgetting import forget, forgotten, wait_for_lapses
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
from tests.support.sql_calls import LOCKED, outcome, rows
from tests.support.waiting import wait_until, wait_until_blocked

pytestmark = [pytest.mark.usefixtures("books_balance")]


@pytest.fixture
def a_test(db):
    return create_product(db, stock=50, name="Test", is_test=True)


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
