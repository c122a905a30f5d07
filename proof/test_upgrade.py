"""Upgrade: from every schema snapshot, with data and traffic, to a schema that equals a fresh install's."""

import re
import threading
from collections import Counter
from pathlib import Path

import psycopg
import pytest

from api.database.schema_version import SQL_DIRECTORY, migration_ids
from flashsale.database.drift import differences, wrong_grants
from flashsale.database.migrations import apply, migrate
from flashsale.database.seed import APP_ROLE
from flashsale.local.cluster import Cluster
from proof.campaign import Campaign
from proof.schema_snapshots import SNAPSHOTS, dump, restore
from tests.support.sale_steps import audit, one
from tests.support.waiting import wait_until

ALL_SNAPSHOTS = sorted(SNAPSHOTS.glob("*.sql.gz"))
RETRYABLE = {"40001", "40P01", "55P03", "57014"}
MIXED = ("42", "XX000", "23502", "22P02")
"""prefixes of the SQLSTATEs of a call that meets old and new functions, or an old function a new column"""


def catalog(url: str) -> list[str]:
    """All objects of a database as pg_dump writes them, in no particular order."""
    objects = re.split(r"\n--\n-- Name: ", dump(url, "--schema-only"))[1:]
    # The order of grants does not matter.
    return sorted("\n".join(sorted(text.split("\n"))) if "Type: ACL" in text else text for text in objects)


def version(conn: psycopg.Connection) -> list[tuple]:
    """The version that a database records."""
    return [
        *conn.execute("select version, digest from flashsale_data.schema_state").fetchall(),
        *conn.execute("select migration_id from flashsale_migrations._yoyo_migration order by 1").fetchall(),
    ]


def assert_as_fresh(url: str, fresh: str) -> None:
    """The database at `url` differs from a fresh one only in its rows."""
    expected, found = catalog(fresh), catalog(url)
    missing, surplus = set(expected) - set(found), set(found) - set(expected)
    assert not missing and not surplus, "\n\n".join(["missing:", *missing, "surplus:", *surplus])
    assert len(found) == len(expected)
    with psycopg.connect(url, autocommit=True) as upgraded, psycopg.connect(fresh) as new:
        assert version(upgraded) == version(new)
        assert list(differences(upgraded, SQL_DIRECTORY)) == []
        assert list(wrong_grants(upgraded, SQL_DIRECTORY)) == []
        assert audit(upgraded) == []


class Traffic:
    """Callers who buy a product of their own again and again."""

    def __init__(self, url: str, product: int, callers: int) -> None:
        self.sales = [0] * callers
        self.retried: Counter[str] = Counter()
        self.is_switching = False
        self.failed: list[BaseException] = []
        self._url = url
        self._product = product
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._buy, args=(n,)) for n in range(callers)]

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for_sales(self) -> None:
        """Until every caller has bought five times more."""
        goal = [sales + 5 for sales in self.sales]
        wait_until(
            lambda: self.failed or all(now >= then for now, then in zip(self.sales, goal, strict=True)),
            "every caller has bought five times more",
        )
        assert self.failed == []

    def _buy(self, number: int) -> None:
        try:
            with psycopg.connect(self._url, autocommit=True, options="-c lock_timeout=300") as conn:
                while not self._stop.is_set():
                    key = f"{number} {self.sales[number]}"
                    hold = self._call(
                        conn, "select hold_id from flashsale.place_hold(%s, 1, %s)", self._product, key
                    )
                    made = self._call(conn, "select order_id from flashsale.create_order(%s, %s)", hold, key)
                    paid = "select result from flashsale.apply_payment(%s, %s, 'success', '{}')"
                    assert self._call(conn, paid, key, made) == "applied"
                    status = "select order_status from flashsale.get_hold(%s)"
                    assert self._call(conn, status, hold) == "paid"
                    self.sales[number] += 1
        except BaseException as error:
            self.failed.append(error)

    def _call(self, conn: psycopg.Connection, query: str, *args: object) -> object:
        """Retries, with the same key, what can be retried."""
        while True:
            was_switching = self.is_switching
            try:
                return one(conn, query, *args)
            except psycopg.Error as error:
                mixed = error.sqlstate.startswith(MIXED) and (was_switching or self.is_switching)
                if not mixed and error.sqlstate not in RETRYABLE:
                    raise
                self.retried[error.sqlstate] += 1


ROWS = {
    "holds": "hold_id, product_id, qty, status, placed_at, expires_at, idempotency_key",
    "orders": "order_id, hold_id, product_id, qty, amount, currency, status, cancel_reason, created_at,"
    " payment_due_at, idempotency_key",
    "stock": "product_id, total_stock, held, awaiting, paid, lapsed_through::text",
    "lapses": "product_id, lapses_at, held, awaiting",
    "products": "product_id, name, price, currency, created_at",
}
MONEY_BACK = {
    "refunds": "select refund_key, payment_key, amount, currency, kind, status, requested_at, lease_ends_at,"
    " recorded_at, payload from flashsale_data.refunds order by 1",
    "refunded": "select idempotency_key, refund_reason, refund_state, refunded from flashsale_data.payments"
    " where refunded > 0 or refund_state is not null order by 1",
    "claims": "select hold_id, scope, buyer, qty, ends_at::text, product_id from flashsale_data.claims"
    " order by 1",
    "terms": "select product_id, max_per_buyer, cancelled from flashsale_data.products"
    " where has_terms order by 1",
}
"""of versions that have refunds"""


def rows_of(conn: psycopg.Connection, products: list[int]) -> dict[str, list[tuple]]:
    """The rows of some products, with their payments, the stored webhooks and the settings."""
    found = {
        table: conn.execute(
            f"select {columns} from flashsale_data.{table} where product_id = any (%s) order by 1, 2",
            (products,),
        ).fetchall()
        for table, columns in ROWS.items()
    }
    if one(conn, "select to_regclass('flashsale_data.refunds') is not null"):
        found |= {name: conn.execute(query).fetchall() for name, query in MONEY_BACK.items()}
    found["payments"] = conn.execute(
        "select p.idempotency_key, p.order_id, p.status, p.amount, p.currency, p.payload, p.received_at,"
        " p.result, p.order_status"
        " from flashsale_data.payments p left join flashsale_data.orders o using (order_id)"
        " where o.product_id is null or o.product_id = any (%s) order by arrival",
        (products,),
    ).fetchall()
    found["settings"] = conn.execute(
        "select hold_time, payment_window, inbox_limit, inbox_keep from flashsale_data.settings"
    ).fetchall()
    return found


@pytest.mark.parametrize("snapshot", ALL_SNAPSHOTS, ids=lambda path: path.name.removesuffix(".sql.gz"))
def test_an_upgrade_with_data_and_traffic(
    snapshot: Path, empty_database: str, database_url: str, cluster: Cluster, campaign: Campaign
) -> None:
    restore(snapshot, empty_database)
    callers = cluster.url(APP_ROLE, psycopg.conninfo.conninfo_to_dict(empty_database)["dbname"])
    with psycopg.connect(empty_database, autocommit=True) as conn:
        assert audit(conn) == []
        products = [number for (number,) in conn.execute("select product_id from flashsale_data.products")]
        before = rows_of(conn, products)
        assert {status for row in before["holds"] for status in row if status in STATUSES} == STATUSES
        sold = one(conn, "select flashsale.create_product('Sold meanwhile', 1000000, 99)")
        # Past the orders that stored webhooks of the snapshot are about.
        conn.execute("select setval('flashsale_data.order_ids', 1000000)")
        # Objects that later versions do not have.
        conn.execute(OLD_OBJECTS)
        switches = 0
        with Traffic(callers, sold, campaign.size(2, 8)) as traffic:
            traffic.wait_for_sales()
            # At full size again and again: a migrate with nothing to change delays no caller.
            for _ in range(campaign.size(1, 10)):
                traffic.is_switching = True
                migrate(empty_database, schedule=False, say=lambda _: None)
                traffic.is_switching = False
                switches += 1
            traffic.wait_for_sales()
        assert traffic.failed == []
        # One switch at one instant: each caller fails at most once.
        mixed = sum(count for sqlstate, count in traffic.retried.items() if sqlstate.startswith(MIXED))
        assert mixed <= switches * len(traffic.sales), traffic.retried
        after = rows_of(conn, products)
        assert {name: after[name] for name in before} == before
        finish_refunds(conn)
        (paid,) = conn.execute("select paid from flashsale.stock where product_id = %s", (sold,)).fetchone()
        assert paid == sum(traffic.sales)
    assert_as_fresh(empty_database, database_url)
    again = ", ".join(f"{count} by {sqlstate}" for sqlstate, count in traffic.retried.most_common()) or "none"
    campaign.record(
        f"upgrade from {snapshot.name.removesuffix('.sql.gz')}, {sum(traffic.sales):,} sales meanwhile",
        f"equals a fresh install, data unchanged; retries: {again}",
        upgrades=1,
        sales_meanwhile=sum(traffic.sales),
    )


def finish_refunds(conn: psycopg.Connection) -> None:
    """What was begun before the upgrade can be recorded after it, and what is due can be begun."""
    requested = "select refund_key, payment_key, amount from flashsale.refunds where status = 'requested'"
    for request in conn.execute(requested).fetchall():
        conn.execute("select flashsale.record_refund(%s, %s, %s, 'done')", request)
    begun = conn.execute("select refund_key, payment_key, amount from flashsale.begin_refunds()").fetchall()
    for request in begun:
        conn.execute("select flashsale.record_refund(%s, %s, %s, 'done')", request)
    assert one(conn, "select count(*) from flashsale.refunds_due where amount is not null") == 0


OLD_OBJECTS = """
    create function flashsale_data.old_object() returns int language sql as 'select 1';
    alter function flashsale_data.old_object() owner to flashsale_owner;
    create view flashsale.old_object as select 1 as one;
    alter view flashsale.old_object owner to flashsale_owner;
    grant execute on function flashsale.audit() to flashsale_api;
"""
STATUSES = {"active", "ordered", "expired", "released"}


@pytest.mark.parametrize("upto", migration_ids())
def test_a_migrate_that_stopped_after(
    upto: str, empty_database: str, database_url: str, campaign: Campaign
) -> None:
    apply(empty_database, upto, say=lambda _: None)
    migrate(empty_database, schedule=False, say=lambda _: None)
    assert_as_fresh(empty_database, database_url)
    campaign.record(f"a migrate that stopped after {upto}, run again", "equals a fresh install")


@pytest.mark.parametrize(
    "change",
    [
        "alter table flashsale_data.holds drop constraint holds_qty",
        "grant select on flashsale_data.holds to flashsale_api",
        "alter function flashsale.place_hold(bigint, int, text, text) reset search_path",
    ],
)
def test_control_a_difference_fails(change: str, database_url: str, empty_database: str) -> None:
    migrate(empty_database, schedule=False, say=lambda _: None)
    with psycopg.connect(empty_database, autocommit=True) as conn:
        conn.execute(change)
    with pytest.raises(AssertionError, match="missing"):
        assert_as_fresh(empty_database, database_url)
