"""count_events(): events of the last 10 seconds; and the view sale, which uses it."""

from decimal import Decimal

import pytest

from tests.support.sale_steps import create_product, one, order, pay, place_hold, place_many


def counted(db):
    return {
        (product, kind): events
        for product, kind, events in db.execute("select * from flashsale.count_events()")
    }


def test_without_events_there_is_no_row(db):
    assert counted(db) == {}


def test_each_products_events_are_counted_by_kind(db):
    one_product, other = create_product(db), create_product(db)
    place_hold(db, one_product)
    pay(db, order(db, other))
    assert counted(db) == {
        (one_product, "product_created"): 1,
        (one_product, "hold_placed"): 1,
        (other, "product_created"): 1,
        (other, "hold_placed"): 1,
        (other, "order_created"): 1,
        (other, "order_paid"): 1,
    }


@pytest.mark.parametrize("count", [1, 998, 999, 1000, 1001, 2500])
def test_any_number_of_events_is_counted(db, count):
    product = create_product(db, stock=5000)
    for size in [1000] * (count // 1000) + [count % 1000]:
        if size:
            place_many(db, product, size)
    assert counted(db) == {(product, "product_created"): 1, (product, "hold_placed"): count}


def test_events_older_than_10_seconds_are_not_counted(db):
    product = create_product(db, stock=5000)
    place_many(db, product, 1000)
    place_many(db, product, 1000)
    db.execute("update flashsale_data.events set at = at - interval '10 seconds' where event_id <= 1501")
    assert counted(db) == {(product, "hold_placed"): 500}
    db.execute("update flashsale_data.events set at = at - interval '10 seconds'")
    assert counted(db) == {}


def test_purged_events_and_gaps_in_the_ids_are_allowed(db):
    product = create_product(db, stock=5000)
    db.execute("select setval('flashsale_data.event_ids', 50000)")
    place_many(db, product, 10)
    db.execute("delete from flashsale_data.events where event_id < 50003")
    assert counted(db) == {(product, "hold_placed"): 8}


def test_the_cost_depends_on_the_window_not_on_the_ledger(db):
    product = create_product(db)
    db.execute(
        "insert into flashsale_data.events (kind, at, product_id)"
        " select 'hold_placed', now() - interval '1 hour', %s from generate_series(1, 50000)",
        (product,),
    )
    db.execute("analyze flashsale_data.events")
    db.execute("select pg_stat_reset_single_table_counters('flashsale_data.events'::regclass)")
    read = "select pg_stat_get_xact_tuples_returned('flashsale_data.events'::regclass)"
    with db.transaction():
        assert counted(db) == {}
        assert one(db, read) < 5000


def test_the_sale_shows_stock_and_rates(db):
    product, idle = create_product(db, stock=10), create_product(db)
    db.execute("update flashsale_data.events set at = at - interval '1 minute'")
    for _ in range(3):
        place_hold(db, product)
    pay(db, order(db, product))
    columns = "available_stock, held, paid, holds_per_second, orders_per_second, paid_per_second"
    rows = db.execute(f"select {columns} from flashsale.sale order by product_id").fetchall()
    assert rows == [(6, 3, 1, Decimal("0.4"), Decimal("0.1"), Decimal("0.1")), (10, 0, 0, 0, 0, 0)]
    assert idle == 2
