"""Sessions that run random transactions and record their history."""

import random
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import psycopg
from psycopg import sql

from proof.transactions.history import Response, Transaction
from proof.transactions.requests import SCALAR, SET_BASED, Prepared, Requests, Shop

READ_COMMITTED, REPEATABLE_READ, SERIALIZABLE = "read committed", "repeatable read", "serializable"
ABOVE = (REPEATABLE_READ, SERIALIZABLE)

STEPS = {
    "place": 4, "order": 5, "release": 2, "pay": 5, "store": 3, "replay": 2, "reuse": 2,
    "sweep": 1, "purge": 0.5, "settings": 0.7, "adjust": 1, "sleep": 0.7,
}  # fmt: skip
"""the steps of a random transaction, and how often each is taken"""
SCENARIOS = {
    "random": 9, "purchase": 5, "return": 1, "stored webhook": 3, "stored webhook, slow order": 2,
    "reused key": 3, "slow settings": 0.6, "cancelled, then paid": 1.5, "old snapshot": 1.5, "purge": 0.5,
    "restock": 1,
}  # fmt: skip
SLEEP_SECONDS = (0.02, 0.4)
LONG_SLEEP_SECONDS = (0.8, 2.2)
"""seconds; longer than a hold, an order or a stored webhook may last"""
PREPARED = (0.0, 0.0, 0.3, 1.4)
"""seconds, at most, until a prepared transaction is finished"""


@dataclass(frozen=True)
class Mix:
    """The weights of a round. Each round draws its own and leaves some steps out, so that a rare step is
    frequent in some rounds, and a step that hides the effect of another is missing in some."""

    steps: dict[str, float]
    scenarios: dict[str, float]

    @classmethod
    def draw(cls, choices: random.Random) -> "Mix":
        steps = {step: weight * choices.choice((0.3, 1, 1, 2)) for step, weight in STEPS.items()}
        for step in ("sweep", "settings", "purge"):
            steps[step] *= choices.choice((0, 0.3, 1))
        scenarios = {name: weight * choices.choice((0.5, 1, 2)) for name, weight in SCENARIOS.items()}
        return cls(steps, scenarios)


class Abort(Exception):
    """The transaction is over: its session rolls it back, or the server has aborted it."""


class Session:
    """One connection that runs transactions.

    :param url: the database
    :param name: the prefix of its keys and of the ids of its prepared transactions
    """

    def __init__(self, url: str, name: str, shop: Shop, mix: Mix, choices: random.Random) -> None:
        self.url = url
        self.name = name
        self.shop = shop
        self.mix = mix
        self.random = choices
        self.requests = Requests(name, shop, choices)
        self.transactions: list[Transaction] = []
        self.connect()

    def connect(self) -> None:
        """Open a connection on which every wait is bounded."""
        options = "-c statement_timeout=5s -c lock_timeout=1s -c deadlock_timeout=30ms"
        self.conn = psycopg.connect(self.url, autocommit=True, options=options)
        self.pid = self.conn.info.backend_pid

    def run(self, until: float) -> None:
        """Run one scenario after the other until time.monotonic() is `until`."""
        names, weights = list(self.mix.scenarios), list(self.mix.scenarios.values())
        while time.monotonic() < until:
            if prepared := self.shop.take_prepared():
                self.finish_prepared(prepared)
            (name,) = self.random.choices(names, weights)
            for level, steps in self.scenario(name):
                if time.monotonic() < until:
                    self.transact(level, steps)
        self.conn.close()

    def scenario(self, name: str) -> Iterator[tuple[str, list[str]]]:
        """The isolation level and the steps of each transaction."""
        level = self.random.choices((READ_COMMITTED, *ABOVE), (6, 2, 1))[0]
        match name:
            case "purchase":
                yield READ_COMMITTED, ["place"]
                yield level, ["order own"]
                yield level, [self.random.choice(("pay own", "pay own", "pay own", "cancel own"))]
            case "return":
                yield READ_COMMITTED, ["place"]
                yield level, ["release own"]
            case "stored webhook":
                yield READ_COMMITTED, ["store"]
            case "stored webhook, slow order":
                yield READ_COMMITTED, ["place"]
                yield READ_COMMITTED, ["store"]
                yield level, ["order own", "long sleep"]
            case "reused key":
                yield READ_COMMITTED, ["place"]
                yield READ_COMMITTED, ["order own"]
                yield READ_COMMITTED, ["reuse"]
                yield READ_COMMITTED, ["reuse"]
            case "slow settings":
                yield READ_COMMITTED, ["settings", "long sleep"]
            case "cancelled, then paid":
                yield READ_COMMITTED, ["place"]
                yield READ_COMMITTED, ["order own"]
                yield READ_COMMITTED, ["cancel own"]
                yield level, ["sleep", "pay own"]
            case "old snapshot":
                last = self.random.choice(("purge", "purge", "purge", "order", "replay", "place", "release"))
                yield self.random.choice(ABOVE), ["read", "sleep", last]
            case "purge" | "restock":
                yield READ_COMMITTED, [name]
            case _:
                steps, weights = list(self.mix.steps), list(self.mix.steps.values())
                yield level, self.random.choices(steps, weights, k=self.random.choice((1, 1, 1, 2, 3, 4, 5)))

    # --- one transaction ---

    def transact(self, level: str, steps: list[str]) -> None:
        """Run one transaction to its end, which may come early."""
        self.transaction = Transaction(self.name, level, time.time())
        self.transactions.append(self.transaction)
        try:
            self.conn.execute(f"begin isolation level {level}")
            self.set_timeouts()
            for step in steps:
                self.take(step, savepoint=len(steps) > 1 and self.random.random() < 0.3)
            self.end()
        except Abort:
            pass
        except psycopg.Error as error:
            self.record_failure("transaction", [()], error, time.time())
        if not self.conn.closed:
            with suppress(psycopg.Error):
                self.conn.execute("rollback")
        if self.conn.closed:
            self.connect()

    def set_timeouts(self) -> None:
        """Random timeouts, some shorter than a call."""
        if self.random.random() < 0.5:
            self.conn.execute(f"set local lock_timeout = {self.random.randint(20, 1600)}")
        if self.random.random() < 0.08:
            self.conn.execute(f"set local statement_timeout = {self.random.randint(15, 400)}")

    def take(self, step: str, savepoint: bool) -> None:
        """Take one step, inside a savepoint if asked to; a savepoint is rolled back to, released or left."""
        if not savepoint:
            self.step(step)
            return
        self.conn.execute("savepoint s")
        before = len(self.transaction.responses)
        try:
            self.step(step)
        except Abort:
            if self.conn.closed:
                raise
            way = "rollback to"
        else:
            way = self.random.choice(("rollback to", "release", "leave"))
        if way == "leave":
            return
        self.conn.execute(f"{way} savepoint s")
        if way == "rollback to":
            for response in self.transaction.responses[before:]:
                response.rolled_back = True

    def end(self) -> None:
        """COMMIT, ROLLBACK or PREPARE TRANSACTION. The status stays unknown until it is acknowledged."""
        transaction = self.transaction
        way = self.random.choices(("commit", "rollback", "prepare"), (17, 2, 1))[0]
        if way == "rollback":
            raise Abort
        transaction.xid = self.conn.execute("select pg_current_xact_id_if_assigned()::text").fetchone()[0]
        transaction.status = "unknown"
        if way == "prepare" and transaction.xid is not None:
            gid = f"{self.name} {len(self.transactions)}"
            self.conn.execute(sql.SQL("prepare transaction {}").format(gid))
            due = time.monotonic() + self.random.uniform(0, self.random.choice(PREPARED))
            with self.shop.lock:
                self.shop.prepared.append(Prepared(gid, transaction, due))
        else:
            self.conn.execute("commit")
            transaction.status, transaction.committed_at = "committed", time.time()

    def finish_prepared(self, prepared: Prepared) -> None:
        """Commit or roll back a prepared transaction of any session. After a failure another attempt
        follows, unless it has ended; its status stays unknown until then."""
        way = self.random.choice(("commit", "commit", "rollback"))
        try:
            self.conn.execute(sql.SQL(f"{way} prepared {{}}").format(prepared.gid))
        except psycopg.errors.UndefinedObject:
            return
        except psycopg.Error:
            if self.conn.closed:
                self.connect()
            with self.shop.lock:
                self.shop.prepared.append(prepared)
            return
        if way == "commit":
            prepared.transaction.status, prepared.transaction.committed_at = "committed", time.time()
        else:
            prepared.transaction.status = "rolled back"

    # --- one step ---

    def step(self, name: str) -> None:
        """Sleep, or make one call."""
        if name in ("sleep", "long sleep"):
            time.sleep(self.random.uniform(*(SLEEP_SECONDS if name == "sleep" else LONG_SLEEP_SECONDS)))
            return
        function, request = self.requests.request(self.conn, name)
        requests = [request]
        if name == "store":
            requests += [self.requests.request(self.conn, name)[1] for _ in range(3)]
        elif function in SET_BASED and self.random.random() < 0.2:
            # A call with a repeated request, and with one that may want the same locks.
            more = self.random.choice((name, name.removesuffix(" own")))
            requests += [self.requests.request(self.conn, more)[1], self.random.choice(requests)]
        self.call(function, requests)

    def call(self, function: str, requests: list[tuple]) -> None:
        """Call the set-based form for several requests, and at times for one."""
        began = time.time()
        self.transaction.calls += 1
        set_based = len(requests) > 1 or (function in SET_BASED and self.random.random() < 0.2)
        try:
            if set_based:
                outcomes = [row.sqlstate or row for row in SET_BASED[function](self.conn, *requests)]
            else:
                outcomes = [SCALAR[function](self.conn, *requests[0])]
        except psycopg.Error as error:
            self.record_failure(function, requests, error, began)
            if self.random.random() < 0.05 and not self.conn.closed:
                self.call(function, requests)
            raise Abort from None
        for request, outcome in zip(requests, outcomes, strict=True):
            response = Response(function, request, outcome, began, time.time())
            self.transaction.responses.append(response)
            if response.succeeded:
                self.requests.remember(function, request, outcome)

    def record_failure(
        self, function: str, requests: list[tuple], error: psycopg.Error, began: float
    ) -> None:
        """Record a failed call. psycopg has no SQLSTATE for a connection that was cut."""
        state = error.sqlstate or ("57P01" if self.conn.closed else repr(error))
        for request in requests:
            self.transaction.responses.append(
                Response(function, request, state, began, time.time(), rolled_back=True)
            )
