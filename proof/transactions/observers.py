"""What runs beside the sessions: readers that check at every moment, and a thread that injects faults."""

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg import errors, sql

from api.database.schema_version import SQL_DIRECTORY
from flashsale.database.sql_loader import SqlError, load
from proof.transactions.session import Session
from tests.support import sql_calls as calls

TABLES = (
    *("payments", "holds", "orders", "stock", "lapses", "events", "inbox", "settings", "ledger_carried"),
    *("operations", "rejected_webhooks", "purge_state"),
)
RETRYABLE = (errors.DeadlockDetected, errors.LockNotAvailable, errors.QueryCanceled)
"""failures of a statement that meets a reload or VACUUM FULL"""


class Observers:
    """Readers of the ledger, of the refunds and of the audit, at READ COMMITTED, each on a connection of its
    own.

    :ivar events: every event in the order in which read_events() returned it
    :ivar findings: what audit() returned, and how often
    :ivar lost_refunds: refunds that were due and disappeared, or lost their amount
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.events: list[Any] = []
        self.findings: Counter[tuple[str, str]] = Counter()
        self.lost_refunds: dict[str, str] = {}
        self._refunds: dict[str, Any] = {}

    def watch(self, read: Callable[[psycopg.Connection], None], pause: float, until: float) -> None:
        """Call `read` every `pause` seconds until time.monotonic() is `until`."""
        with psycopg.connect(self.url, autocommit=True, options="-c statement_timeout=5s") as conn:
            while time.monotonic() < until:
                try:
                    read(conn)
                except RETRYABLE:
                    continue
                time.sleep(pause)

    def read_events(self, conn: psycopg.Connection) -> None:
        """Read what is new in the ledger."""
        last = self.events[-1].event_id if self.events else 0
        while new := calls.rows(conn, "select * from flashsale.read_events(%s, 200)", last):
            self.events += new
            last = new[-1].event_id

    def read_refunds(self, conn: psycopg.Connection) -> None:
        """Compare the refunds with those of the last look."""
        found = {row.idempotency_key: row for row in calls.rows(conn, "table flashsale.refunds_due")}
        for key, row in self._refunds.items():
            if key not in found:
                self.lost_refunds.setdefault(key, f"{row} is not due any more")
            elif row.amount is not None and found[key].amount is None:
                self.lost_refunds.setdefault(key, f"{row} has lost its amount")
        self._refunds = found

    def audit(self, conn: psycopg.Connection) -> None:
        """Record what is wrong at this moment."""
        self.findings.update(tuple(row) for row in calls.rows(conn, "select * from flashsale.audit()"))


class FaultInjector:
    """Cancels and terminates backends, rewrites tables, and reloads the functions.

    :ivar injected: the faults, and how often each was injected
    """

    def __init__(self, url: str, sessions: Sequence[Session], choices: random.Random) -> None:
        self.url = url
        self.sessions = sessions
        self.random = choices
        self.injected: Counter[str] = Counter()

    def run(self, until: float) -> None:
        """Inject one fault after the other until time.monotonic() is `until`."""
        faults = {
            "cancel": (self._cancel, 8),
            "terminate": (self._terminate, 2),
            "vacuum full": (self._vacuum_full, 3),
            "vacuum": (self._vacuum, 1),
            "reload": (lambda conn: load(conn, SQL_DIRECTORY), 4),
        }
        names, weights = list(faults), [weight for _, weight in faults.values()]
        with psycopg.connect(self.url, autocommit=True, options="-c statement_timeout=5s") as conn:
            while time.monotonic() < until:
                (name,) = self.random.choices(names, weights)
                # While it waits for a table, every session waits behind it.
                conn.execute(f"set lock_timeout = {self.random.choice((50, 150, 500))}")
                try:
                    faults[name][0](conn)
                    self.injected[name] += 1
                except RETRYABLE:
                    pass
                except SqlError as error:
                    if not isinstance(error.__cause__, RETRYABLE):
                        raise
                time.sleep(self.random.uniform(0, 0.25))

    def _cancel(self, conn: psycopg.Connection) -> None:
        conn.execute("select pg_cancel_backend(%s)", (self.random.choice(self.sessions).pid,))

    def _terminate(self, conn: psycopg.Connection) -> None:
        conn.execute("select pg_terminate_backend(%s)", (self.random.choice(self.sessions).pid,))

    def _vacuum_full(self, conn: psycopg.Connection) -> None:
        conn.execute(sql.SQL("vacuum full {}").format(self._table()))

    def _vacuum(self, conn: psycopg.Connection) -> None:
        conn.execute(sql.SQL("vacuum {}").format(self._table()))

    def _table(self) -> sql.Identifier:
        return sql.Identifier("flashsale_data", self.random.choice(TABLES))
