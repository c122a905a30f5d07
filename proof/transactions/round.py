"""One round: ten sessions, the observers and the fault injector for some seconds, then every rule."""

import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psycopg
from psycopg import sql

from proof.transactions.history import History, Violation
from proof.transactions.ledger import Ledger
from proof.transactions.observers import FaultInjector, Observers
from proof.transactions.oracle import RULES
from proof.transactions.requests import open_shop
from proof.transactions.session import Mix, Session
from proof.transactions.state import State, read_state, reset
from tests.support import sql_calls as calls

SESSIONS = 10
SECONDS_UNTIL_ALL_LAPSED = 1.8
"""seconds; longer than a hold, an order or the wait of a webhook lasts"""
MOST_SWEEPS = 100
MOST_LINES = 60
"""of the history of a violation; the latest"""


@dataclass(frozen=True)
class Round:
    """A round that is over: no transaction is open, and everything due has been swept.

    :param injected: the faults, and how often each was injected
    :param unexpected_ends: transactions that did not end as acknowledged
    """

    seed: str
    history: History
    observers: Observers
    injected: Counter[str]
    unexpected_ends: list[Violation]

    def violations(self, conn: psycopg.Connection) -> list[Violation]:
        """Every rule that the tables or the history break."""
        state = read_state(conn)
        return [
            *self.unexpected_ends,
            *(violation for rule in RULES for violation in rule(self.history, state)),
            *Ledger(state).violations(),
            *_observed(self.observers, state),
            *_available(conn, state),
        ]

    def report(self, violations: list[Violation]) -> str:
        """The violations, each with the history of its resources."""
        lines = [f"seed {self.seed}: {len(violations)} violations"]
        for violation in violations:
            lines.append(f"{violation.rule}: {violation.detail}")
            lines += self.history.about(violation.subjects)[-MOST_LINES:]
        return "\n".join(lines)


def run_round(conn: psycopg.Connection, url: str, seed: str, seconds: float) -> Round:
    """Run a round in the database of `conn`, which is emptied first.

    :param seed: of all random choices; the order in which the server runs them is not repeatable
    """
    choices = random.Random(seed)
    conn.execute("set statement_timeout = '30s'")
    reset(conn)
    shop, mix = open_shop(conn, choices), Mix.draw(choices)
    sessions = [
        Session(url, f"s{number}", shop, mix, random.Random(f"{seed} {number}")) for number in range(SESSIONS)
    ]
    observers = Observers(url)
    injector = FaultInjector(url, sessions, random.Random(f"{seed} faults"))
    _run_threads(sessions, observers, injector, time.monotonic() + seconds)

    history = History(transaction for session in sessions for transaction in session.transactions)
    unexpected_ends = [*_finish_transactions(conn, history, choices)]
    if choices.random() < 0.3:
        time.sleep(SECONDS_UNTIL_ALL_LAPSED)
    _sweep(conn)
    for read in (observers.read_events, observers.read_refunds, observers.audit):
        read(conn)
    return Round(seed, history, observers, injector.injected, unexpected_ends)


def _run_threads(
    sessions: list[Session], observers: Observers, injector: FaultInjector, until: float
) -> None:
    """Run all of them until `until`. Raises what any of them did not expect."""
    reads = {observers.read_events: 0.02, observers.read_refunds: 0.01, observers.audit: 0.05}
    with ThreadPoolExecutor(len(sessions) + len(reads) + 1) as pool:
        running = [pool.submit(session.run, until) for session in sessions]
        running += [pool.submit(observers.watch, read, pause, until) for read, pause in reads.items()]
        running.append(pool.submit(injector.run, until))
        for future in running:
            future.result()


def _finish_transactions(
    conn: psycopg.Connection, history: History, choices: random.Random
) -> Iterator[Violation]:
    """Finish what is still prepared, and read the status of each transaction from the server."""
    prepared = "select gid from pg_prepared_xacts where database = current_database() order by gid"
    for (gid,) in conn.execute(prepared).fetchall():
        way = choices.choice(("commit", "rollback"))
        conn.execute(sql.SQL(f"{way} prepared {{}}").format(gid))
    for transaction in history.transactions:
        if transaction.xid is None:
            continue
        status = calls.value(conn, "select pg_xact_status(%s::xid8)", transaction.xid)
        if transaction.status == "unknown":
            transaction.status = "committed" if status == "committed" else "rolled back"
        elif (transaction.status == "committed") != (status == "committed"):
            subjects = {subject for response in transaction.responses for subject in response.subjects()}
            detail = f"{transaction} is {status}"
            yield Violation("an acknowledged end is final", detail, tuple(subjects))


def _sweep(conn: psycopg.Connection) -> None:
    """Sweep until nothing is due."""
    for _ in range(MOST_SWEEPS):
        if calls.expire_due(conn) == 0:
            return
    raise AssertionError(f"something is still due after {MOST_SWEEPS} sweeps")


def _observed(observers: Observers, state: State) -> Iterator[Violation]:
    """What the observers read, or missed."""
    for (check, detail), times in observers.findings.items():
        yield Violation(f"audit: {check}", f"{detail}, found {times} times")
    for key, detail in observers.lost_refunds.items():
        yield Violation("a refund stays due", detail, (("webhook", key),))
    read = [event.event_id for event in observers.events]
    if read != sorted(set(read)):
        yield Violation("events are read once, in ascending order", f"{read}")
    # An event may be removed before it is read.
    if missed := {event["event_id"] for event in state.events} - set(read):
        yield Violation("each event is read", f"{sorted(missed)} were not")
    if unknown := set(read) - {event["event_id"] for event in state.ledger}:
        yield Violation("only committed events are read", f"{sorted(unknown)} are not committed")


def _available(conn: psycopg.Connection, state: State) -> Iterator[Violation]:
    """get_product() agrees with the rows. Units may come back while it is called."""
    for product, stock in state.stock.items():
        held = [row for row in state.holds.values() if row["status"] == "active"]
        pending = [row for row in state.orders.values() if row["status"] == "pending_payment"]
        lapses = [(row["product_id"], row["qty"], row["expires_at"]) for row in held]
        lapses += [(row["product_id"], row["qty"], row["payment_due_at"]) for row in pending]
        paid = sum(
            row["qty"]
            for row in state.orders.values()
            if row["product_id"] == product and row["status"] == "paid"
        )
        unlapsed = stock["total_stock"] - paid
        before = unlapsed - sum(qty for of, qty, at in lapses if of == product and at > time.time())
        answered = calls.available(conn, product)
        after = unlapsed - sum(qty for of, qty, at in lapses if of == product and at > time.time())
        if not before <= answered <= after:
            detail = f"product {product} has {before} to {after} units, and get_product says {answered}"
            yield Violation("available stock is as answered", detail, (("product", product),))
