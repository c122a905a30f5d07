"""adjust_stock(): adds or removes units, but leaves at least those that are held, awaiting or paid."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.support.sale_steps import (
    audit,
    available,
    create_product,
    make_short,
    one,
    order,
    pay,
    place_hold,
    refused,
    wait_until_lapsed,
)
from tests.support.waiting import wait_until_blocked

LEDGER = "select kind, available_delta from flashsale_data.events where product_id = %s order by event_id"


def adjust(conn, product, delta):
    return conn.execute("select * from flashsale.adjust_stock(%s, %s)", (product, delta)).fetchone()


def test_units_are_added(db):
    product = create_product(db, stock=5)
    place_hold(db, product, 2)
    assert adjust(db, product, 10) == (product, 15, 13)
    assert available(db, product) == 13
    assert audit(db) == []


def test_units_are_removed(db):
    product = create_product(db, stock=5)
    assert adjust(db, product, -2) == (product, 3, 3)
    assert available(db, product) == 3
    assert audit(db) == []


def test_each_adjustment_is_in_the_ledger(db):
    product = create_product(db, stock=5)
    adjust(db, product, 3)
    adjust(db, product, -1)
    assert db.execute(LEDGER, (product,)).fetchall() == [
        ("product_created", 5),
        ("stock_adjusted", 3),
        ("stock_adjusted", -1),
    ]


@pytest.mark.parametrize("state", ["held", "awaiting payment", "paid"])
def test_units_in_use_cannot_be_removed(db, state):
    product = create_product(db, stock=5)
    if state == "held":
        place_hold(db, product, 2)
    else:
        taken = order(db, product, 2)
        if state == "paid":
            pay(db, taken)
    with refused("SA010"):
        adjust(db, product, -4)
    assert available(db, product) == 3
    assert adjust(db, product, -3) == (product, 2, 0)
    assert audit(db) == []


def test_a_refusal_leaves_no_trace(db):
    product = create_product(db, stock=5)
    with refused("SA010"):
        adjust(db, product, -6)
    assert db.execute(LEDGER, (product,)).fetchall() == [("product_created", 5)]


def test_lapsed_units_can_be_removed_before_a_sweep(db):
    product = create_product(db, stock=5)
    make_short(db)
    place_hold(db, product, 5)
    wait_until_lapsed(db)
    assert adjust(db, product, -5) == (product, 0, 0)
    assert audit(db) == []


@pytest.mark.parametrize(
    ("delta", "sqlstate"), [(0, "SA009"), (None, "SA009"), (2**31 - 1, "SA009"), (-(2**31), "SA010")]
)
def test_invalid_deltas_are_refused(db, delta, sqlstate):
    product = create_product(db, stock=5)
    with refused(sqlstate):
        adjust(db, product, delta)
    assert available(db, product) == 5


@pytest.mark.parametrize(
    ("product", "sqlstate"), [(None, "SA009"), (7, "SA001"), (-1, "SA001"), (2**63 - 1, "SA001")]
)
def test_a_product_that_does_not_exist_is_refused(db, product, sqlstate):
    with refused(sqlstate):
        adjust(db, product, 1)


def test_adjust_stock_waits_for_an_open_hold_and_counts_it(db, connect):
    product = create_product(db, stock=5)
    seller, operator = connect(autocommit=False), connect()
    place_hold(seller, product, 3)
    with ThreadPoolExecutor(1) as pool:
        adjusted = pool.submit(adjust, operator, product, -3)
        wait_until_blocked(operator, watcher=db)
        seller.commit()
        with refused("SA010"):
            adjusted.result()
    assert available(db, product) == 2


def test_a_snapshot_older_than_a_sale_gets_a_serialization_failure(db, connect):
    product = create_product(db, stock=5)
    operator = connect(autocommit=False)
    operator.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    assert available(operator, product) == 5
    place_hold(db, product, 3)
    with refused("40001"):
        adjust(operator, product, -3)


def test_new_stock_is_on_sale_at_once(db):
    product = create_product(db, stock=1)
    place_hold(db, product)
    with refused("SA002"):
        place_hold(db, product)
    adjust(db, product, 1)
    place_hold(db, product)
    assert one(db, "select available_stock from flashsale.stock") == 0
