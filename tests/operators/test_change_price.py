"""change_price(): which holds have which price, and what their orders cost."""

import json
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import psycopg
import pytest

from tests.support.sale_steps import audit, create_order, create_product, one, pay, place_hold, refused
from tests.support.sql_calls import create_orders, place_holds, sqlstates
from tests.support.waiting import wait_until_blocked


def change_price(conn, product, price):
    query = "select * from flashsale.change_price(%s, %s::numeric)"
    return conn.execute(query, (product, price)).fetchone()


def amount(conn, order_id):
    return str(one(conn, "select amount from flashsale_data.orders where order_id = %s", order_id))


def price_of(conn, hold):
    query = "select price::text, currency from flashsale_data.holds where hold_id = %s"
    return conn.execute(query, (hold,)).fetchone()


def test_a_product_has_its_new_price_at_once(db):
    product = create_product(db)
    assert change_price(db, product, "89") == (product, Decimal("89.00"), "USD")
    assert str(one(db, "select price from flashsale.get_product(%s)", product)) == "89.00"
    assert str(one(db, "select price from flashsale.stock")) == "89.00"
    assert audit(db) == []


def test_a_hold_keeps_the_price_at_which_it_was_placed(db):
    product = create_product(db)
    before = place_hold(db, product, 2)
    change_price(db, product, "149.50")
    after = place_hold(db, product, 2)
    assert (price_of(db, before), price_of(db, after)) == (("99.00", "USD"), ("149.50", "USD"))
    assert amount(db, create_order(db, before)) == "198.00"
    assert amount(db, create_order(db, after)) == "299.00"
    assert audit(db) == []


def test_an_order_keeps_its_amount(db):
    product = create_product(db)
    made = create_order(db, place_hold(db, product))
    change_price(db, product, "1")
    assert pay(db, made, amount="99.00", currency="USD") == "applied"
    assert audit(db) == []


def test_a_replayed_hold_keeps_its_price(db):
    product = create_product(db)
    hold = place_hold(db, product, key="cart")
    change_price(db, product, "1")
    assert place_hold(db, product, key="cart") == hold
    assert amount(db, create_order(db, hold)) == "99.00"


def test_each_hold_of_a_batch_has_the_price_of_its_product(db):
    first = create_product(db, price="10.00")
    second = create_product(db, price="700", currency="JPY")
    sold_out = create_product(db, stock=0)
    placed = place_holds(db, (second, 1), (sold_out, 1), (first, 3), (second, 2))
    assert sqlstates(placed) == [None, "SA002", None, None]
    made = create_orders(db, *((placed[i].hold_id,) for i in (3, 0, 2)))
    assert [(str(order.amount), order.currency) for order in made] == [
        ("1400", "JPY"), ("700", "JPY"), ("30.00", "USD"),
    ]  # fmt: skip
    assert audit(db) == []


def test_a_change_is_in_the_ledger_with_both_prices(db):
    product = create_product(db)
    change_price(db, product, "89")
    change_price(db, product, "89.00")
    ledger = (
        "select kind, available_delta, data from flashsale_data.events where product_id = %s"
        " order by event_id"
    )
    assert db.execute(ledger, (product,)).fetchall() == [
        ("product_created", 10, None),
        ("price_changed", 0, {"price": "89.00", "old_price": "99.00", "currency": "USD"}),
    ]


@pytest.mark.parametrize("price", [None, "-0.01", "1000000000000", "NaN", "Infinity", "0.001"])
def test_what_is_no_price_is_refused(db, price):
    product = create_product(db)
    with refused("SA009"):
        change_price(db, product, price)
    assert str(one(db, "select price from flashsale.get_product(%s)", product)) == "99.00"


@pytest.mark.parametrize(("product", "sqlstate"), [(None, "SA009"), (7, "SA001"), (2**63 - 1, "SA001")])
def test_a_product_that_does_not_exist_is_refused(db, product, sqlstate):
    with refused(sqlstate):
        change_price(db, product, "1")


def test_a_price_has_the_decimals_of_its_currency(db):
    product = create_product(db, price="700", currency="JPY")
    assert str(change_price(db, product, "800.000")[1]) == "800"
    with refused("SA009"):
        change_price(db, product, "0.5")


def test_a_hold_that_waits_for_a_change_has_the_new_price(db, connect):
    product = create_product(db)
    operator, buyer = connect(autocommit=False), connect()
    change_price(operator, product, "89")
    with ThreadPoolExecutor(1) as pool:
        placed = pool.submit(place_hold, buyer, product)
        wait_until_blocked(buyer, watcher=db)
        operator.commit()
        hold = placed.result()
    assert price_of(db, hold) == ("89.00", "USD")
    assert amount(db, create_order(db, hold)) == "89.00"


def test_a_change_waits_for_a_hold_and_a_later_change_for_both(db, connect):
    product = create_product(db)
    buyer, first, second = connect(autocommit=False), connect(autocommit=False), connect()
    hold = place_hold(buyer, product)
    with ThreadPoolExecutor(2) as pool:
        change = pool.submit(change_price, first, product, "89")
        wait_until_blocked(first, watcher=db)
        buyer.commit()
        change.result()
        # The price that was read before the lock is still 99.00.
        back = pool.submit(change_price, second, product, "99")
        wait_until_blocked(second, watcher=db)
        first.commit()
        back.result()
    assert price_of(db, hold) == ("99.00", "USD")
    assert str(one(db, "select price from flashsale.get_product(%s)", product)) == "99.00"
    changes = (
        "select data ->> 'price' from flashsale_data.events where kind = 'price_changed' order by event_id"
    )
    assert db.execute(changes).fetchall() == [("89.00",), ("99.00",)]
    assert audit(db) == []


def test_a_snapshot_older_than_a_change_gets_a_serialization_failure(db, connect):
    product = create_product(db)
    conn = connect(autocommit=False)
    conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    for call in (place_hold, lambda conn, product: change_price(conn, product, "79")):
        assert str(one(conn, "select price from flashsale.get_product(%s)", product)) in ("99.00", "89.00")
        change_price(db, product, "89" if call is place_hold else "69")
        with refused("40001"):
            call(conn, product)
        conn.rollback()


def test_a_snapshot_taken_before_a_change_that_is_waited_for_gets_a_serialization_failure(db, connect):
    """The lock alone has changed nothing, and so would not tell the caller that the price is another."""
    product = create_product(db)
    operator, buyer = connect(autocommit=False), connect()
    operator.execute("select from flashsale_data.stock where product_id = %s for no key update", (product,))
    buyer.execute("set default_transaction_isolation = 'repeatable read'")
    with ThreadPoolExecutor(1) as pool:
        placed = pool.submit(place_hold, buyer, product)
        wait_until_blocked(buyer, watcher=db)
        change_price(operator, product, "89")
        operator.commit()
        with refused("40001"):
            placed.result()


def test_readers_of_the_ledger_get_the_change_as_json(db):
    product = create_product(db)
    change_price(db, product, "89")
    data = one(db, "select data::text from flashsale.read_events(0, 100) where kind = 'price_changed'")
    assert json.loads(data)["price"] == "89.00"
