"""A backup, or a forgotten psql, keeps every dead row alive. No look-up may walk past them."""

from collections.abc import Callable

import psycopg
import pytest

from tests.support.sql_calls import change_settings, create_product, expire_due, value

pytestmark = pytest.mark.slow

ROUNDS = 200
MOST = 20
"""index entries or rows that a look-up reads, on average"""


def test_no_look_up_walks_past_what_an_old_snapshot_keeps(
    db: psycopg.Connection, first: psycopg.Connection, connect: Callable[..., psycopg.Connection]
) -> None:
    """Plans included that are made when autovacuum has just told how few rows there are."""
    products = [create_product(db, 10_000) for _ in range(4)]
    change_settings(db, hold_time="300 ms", payment_window="300 ms")
    first.execute("set transaction isolation level repeatable read")
    first.execute("select count(*) from flashsale_data.stock")

    seller = connect()
    for turn in range(ROUNDS):
        sell(seller, products, turn)
        expire_due(db)
    db.execute("analyze")  # as autovacuum does while a sale goes on
    entries_read(db)  # what it has done so far is to count as before
    before = entries_read(seller)
    for turn in range(ROUNDS, ROUNDS + 20):
        sell(seller, products, turn)
    after = entries_read(seller)
    first.rollback()

    walked = {}
    for index, (scans, read) in after.items():
        scans, read = scans - before[index][0], read - before[index][1]
        if read > MOST * scans:
            walked[index] = read / scans
    assert not walked, "entries or rows read by each look-up"


def sell(conn: psycopg.Connection, products: list[int], turn: int) -> None:
    """Everything that a sale does, in one call each: a webhook before its order, holds, orders, a release."""
    numbers = [0, 1, 2, 3]
    order = value(conn, "select last_value from flashsale_data.order_ids") + 1
    early = "select count(*) from flashsale.apply_payments(%s, %s, %s, %s, %s)"
    conn.execute(early, ([0], [f"early {turn}"], [order], ["failed"], ["{}"]))
    placed = conn.execute(
        "select hold_id from flashsale.place_holds(%s::int[], %s::bigint[], %s::int[], %s::text[])",
        (numbers, products, [1] * 4, [f"hold {turn}-{n}" for n in numbers]),
    )
    holds = [hold for (hold,) in placed]
    conn.execute("select * from flashsale.get_products(%s, %s)", (numbers, products))
    created = conn.execute(
        "select order_id from flashsale.create_orders(%s::int[], %s::bigint[], %s::text[])",
        (numbers[:3], holds[:3], [f"order {turn}-{n}" for n in numbers[:3]]),
    )
    orders = [order for (order,) in created]
    pay = "select order_id from flashsale.apply_payments(%s, %s, %s, %s, %s)"
    conn.execute(
        pay, ([0, 1], [f"pay {turn}-{n}" for n in (0, 1)], orders[1:3], ["success", "cancelled"], ["{}"] * 2)
    )
    conn.execute("select hold_id from flashsale.release_holds(%s, %s)", ([0], [holds[3]]))


def entries_read(conn: psycopg.Connection) -> dict[str, tuple[int, int]]:
    """Scans of each index, and entries that they have read; scans of each table, and rows."""
    conn.execute("select pg_stat_force_next_flush()")
    return {
        index: (scans, read)
        for index, scans, read in conn.execute(
            "select indexrelname, idx_scan, idx_tup_read from pg_stat_user_indexes"
            " where schemaname = 'flashsale_data'"
            " union all"
            " select relname, seq_scan, seq_tup_read from pg_stat_user_tables"
            " where schemaname = 'flashsale_data'"
        )
    }
