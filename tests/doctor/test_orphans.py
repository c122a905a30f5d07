"""`flashsale doctor`: what clients have left behind, and the remedies, followed as printed."""

from collections.abc import Iterator

import psycopg
import pytest

from flashsale.doctor import orphans
from flashsale.local.cluster import DATABASE, SUPERUSER
from tests.doctor.findings import only, problems
from tests.support.sale_steps import one, place_hold
from tests.support.shops import running_shop

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shop() -> Iterator[psycopg.Connection]:
    """A shop on a server with prepared transactions and logical decoding."""
    with (
        running_shop({"max_prepared_transactions": "5", "wal_level": "logical"}) as cluster,
        psycopg.connect(cluster.url(SUPERUSER, DATABASE), autocommit=True) as conn,
    ):
        yield conn


def events_after(db: psycopg.Connection, event_id: int) -> int:
    return one(db, "select count(*) from flashsale.read_events(%s, 100)", event_id)


def test_a_prepared_transaction_without_a_client_fails_and_its_remedy_works(shop):
    newest = one(shop, "select max(event_id) from flashsale_data.events")
    with psycopg.connect(shop.info.dsn) as client:
        place_hold(client, 1)
        client.execute("prepare transaction 'it''s open'")
    other = one(shop, "select flashsale.create_product('Other', 50, 99)")
    place_hold(shop, other)
    assert events_after(shop, newest) == 0, "readers stop before it"
    assert problems(orphans.orphans, shop) == [], "its client may be about to commit"
    finding = only(lambda conn: orphans.orphans(conn, 0), shop)
    assert (finding.status, "transaction it's open of role postgres" in finding.detail) == ("failed", True)
    assert finding.remedy == "rollback prepared 'it''s open'"
    shop.execute(finding.remedy)
    assert problems(lambda conn: orphans.orphans(conn, 0), shop) == []
    assert events_after(shop, newest) == 2


def test_a_slot_without_a_reader_is_a_warning_and_its_remedy_works(shop):
    assert problems(orphans.orphans, shop) == []
    shop.execute("select pg_create_logical_replication_slot('gone', 'pgoutput')")
    shop.execute("create database other")
    with psycopg.connect(shop.info.dsn, dbname="other", autocommit=True) as neighbour:
        neighbour.execute("select pg_create_logical_replication_slot('of_another', 'pgoutput')")
        finding = only(orphans.orphans, shop)
        assert (finding.status, finding.detail.startswith("replication slot gone has no reader")) == (
            "warning", True,
        )  # fmt: skip
        shop.execute(finding.remedy.partition(": ")[2])
        assert problems(orphans.orphans, shop) == []
        neighbour.execute("select pg_drop_replication_slot('of_another')")
