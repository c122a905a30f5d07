"""Readers and callers whose snapshot is older than a change see a state that existed.

Each has its control: with the guard taken out of the SQL, the failure appears.
"""

from collections.abc import Callable
from concurrent.futures import Future

import psycopg
import pytest
from psycopg import IsolationLevel

from tests.support.sql_calls import (
    apply_payment,
    available,
    change_settings,
    create_order,
    create_orders,
    create_product,
    get_hold,
    get_order,
    order_units,
    place_hold,
    refused,
    release_hold,
    release_holds,
    row,
    sqlstates,
    value,
    wait_until_past,
)

pytestmark = pytest.mark.slow


Connection = psycopg.Connection


Meanwhile = Callable[..., Future]


# --- states that never existed ---


def read_in_a_snapshot_after_the_hold_lapsed(db: Connection, reader: Connection, product: int):
    """The hold becomes an order in time, after the reader's snapshot; then its time is up."""
    change_settings(db, hold_time="1 second")
    hold = place_hold(db, product, 10)
    value(reader, "select 1 from flashsale.settings")
    create_order(db, hold.hold_id)
    wait_until_past(db, hold.expires_at)
    told = [
        get_hold(reader, hold.hold_id).status,
        available(reader, product),
        value(reader, "select available_stock from flashsale.stock"),
        value(reader, "select count(*) from flashsale.active_holds"),
    ]
    reader.rollback()
    return told


@pytest.fixture(params=[IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE], ids=lambda p: p.name)
def reader(request, connect):
    conn = connect(autocommit=False)
    conn.isolation_level = request.param
    return conn


def test_a_snapshot_is_judged_by_a_time_that_is_not_newer(db, product, reader):
    assert read_in_a_snapshot_after_the_hold_lapsed(db, reader, product) == ["active", 0, 0, 1]


def test_a_snapshot_is_judged_by_a_time_that_is_not_newer_control(db, product, reader, without):
    without("clock-of-snapshot", "select clock_timestamp();")
    assert read_in_a_snapshot_after_the_hold_lapsed(db, reader, product)[:3] == ["expired", 10, 10]


def test_an_order_paid_in_time_is_not_overdue_in_an_older_snapshot(db, product, reader):
    change_settings(db, payment_window="1 second")
    order = order_units(db, product, 10)
    value(reader, "select 1 from flashsale.settings")
    apply_payment(db, "p", order.order_id)
    wait_until_past(db, order.payment_due_at)
    assert get_order(reader, order.order_id).status == "pending_payment"
    assert value(reader, "select count(*) from flashsale.open_orders") == 1
    reader.rollback()
    assert get_order(db, order.order_id).status == "paid"


LATE_IN_A_STATEMENT = """
    with late as materialized (select pg_sleep_until(%s::timestamptz + '10 ms'))
    select (select s.available_stock from flashsale.stock s
            where s.product_id = %s and late is not null) as stock,
           (select p.available_stock from flashsale.get_product(%s) p where late is not null) as product,
           (select h.status from flashsale.get_hold(%s) h where late is not null) as hold,
           (select count(*) from flashsale.active_holds h where late is not null) as active
    from late
"""


def read_late_in_a_statement(db: Connection, second: Connection, meanwhile: Meanwhile):
    """The hold becomes an order while the statement runs, in time; the statement reads after that time."""
    product = create_product(db, stock=10)
    change_settings(db, hold_time="1 second")
    hold = place_hold(db, product, 10)
    late = meanwhile(row, second, LATE_IN_A_STATEMENT, hold.expires_at, product, product, hold.hold_id)
    sleeping = "select wait_event from pg_stat_activity where pid = %s"
    while value(db, sleeping, second.info.backend_pid) != "PgSleep":
        assert not late.done()
    create_order(db, hold.hold_id)
    return list(late.result())


def test_a_statement_that_runs_for_a_while_reads_states_that_were(db, second, meanwhile):
    assert read_late_in_a_statement(db, second, meanwhile) == [0, 0, "ordered", 0]


def test_a_statement_that_runs_for_a_while_reads_states_that_were_control(db, second, meanwhile, without):
    """A function that is STABLE reads the statement's snapshot."""
    without("stock-at-call", "language plpgsql stable security definer")
    assert read_late_in_a_statement(db, second, meanwhile)[0] == 10


# --- a hold that is placed between two looks of one call ---


def release_a_hold_that_appears_meanwhile(db, connect, first, second, blocked):
    """The call waits for the lock of one hold; the other is committed while it waits."""
    product, other = create_product(db), create_product(db)
    locked = place_hold(db, product)
    create_order(first, locked.hold_id)
    placing = connect(autocommit=False)
    coming = place_hold(placing, other)
    release = blocked(release_holds, second, locked.hold_id, coming.hold_id)
    placing.commit()
    first.rollback()
    return sqlstates(release.result()), get_hold(db, coming.hold_id).status


def test_a_release_is_reported_only_of_a_hold_that_is_released(db, connect, first, second, blocked):
    told = release_a_hold_that_appears_meanwhile(db, connect, first, second, blocked)
    assert told == ([None, "55P03"], "active")


def test_a_release_is_reported_only_of_a_hold_that_is_released_control(
    db, connect, first, second, blocked, without
):
    without("hold-released", "")
    told = release_a_hold_that_appears_meanwhile(db, connect, first, second, blocked)
    assert told == ([None, None], "active")


def test_an_order_for_a_hold_that_appears_meanwhile_is_to_be_repeated(db, connect, first, second, blocked):
    product, other = create_product(db), create_product(db)
    locked = place_hold(db, product)
    release_hold(first, locked.hold_id)
    placing = connect(autocommit=False)
    coming = place_hold(placing, other)
    orders = blocked(create_orders, second, (locked.hold_id,), (coming.hold_id,))
    placing.commit()
    first.rollback()
    assert sqlstates(orders.result()) == [None, "55P03"]


def test_a_refusal_without_a_detail_of_its_own_has_a_general_one(db):
    with refused("55P03") as told:
        db.execute("select flashsale_data.raise_refusal('55P03', null)")
    assert told.value.diag.message_primary == "Resource locked"
