"""Schema snapshots: dumps of databases as earlier versions of sql/ and migrations/ made them, with a sale.

They are in proof/snapshots/. After a change of sql/ or migrations/ has landed, add a snapshot under the next
number and its commit:

    python -m proof.schema_snapshots 06.1234abc
"""

import argparse
import gzip
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import psycopg

from flashsale.database.migrations import migrate
from flashsale.database.seed import create_app_role
from flashsale.local.cluster import SUPERUSER, find_binary
from tests.support import ROOT
from tests.support.clusters import running_cluster

SNAPSHOTS = Path(__file__).parent / "snapshots"

# Written by newer versions of pg_dump, and unknown to older versions of psql.
_OF_PSQL = re.compile(r"^\\(un)?restrict .*\n", re.MULTILINE)


def run_sale(conn: psycopg.Connection) -> None:
    """Holds, orders and payments in every state, by calls that every version has."""

    def hold(product: int, qty: int = 1, key: str | None = None) -> int:
        return conn.execute(
            "select hold_id from flashsale.place_hold(%s, %s, %s)", (product, qty, key)
        ).fetchone()[0]

    def order(product: int, qty: int = 1, key: str | None = None) -> int:
        made = conn.execute("select order_id from flashsale.create_order(%s, %s)", (hold(product, qty), key))
        return made.fetchone()[0]

    def pay(key: str, order_id: int, status: str = "success", payload: str = "{}") -> None:
        conn.execute("select flashsale.apply_payment(%s, %s, %s, %s)", (key, order_id, status, payload))

    def set_times(seconds: str) -> None:
        conn.execute("select flashsale.change_settings(%s::interval, %s::interval)", (seconds, seconds))

    conn.execute("select flashsale.create_product('Sneaker', 100, 99)")
    conn.execute("select flashsale.create_product('Sold out', 3, 12500, 'JPY')")
    # Purged.
    conn.execute("select flashsale.release_hold(%s)", (hold(1),))
    pay("purged", order(1), "failed")
    conn.execute("select flashsale.purge('0')")
    # Lapsed and swept, then lapsed and not swept.
    for _ in range(2):
        conn.execute("select flashsale.expire_due(1000)")
        set_times("1 day")
        waiting = hold(1)
        set_times("100 milliseconds")
        for product in (1, 2):
            hold(product)
        conn.execute("select flashsale.create_order(%s)", (waiting,))
        time.sleep(0.3)
    conn.execute("select flashsale.change_settings('1 day', '30 days')")
    hold(1, 2, "a hold's key")
    order(1, 3, "an order's key")
    conn.execute("select flashsale.release_hold(%s)", (hold(1),))
    pay("paid", order(1), payload='{"amount": "99.00", "currency": "USD", "card": "4242"}')
    twice = order(1)
    pay("first", twice)
    pay("second", twice)
    pay("failed", order(1), "failed")
    cancelled = order(1)
    pay("cancelled", cancelled, "cancelled")
    pay("too late", cancelled)
    pay("mismatch", order(1), payload='{"amount": "1.00"}')
    born_paid = order(1) + 1
    pay("early", born_paid)
    order(1)
    pay("stored", born_paid + 1000)
    pay("stored too", born_paid + 1000, "failed")
    conn.execute("select flashsale.adjust_stock(1, 50)")
    order(2, 3)
    conn.execute("select flashsale.change_settings('2 minutes', '15 minutes', 500, '30 days')")


def run_refunds(conn: psycopg.Connection) -> None:
    """What versions with refunds have besides: declined payments, limits, free orders, refunds in each state,
    cancelled orders and a cancelled sale."""

    def value(query: str, *args: object) -> Any:
        row = conn.execute(query, args).fetchone()
        assert row is not None
        return row[0]

    def order(product: int, buyer: str | None = None) -> int:
        hold = value("select hold_id from flashsale.place_hold(%s, 1, p_buyer => %s)", product, buyer)
        return int(value("select order_id from flashsale.create_order(%s)", hold))

    def pay(key: str, order_id: int, status: str = "success") -> None:
        conn.execute("select flashsale.apply_payment(%s, %s, %s)", (key, order_id, status))

    def record(key: str, payment: str, amount: int, status: str = "done", kind: str = "refund") -> None:
        conn.execute(
            "select flashsale.record_refund(%s, %s, %s, %s, %s)", (key, payment, amount, status, kind)
        )

    limited = value("select flashsale.create_product('Limited', 20, 50, p_max_per_buyer => 3)")
    conn.execute("select flashsale.place_hold(%s, 1, p_buyer => 'ann')", (limited,))
    declined, paid, twice = (order(limited, buyer) for buyer in ("ann", "ann", "bob"))
    pay("limited declined", declined, "declined")
    pay("limited paid", paid)
    for number in range(5):
        pay(f"limited {number}", twice)
    order(value("select flashsale.create_product('Free', 5, 0)"))
    record("re goodwill", "limited paid", 10)
    record("dp won", "limited paid", 50, "done", "chargeback")
    record("dp won", "limited paid", 50, "failed", "chargeback")
    record("re part", "limited 1", 20)
    record("re whole", "limited 2", 50)
    record("dp lost", "limited 3", 50, "done", "chargeback")
    begin = "select refund_key from flashsale.begin_refunds(p_payment_keys => array[%s])"
    record(value(begin, "limited 4"), "limited 4", 50, "failed")
    value(begin, "limited 4")
    cancelled = order(limited, "cas")
    pay("limited cancelled", cancelled)
    conn.execute("select flashsale.cancel_order(%s, p_restock => false)", (cancelled,))
    ended = value("select flashsale.create_product('Cancelled', 10, 30)")
    conn.execute("select flashsale.place_hold(%s, 1)", (ended,))
    order(ended)
    pay("of the cancelled sale", order(ended))
    conn.execute("select flashsale.cancel_sale(%s, 30)", (ended,))
    pay("after the cancelled sale", order_of(conn, ended))


def order_of(conn: psycopg.Connection, product: int) -> int:
    """The first order of a product."""
    row = conn.execute(
        "select min(order_id) from flashsale_data.orders where product_id = %s", (product,)
    ).fetchone()
    assert row is not None
    return int(row[0])


def dump(url: str, *options: str) -> str:
    """The output of pg_dump, without what differs between two runs."""
    done = subprocess.run(
        [find_binary("pg_dump"), *options, f"--dbname={url}"], capture_output=True, text=True, check=True
    )
    return _OF_PSQL.sub("", done.stdout)


def restore(snapshot: Path, url: str) -> None:
    """Load a snapshot into an empty database."""
    with gzip.open(snapshot, "rb") as text:
        done = subprocess.run(
            [find_binary("psql"), "-qX", "-v", "ON_ERROR_STOP=1", f"--dbname={url}"],
            input=text.read(),
            capture_output=True,
        )
    assert done.returncode == 0, done.stderr.decode()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m proof.schema_snapshots", description=__doc__)
    parser.add_argument("name", help="of the file, without .sql.gz")
    parser.add_argument("--tree", type=Path, default=ROOT, help="another checkout, to dump its version")
    options = parser.parse_args()
    with running_cluster(with_pg_cron=False) as cluster:
        url = cluster.url(SUPERUSER, "postgres")
        migrate(url, migrations=options.tree / "migrations", sql=options.tree / "sql", schedule=False)
        with psycopg.connect(url, autocommit=True) as conn:
            create_app_role(conn)
            run_sale(conn)
            if conn.execute("select to_regclass('flashsale_data.refunds')").fetchone() != (None,):
                run_refunds(conn)
        text = dump(url).encode()
    path = SNAPSHOTS / f"{options.name}.sql.gz"
    path.write_bytes(gzip.compress(text, mtime=0))
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
