"""`flashsale doctor`: what replication leaves to be done, and the remedies, followed as printed."""

import psycopg
import pytest

from flashsale.doctor import replication
from flashsale.doctor.finding import Finding
from tests.doctor.findings import after, only, problems
from tests.support.sale_steps import create_product, one, order, refused

IDENTITY = {
    "an index": ("stock", "nothing", "using index stock_version_key"),
    "a key": ("orders", "nothing", "default"),
}
COPY = (
    "create subscription copy connection 'dbname=elsewhere' publication sale"
    " with (connect = false, slot_name = none)",
    "insert into pg_subscription_rel (srsubid, srrelid, srsubstate)"
    " select oid, 'flashsale_data.events'::regclass, 'r' from pg_subscription where subname = 'copy'",
)


@pytest.fixture
def quiet(db: psycopg.Connection) -> psycopg.Connection:
    db.execute("set client_min_messages = error")  # a publication warns of wal_level
    return db


def test_a_publication_for_all_tables_is_ok(quiet):
    assert only(replication.publications, quiet).detail == "no table is published: rows can be changed"
    with after(quiet, "create publication all_of_it for all tables"):
        assert problems(replication.publications, quiet) == []


@pytest.mark.parametrize(("table", "identity", "remedy"), IDENTITY.values(), ids=IDENTITY)
def test_a_published_table_without_an_identity_is_found_and_its_remedy_works(quiet, table, identity, remedy):
    order(quiet, create_product(quiet))
    with after(
        quiet,
        f"alter table flashsale_data.{table} replica identity {identity}",
        "create publication all_of_it for all tables",
    ):
        assert stops_the_sale(quiet)
        finding = only(replication.publications, quiet)
        assert (finding.status, f'cannot update table "{table}"' in finding.detail) == ("failed", True)
        assert finding.remedy == f'alter table "flashsale_data"."{table}" replica identity ' + remedy.replace(
            "stock_version_key", '"stock_version_key"'
        )
        quiet.execute(finding.remedy)
        assert problems(replication.publications, quiet) == []
        assert not stops_the_sale(quiet)


@pytest.mark.parametrize("part", ["(product_id, total_stock)", "where (total_stock > 0)"])
def test_a_published_part_that_stops_updates_is_found_and_its_remedy_works(quiet, part):
    create_product(quiet)
    with after(quiet, f'create publication "part of it" for table flashsale_data.stock {part}'):
        finding = only(replication.publications, quiet)
        assert finding.remedy == 'alter publication "part of it" drop table "flashsale_data"."stock"'
        quiet.execute(finding.remedy)
        assert problems(replication.publications, quiet) == []


def stops_the_sale(db: psycopg.Connection) -> bool:
    """Whether a payment of order 1 is refused by PostgreSQL."""
    try:
        with db.transaction(force_rollback=True):
            db.execute("select flashsale.apply_payment('p', 1, 'success')")
    except psycopg.errors.ObjectNotInPrerequisiteState:
        return True
    return False


def test_a_copy_fails_and_its_remedy_works(db):
    create_product(db)
    assert problems(replication.subscriptions, db) == []
    with after(db, *COPY):
        finding = only(replication.subscriptions, db)
        assert finding.status == "failed"
        with refused("SA030"), db.transaction():
            db.execute("select * from flashsale.read_events(0, 1)")
        db.execute(finding.remedy.partition(": ")[2])
        assert problems(replication.subscriptions, db) == []
        db.execute("select * from flashsale.read_events(0, 1)")


@pytest.mark.parametrize(
    "name", ["flashsale_data.event_ids", "flashsale_data.order_ids", "flashsale_data.products_product_id_seq"]
)
def test_a_sequence_behind_fails_and_its_remedy_works(db, name):
    order(db, create_product(db))
    assert problems(replication.sequences, db) == []
    highest = one(db, f"select last_value from {name}")
    db.execute(f"alter sequence {name} restart")
    finding = only(replication.sequences, db)
    assert finding == Finding(
        "sequences", "failed", f"{name} stands at 0, behind {highest}: ids would be given out again",
        f"select setval('{name}', {highest})",
    )  # fmt: skip
    db.execute(finding.remedy)
    assert problems(replication.sequences, db) == []
    order(db, create_product(db))
