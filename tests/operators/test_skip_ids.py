"""skip_ids(): what a failover lost is not drawn again."""

import psycopg
import pytest

from flashsale.database.migrations import migrate
from flashsale.local.cluster import SUPERUSER
from tests.support.clusters import running_cluster, standby_of
from tests.support.sale_steps import audit, create_order, create_product, one, order, pay, place_hold, refused
from tests.support.waiting import wait_until

SKIP = "select sequence_name, last_id from flashsale.skip_ids({}) order by 1"


def test_it_skips_order_event_and_product_ids(db):
    create_product(db)
    before = one(db, "select last_value from flashsale_data.event_ids")
    rows = dict(db.execute(SKIP.format("")).fetchall())
    assert rows == {
        "flashsale_data.order_ids": 1_000_001,
        "flashsale_data.event_ids": before + 1_000_001,
        "flashsale_data.products_product_id_seq": 1002,
    }
    product = create_product(db)
    assert product == 1003
    assert order(db, product) == 1_000_002
    events = db.execute("select event_id from flashsale.read_events(%s, 10)", (before,)).fetchall()
    assert len(events) == 3 and min(events)[0] > rows["flashsale_data.event_ids"]
    assert audit(db) == []


def test_it_skips_the_orders_that_the_provider_knows(db):
    db.execute(SKIP.format("1000, 4711000"))
    assert order(db, create_product(db)) == 4_712_001


@pytest.mark.parametrize("arguments", ["999", "100000001", "null", "1000, -1", "1000, 4503599627370497"])
def test_other_arguments_are_refused(db, arguments):
    with refused("SA009"):
        db.execute(SKIP.format(arguments))
    assert order(db, create_product(db)) == 1


def test_a_logical_copy_is_refused(db):
    with db.transaction(force_rollback=True):
        db.execute(
            "create subscription copy connection 'dbname=elsewhere' publication sale"
            " with (connect = false, slot_name = none)"
        )
        db.execute(
            "insert into pg_subscription_rel (srsubid, srrelid, srsubstate)"
            " select oid, 'flashsale_data.events'::regclass, 'r' from pg_subscription where subname = 'copy'"
        )
        with refused("SA030"):
            db.execute(SKIP.format(""))


@pytest.mark.slow
@pytest.mark.parametrize("skips", [False, True], ids=["control", "skipped"])
def test_a_late_webhook_of_a_lost_order_pays_no_other(skips):
    """An asynchronous standby that has stopped receiving is promoted."""
    with running_cluster(with_pg_cron=False) as primary:
        url = primary.url(SUPERUSER, "postgres")
        migrate(url, schedule=False, say=lambda _: None)
        with psycopg.connect(url, autocommit=True) as sold, standby_of(primary) as standby:
            product = create_product(sold)
            lsn = one(sold, "select pg_current_wal_lsn()")
            with psycopg.connect(standby.url(SUPERUSER, "postgres"), autocommit=True) as promoted:
                wait_until(
                    lambda: one(promoted, "select pg_last_wal_replay_lsn() >= %s::pg_lsn", lsn), "caught up"
                )
                promoted.execute("alter system set primary_conninfo = ''")
                promoted.execute("select pg_reload_conf()")
                wait_until(lambda: one(promoted, "select count(*) = 0 from pg_stat_wal_receiver"), "cut off")
                lost = create_order(sold, place_hold(sold, product))
                promoted.execute("select pg_promote()")
                if skips:
                    promoted.execute(SKIP.format(""))
                other = create_order(promoted, place_hold(promoted, product))
                # The provider has captured the payment of the order that the old primary had.
                paid = pay(promoted, lost)
                if skips:
                    assert (other > lost, paid) == (True, "stored")
                else:
                    assert (other, paid) == (lost, "applied")
                assert audit(promoted) == []
