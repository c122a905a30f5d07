"""The benchmarks' own database: a private cluster with the settings of `make up`, removed in the end."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg

from bench.machine import cpu_seconds
from flashsale.database.migrations import migrate
from flashsale.database.seed import APP_ROLE, create_app_role
from flashsale.local.cluster import SUPERUSER, Cluster, stop_server

NAME = "flashsale"
PLENTY = 2_000_000_000
"""units: more than any benchmark sells"""
BATCH = 1000


class AuditFailed(Exception):
    """The data that a benchmark left is inconsistent."""


class Database:
    """A running cluster with the schema in it.

    :param cluster: as flashsale/local/cluster.py makes them
    :param pid: of the postmaster
    """

    def __init__(self, cluster: Cluster, pid: int) -> None:
        self.pid = pid
        self.url = cluster.url(SUPERUSER, NAME)
        self.app_url = cluster.url(APP_ROLE, NAME)
        self.socket_directory = cluster.socket_directory
        self.connection = psycopg.connect(self.url, autocommit=True)
        # audit() and dataset.fill() read and sort millions of rows.
        self.connection.execute("set work_mem = '512MB'; set maintenance_work_mem = '512MB'")

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.pid)

    def execute(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """:param parameters: for %s, or one mapping for %(name)s"""
        named = parameters and isinstance(parameters[0], dict)
        cursor = self.connection.execute(query, (parameters[0] if named else parameters) or None)
        return cursor.fetchall() if cursor.description else []

    def start_over(self, products: int = 1, stock: int = PLENTY, held: int = 0) -> None:
        """Empty every table, put products 1 to `products` on sale, and checkpoint.

        :param held: active holds of product 1, one unit each, in flashsale and for the baseline that sums
        """
        self.execute(
            "truncate flashsale_data.products, flashsale_data.claims, flashsale_data.events,"
            " flashsale_data.payments, bench.summed_products, bench.summed_holds, bench.counters,"
            " bench.counted_holds restart identity cascade"
        )
        self.execute("alter sequence flashsale_data.order_ids restart")
        self.execute("update flashsale_data.inbox set stored = 0")
        self.execute(
            "select flashsale.create_product('Limited sneaker', %s, 99.00) from generate_series(1, %s)",
            stock,
            products,
        )
        self.execute(
            "insert into bench.summed_products select n, %s from generate_series(1, %s) n", stock, products
        )
        self.execute("insert into bench.counters values (1, %s)", PLENTY)
        self.place_holds(held)
        self.execute(
            "insert into bench.summed_holds (product_id, qty, expires_at)"
            " select 1, 1, now() + interval '1 day' from generate_series(1, %s)",
            held,
        )
        self.execute("vacuum (analyze) bench.summed_holds")
        self.checkpoint()

    def place_holds(self, count: int) -> None:
        """Place `count` holds of product 1, in as few calls as possible."""
        for done in range(0, count, BATCH):
            self.execute(
                "select count(*) from (values (%s::int)) as batch (n), flashsale.place_holds("
                "array(select generate_series(1, n)), array_fill(1::bigint, array[n]),"
                " array_fill(1, array[n]), array_fill(null::text, array[n]))",
                min(BATCH, count - done),
            )

    def create_orders(self) -> None:
        """Create an order for every hold: order_id 1 and so on."""
        holds = [hold_id for (hold_id,) in self.execute("select hold_id from flashsale_data.holds")]
        for first in range(0, len(holds), BATCH):
            batch = holds[first : first + BATCH]
            self.execute(
                "select count(*) from flashsale.create_orders(%s::int[], %s::bigint[], %s::text[])",
                list(range(len(batch))), batch, [None] * len(batch),
            )  # fmt: skip

    def checkpoint(self) -> None:
        """Checkpoint now, so that none is due during a measurement."""
        self.execute("checkpoint")

    def settle(self) -> None:
        """Wait until the server's connections are idle: wrk exits before its last requests are answered."""
        quiet = 0
        while quiet < 5:
            time.sleep(0.02)
            busy = self.execute(
                "select from pg_stat_activity where usename = %s and state <> 'idle' limit 1", APP_ROLE
            )
            quiet = 0 if busy else quiet + 1

    def audit(self, after: str) -> None:
        """:raises AuditFailed: audit() found something after a benchmark, or a payment was not applied"""
        found = self.execute(
            "select check_name, detail from flashsale.audit() union all"
            " (select 'payments', idempotency_key || ': ' || result from flashsale_data.payments"
            " where result <> 'applied' limit 1)"
        )
        if found:
            lines = "\n".join(f"  {check}: {detail}" for check, detail in found[:20])
            raise AuditFailed(f"audit() after {after}:\n{lines}")


@contextmanager
def running_database(settings: dict[str, str] | None = None) -> Iterator[Database]:
    """A fresh cluster, durable like `make up`'s, migrated and scheduled, with the baselines' tables.

    Holds and orders live a day, so that nothing lapses unless a benchmark is about that.

    :param settings: of the server, over those of `make up`
    """
    directory = Path(tempfile.mkdtemp(prefix="flashsale-bench-", dir="/var/tmp"))
    directory.chmod(0o711)
    cluster = Cluster(directory)
    cluster.create()
    server = cluster.start(settings)
    try:
        with psycopg.connect(cluster.url(SUPERUSER, "postgres"), autocommit=True) as connection:
            connection.execute(f"create database {NAME}")
        migrate(cluster.url(SUPERUSER, NAME), say=lambda _: None)
        database = Database(cluster, server.pid)
        with closing(database.connection):
            create_app_role(database.connection)
            database.execute(
                "select flashsale.change_settings(p_hold_time => '1 day', p_payment_window => '1 day')"
            )
            database.execute((Path(__file__).parent / "tables.sql").read_text())
            yield database
    finally:
        stop_server(server)
        shutil.rmtree(directory)
