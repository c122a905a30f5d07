"""`flashsale watch` over several databases: one sale, as if it were in one.

Each shard is read by a thread of its own: one that hangs does not stop the view, which names it.
"""

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg

from flashsale.cli import watch as one
from flashsale.database.connection import Connection, describe_error, poll
from flashsale.shards.databases import Database

SILENT_SECONDS = 3.0
"""seconds, beyond the interval, after which a shard counts as not responding"""
FIRST_SECONDS = 5.0
"""seconds for the first snapshots"""

_STATES = ("dead", "failing", "not_scheduled", "not_installed", "alive")
"""of schedulers, the worst first"""


def watch(callback: object, arguments: dict[str, Any], among: Sequence[Database]) -> None:
    readers = [_Reader(database, arguments["only"], arguments["interval"]) for database in among]
    snapshots = _merged(readers, arguments["interval"])
    if not arguments["once"]:
        return one.show(snapshots, arguments["interval"], as_json=arguments["as_json"])
    snapshot = next(snapshots)
    one.print_snapshot(snapshot, as_json=arguments["as_json"])
    sys.exit(1 if snapshot["unreachable"] else 0)


class _Reader:
    """Reads a shard's snapshots."""

    def __init__(self, database: Database, only: tuple[int, ...], interval: float) -> None:
        self.name = database.name
        self.snapshot: dict[str, Any] | None = None
        self.error = "no response"
        self.read_at = 0.0
        self.is_read = threading.Event()
        threading.Thread(target=self._run, args=(database.url, only, interval), daemon=True).start()

    def _run(self, url: str, only: tuple[int, ...], interval: float) -> None:
        def read(conn: Connection) -> dict[str, Any]:
            return one.read_snapshot(conn, only)

        while True:
            try:
                for found in poll(read, "watch", url):
                    self._keep(found)
                    time.sleep(interval)
            except psycopg.Error as error:
                self._keep(error)
                time.sleep(interval)

    def _keep(self, found: dict[str, Any] | psycopg.Error) -> None:
        if isinstance(found, psycopg.Error):
            self.error = describe_error(found)
            self.read_at = 0.0
        else:
            self.snapshot = found
            self.error = "no response"
            self.read_at = time.monotonic()
        self.is_read.set()


def _merged(readers: Sequence[_Reader], interval: float) -> Iterator[dict[str, Any]]:
    deadline = time.monotonic() + FIRST_SECONDS
    for reader in readers:
        reader.is_read.wait(max(0.0, deadline - time.monotonic()))
    while True:
        oldest = time.monotonic() - interval - SILENT_SECONDS
        current = [
            reader.snapshot for reader in readers if reader.snapshot is not None and reader.read_at >= oldest
        ]
        silent = {
            reader.name: reader.error
            for reader in readers
            if reader.snapshot is None or reader.read_at < oldest
        }
        yield _merge(current, silent)


def _merge(snapshots: Sequence[dict[str, Any]], unreachable: dict[str, str]) -> dict[str, Any]:
    products = [row for snapshot in snapshots for row in snapshot["products"]]
    rejected = [snapshot["rejected_webhooks"] for snapshot in snapshots]
    ages = [row["oldest"] for row in rejected if row["oldest"] is not None]
    schedulers = [snapshot["scheduler"] for snapshot in snapshots]
    refunds: dict[str, dict[str, Any]] = {}
    for row in (row for snapshot in snapshots for row in snapshot["refunds_due"]):
        total = refunds.setdefault(
            row["currency"], {**row, "payments": 0, "amount": None, "without_amount": 0}
        )
        total["payments"] += row["payments"]
        total["without_amount"] += row["without_amount"]
        if row["amount"] is not None:
            total["amount"] = (total["amount"] or Decimal()) + row["amount"]
    return {
        "at": max((snapshot["at"] for snapshot in snapshots), default=None),
        "products": sorted(products, key=lambda row: row["product_id"]),
        "refunds_due": list(refunds.values()),
        "rejected_webhooks": {
            "webhooks": sum(row["webhooks"] for row in rejected), "oldest": max(ages, default=None)
        },
        # The worst: the one that is behind most.
        "scheduler": min(
            schedulers,
            key=lambda row: (_STATES.index(row["status"]), -row["lag"]),
            default={"status": "dead", "last_run_at": None, "lag": timedelta(0), "since_last_run": None},
        ),
        "unreachable": unreachable,
    }  # fmt: skip
