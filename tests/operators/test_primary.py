"""Where the ledger is not read and the sale is not served: a standby, a copy, sequences that are behind."""

from collections.abc import Iterator

import psycopg
import pytest

from flashsale.database.migrations import migrate
from flashsale.local.cluster import SUPERUSER
from tests.support.clusters import running_cluster, standby_of
from tests.support.sale_steps import (
    create_product,
    expire_due,
    make_short,
    one,
    order,
    place_hold,
    refused,
    wait_until_lapsed,
)
from tests.support.waiting import wait_until


def problem(db: psycopg.Connection) -> str | None:
    return one(db, "select problem from flashsale.readiness()")


def behind(db: psycopg.Connection) -> list[tuple[str, int, int]]:
    return db.execute("select * from flashsale_data.sequences_behind(true) order by 1").fetchall()


def make_copy(db: psycopg.Connection) -> None:
    """What a subscription that copies the ledger leaves in the catalog."""
    db.execute(
        "create subscription copy connection 'dbname=elsewhere' publication sale"
        " with (connect = false, slot_name = none)"
    )
    db.execute(
        "insert into pg_subscription_rel (srsubid, srrelid, srsubstate)"
        " select oid, 'flashsale_data.events'::regclass, 'r' from pg_subscription where subname = 'copy'"
    )


def test_a_logical_copy_is_not_read(db):
    create_product(db)
    with db.transaction(force_rollback=True):
        make_copy(db)
        assert "Subscription copy copies flashsale_data.events into this database" in problem(db)
        with refused("SA030") as raised:
            db.execute("select * from flashsale.read_events(0, 10)")
        assert raised.value.diag.message_detail == problem_of_copy()
    assert problem(db) is None
    assert len(db.execute("select * from flashsale.read_events(0, 10)").fetchall()) == 1


def problem_of_copy() -> str:
    return (
        "Subscription copy copies flashsale_data.events into this database: connect to the primary, or drop"
        " the subscription after a switch."
    )


def test_a_ledger_ahead_of_its_sequence_is_not_read(db):
    """Rows came without their sequence: a copy by other means than a subscription."""
    create_product(db)
    create_product(db)
    db.execute("select setval('flashsale_data.event_ids', 1)")
    with refused("SA030") as raised:
        db.execute("select * from flashsale.read_events(0, 10)")
    assert raised.value.diag.message_detail.startswith(
        "The ledger ends with event 2, its sequence stands at 1"
    )
    db.execute("select setval('flashsale_data.event_ids', 2)")
    assert len(db.execute("select * from flashsale.read_events(0, 10)").fetchall()) == 2


SEQUENCES = {
    "flashsale_data.arrivals": 1,
    "flashsale_data.event_ids": 4,
    "flashsale_data.order_ids": 1,
    "flashsale_data.products_product_id_seq": 1,
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_sequence_behind_its_rows_is_found(db, name):
    place_hold(db, create_product(db))
    order(db, 1)
    db.execute("select flashsale.apply_payment('p', 4711, 'success')")
    highest = one(db, f"select last_value from {name}")
    assert behind(db) == []
    assert problem(db) is None
    db.execute(f"alter sequence {name} restart")
    assert behind(db) == [(name, 0, highest)]
    if name != "flashsale_data.arrivals":
        assert (problem(db) or "").startswith(
            f"{name} stands at 0, behind {highest}. Ids would be given out again"
        )
    db.execute("select setval(%s, %s)", (name, highest))
    assert behind(db) == []


def test_a_sequence_behind_what_was_purged_is_found(db):
    """All rows are gone, but the provider knows the order, and readers the events."""
    make_short(db)
    order(db, create_product(db))
    wait_until_lapsed(db)
    expire_due(db)
    db.execute("select flashsale.purge('0')")
    assert one(db, "select count(*) from flashsale_data.orders") == 0
    assert one(db, "select count(*) from flashsale_data.events") == 0
    newest = one(db, "select last_value from flashsale_data.event_ids")
    assert behind(db) == []
    for name in ("event_ids", "order_ids"):
        db.execute(f"alter sequence flashsale_data.{name} restart")
    assert behind(db) == [("flashsale_data.event_ids", 0, newest), ("flashsale_data.order_ids", 0, 1)]


def test_a_purge_keeps_the_highest_ids_of_all_purges(db):
    def removed():
        return db.execute("select order_id, event_id from flashsale_data.purge_state").fetchone()

    make_short(db)
    order(db, create_product(db))
    wait_until_lapsed(db)
    expire_due(db)
    db.execute("select flashsale.purge('0')")
    first = removed()
    assert first[0] == 1
    create_product(db)
    db.execute("select flashsale.purge('0')")  # which removes no order
    assert removed() == (1, first[1] + 1)
    db.execute("select flashsale.purge('0')")  # which removes nothing
    assert removed() == (1, first[1] + 1)


def test_a_read_only_session_is_not_ready(db):
    with db.transaction(force_rollback=True):
        db.execute("set transaction read only")
        assert problem(db) == "Transactions are read-only: default_transaction_read_only is on."


@pytest.fixture(scope="module")
def standby() -> Iterator[psycopg.Connection]:
    """A session on a standby of a shop with a product and a hold."""
    with running_cluster(with_pg_cron=False) as primary:
        migrate(primary.url(SUPERUSER, "postgres"), schedule=False, say=lambda _: None)
        with psycopg.connect(primary.url(SUPERUSER, "postgres"), autocommit=True) as conn:
            order(conn, create_product(conn))
            with standby_of(primary) as standby:
                lsn = one(conn, "select pg_current_wal_lsn()")
                with psycopg.connect(standby.url(SUPERUSER, "postgres"), autocommit=True) as session:
                    wait_until(
                        lambda: one(session, "select pg_last_wal_replay_lsn() >= %s::pg_lsn", lsn),
                        "caught up",
                    )
                    yield session


STALE = [
    "flashsale.read_events(0, 10)",
    "flashsale.get_product(1)",
    "flashsale.get_products(array[1], array[1::bigint])",
    "flashsale.list_products()",
    "flashsale.get_stock(array[1::bigint])",
    "flashsale.get_hold(1)",
    "flashsale.get_holds(array[1], array[1::bigint])",
    "flashsale.get_order(1)",
    "flashsale.get_orders(array[1], array[1::bigint], array[1::bigint])",
]


@pytest.mark.slow
@pytest.mark.parametrize("call", STALE)
def test_a_standby_refuses_reads_that_promise_to_be_current(standby, call):
    with refused("SA030") as raised:
        standby.execute(f"select * from {call}")
    assert raised.value.diag.message_detail == "The server is a standby, in recovery: connect to the primary."


@pytest.mark.slow
def test_a_standby_is_not_ready_and_can_be_audited(standby):
    assert problem(standby) == "The server is a standby, in recovery: connect to the primary."
    assert standby.execute("select * from flashsale.audit()").fetchall() == []
    assert one(standby, "select available_stock from flashsale.stock") == 9
