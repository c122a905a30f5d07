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


# --- idempotency keys ---


def keyed(conn, product, delta, key):
    return conn.execute("select * from flashsale.adjust_stock(%s, %s, %s)", (product, delta, key)).fetchone()


def test_a_repeated_key_adds_nothing_and_gets_the_same_answer(db):
    product = create_product(db, stock=5)
    assert keyed(db, product, 10, "delivery") == (product, 15, 15)
    place_hold(db, product, 4)
    assert keyed(db, product, 10, "delivery") == (product, 15, 15)
    assert keyed(db, product, 10, "another delivery") == (product, 25, 21)
    assert available(db, product) == 21
    assert audit(db) == []


def test_without_a_key_a_repetition_adds_up(db):
    product = create_product(db, stock=5)
    keyed(db, product, 10, None)
    assert keyed(db, product, 10, None) == (product, 25, 25)


@pytest.mark.parametrize(("other", "delta"), [(False, 9), (True, 10), (False, None), (False, 0)])
def test_the_same_key_with_other_arguments_is_refused(db, other, delta):
    product, another = create_product(db, stock=5), create_product(db, stock=5)
    keyed(db, product, 10, "delivery")
    with refused("SA008"):
        keyed(db, another if other else product, delta, "delivery")
    assert (available(db, product), available(db, another)) == (15, 5)


def test_a_refused_call_leaves_its_key_unused(db):
    product = create_product(db, stock=5)
    with refused("SA010"):
        keyed(db, product, -6, "write-off")
    assert keyed(db, product, -5, "write-off") == (product, 0, 0)


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_has_1_to_255_characters(db, key):
    with refused("SA009"):
        keyed(db, create_product(db), 1, key)


def test_two_calls_with_one_key_at_once_add_once(db, connect):
    product = create_product(db, stock=5)
    first, second = connect(autocommit=False), connect()
    keyed(first, product, 10, "delivery")
    with ThreadPoolExecutor(1) as pool:
        repeated = pool.submit(keyed, second, product, 10, "delivery")
        wait_until_blocked(second, watcher=db)
        first.commit()
        assert repeated.result() == (product, 15, 15)
    assert available(db, product) == 15


def test_a_key_used_for_another_product_since_the_snapshot_gets_a_serialization_failure(db, connect):
    product, other = create_product(db, stock=5), create_product(db, stock=5)
    operator = connect(autocommit=False)
    operator.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    assert available(operator, product) == 5
    keyed(db, other, 1, "delivery")
    with refused("40001"):
        keyed(operator, product, 1, "delivery")


def test_a_key_is_waited_for_before_the_product(db, connect):
    product, other = create_product(db, stock=5), create_product(db, stock=5)
    first, second = connect(autocommit=False), connect()
    keyed(first, other, 1, "delivery")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(keyed, second, product, 1, "delivery")
        wait_until_blocked(second, watcher=db)
        place_hold(db, product)  # which its product does not have to wait for
        first.commit()
        with refused("SA008"):
            waiting.result()


def test_a_purge_frees_the_key(db):
    product = create_product(db, stock=5)
    keyed(db, product, 10, "delivery")
    removed = dict(db.execute("select removed, rows from flashsale.purge('0')").fetchall())
    assert removed["operations"] == 1
    assert keyed(db, product, 10, "delivery") == (product, 25, 25)


def test_a_purge_keeps_younger_keys(db):
    product = create_product(db, stock=5)
    keyed(db, product, 10, "delivery")
    db.execute("select * from flashsale.purge('1 hour')")
    assert keyed(db, product, 10, "delivery") == (product, 15, 15)
