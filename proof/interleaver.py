"""Runs schedules: transactions of one request each, over real connections, in every order of their steps."""

import itertools
import select
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import psycopg
from psycopg import IsolationLevel

from proof.clock_shift import TICK
from proof.model import PRICE, Model, Response
from proof.requests import NOT_SERIALIZABLE, Call, receive, send
from proof.serial_orders import explain, one_by_one
from proof.situations import OF_TESTS, Situation
from proof.tables import EMPTY, keep_plan, state
from tests.support.sql_calls import change_settings, create_product, next_order_id

BEGIN, REQUEST, COMMIT = range(3)
STEPS = ("begin", "request", "commit")


def schedules(sessions: int, begun: bool) -> list[tuple[int, ...]]:
    """Every order of the sessions' steps; with `begun`, of those after BEGIN, which all take first."""
    steps = COMMIT if begun else COMMIT + 1
    turns = sorted(session for session in range(sessions) for _ in range(steps))
    first = tuple(range(sessions)) if begun else ()
    return [first + order for order in distinct_orders(turns)]


def distinct_orders(turns: list[int]) -> Iterator[tuple[int, ...]]:
    if not turns:
        yield ()
    for session in sorted(set(turns)):
        rest = turns.copy()
        rest.remove(session)
        for order in distinct_orders(rest):
            yield session, *order


class Session:
    """A connection whose request may wait for a lock."""

    def __init__(self, conn: psycopg.Connection, watcher: psycopg.Connection) -> None:
        self.conn = conn
        self.watcher = watcher
        self.pid = conn.info.backend_pid
        self.steps_taken = 0
        self.call: Call
        self.response: Response
        self.waits = False

    def start(self, call: Call) -> None:
        self.steps_taken = 0
        self.call = call

    def step(self, level: IsolationLevel) -> None:
        match self.steps_taken:
            case 0:
                self.conn.execute(f"begin isolation level {level.name.replace('_', ' ')}; select 1")
            case 1:
                send(self.conn, self.call)
                self.waits = True
                self.poll()
            case 2:
                try:
                    self.conn.execute("commit")
                except psycopg.errors.SerializationFailure:
                    self.response = NOT_SERIALIZABLE
        self.steps_taken += 1

    def poll(self) -> None:
        """Return when the response is there, or the request waits for a lock."""
        pgconn = self.conn.pgconn
        timeout = 0.003
        while True:
            if select.select([pgconn.socket], [], [], timeout)[0]:
                pgconn.consume_input()
                if not pgconn.is_busy():
                    (self.response,) = receive(self.conn, self.call)
                    self.waits = False
                    return
            elif self.is_blocked():
                return
            timeout = 0.001

    def is_blocked(self) -> bool:
        return self.watcher.execute("select pg_blocking_pids(%s) <> '{}'", (self.pid,)).fetchone()[0]


class Interleaver:
    """Runs schedules, each from the same situation."""

    def __init__(self, db: psycopg.Connection, connect: Callable[..., psycopg.Connection]) -> None:
        self.db = db
        self.sessions = [Session(connect(), db) for _ in range(4)]
        for session in self.sessions:
            # Deadlocks are detected at once, and no statement hangs.
            session.conn.execute("set deadlock_timeout = '20ms'; set statement_timeout = '20s'")
        self.schedules = self.not_serializable = self.waits = 0
        keep_plan(db)
        for name in ("products", *TABLES):
            db.execute(f"create table proof.{name} (like flashsale_data.{name})")

    def prepare(self, make: Callable[..., Situation], *, is_test: bool = False) -> Situation:
        """A situation, which every schedule starts from until the next one.

        :param is_test: its product is a test product
        """
        self.db.execute(f"{EMPTY}; select setval('flashsale_data.order_ids', 1)")
        model = Model()
        change_settings(
            self.db, hold_time=f"{model.hold_ticks * TICK} s", payment_window=f"{model.order_ticks * TICK} s",
            inbox_keep=f"{model.keep_ticks * TICK} s", extension_time=f"{model.extension_ticks * TICK} s",
        )  # fmt: skip
        product = create_product(self.db, stock=6, is_test=is_test)
        model.totals[product] = 6
        model.tests = {product} if is_test else set()
        situation = make(self.db, model, product)
        query = "select expires_at::text from flashsale_data.holds where hold_id = %s"
        situation.seen = self.db.execute(query, (situation.hold,)).fetchone()[0]
        for name in ("products", *TABLES):
            self.db.execute(f"truncate proof.{name}; insert into proof.{name} table flashsale_data.{name}")
        self.next_order = next_order_id(self.db)
        self.db.execute("vacuum")
        return situation

    def run(self, situation: Situation, names: Sequence[str], level: IsolationLevel, begun: bool) -> None:
        calls = [OF_TESTS[name](situation) for name in names]
        impossible: tuple[int, ...] | None = None
        for schedule in schedules(len(names), begun):
            if impossible is None or schedule[: len(impossible)] != impossible:
                impossible = self.run_schedule(situation, calls, schedule, level)

    def run_schedule(
        self, situation: Situation, calls: Sequence[Call], schedule: Sequence[int], level: IsolationLevel
    ) -> tuple[int, ...] | None:
        """The prefix of the schedule that is impossible, if any."""
        self.db.execute(f"{REFILL}; select setval('flashsale_data.order_ids', {self.next_order}, false)")
        sessions = self.sessions[: len(calls)]
        for session, call in zip(sessions, calls, strict=True):
            session.start(call)
        impossible = None
        for i, turn in enumerate(schedule):
            if sessions[turn].waits:
                impossible = tuple(schedule[: i + 1])
                break
            sessions[turn].step(level)
            self.waits += sessions[turn].waits
            if sessions[turn].steps_taken > COMMIT:
                for session in sessions:
                    if session.waits:
                        session.poll()
        if impossible:
            self.finish(sessions)
            return impossible
        self.check(situation, calls, schedule, level)
        return None

    def finish(self, sessions: Sequence[Session]) -> None:
        """Roll back the sessions that do not wait, until all are done."""
        while any(session.waits or session.conn.info.transaction_status for session in sessions):
            for session in sessions:
                if session.waits:
                    session.poll()
                elif session.conn.info.transaction_status:
                    session.conn.execute("rollback")

    def check(
        self, situation: Situation, calls: Sequence[Call], schedule: Sequence[int], level: IsolationLevel
    ) -> None:
        keeps_snapshot = level > IsolationLevel.READ_COMMITTED
        exchanges = []
        steps = []
        taken = Counter()
        for turn in schedule:
            steps.append(f"{turn + 1} {STEPS[taken[turn]]}")
            taken[turn] += 1
            if taken[turn] > COMMIT:
                (request,) = calls[turn].requests
                exchanges.append((request, self.sessions[turn].response))
        found = state(self.db)
        what = f"{level.name}: {', '.join(steps)}: in order of commit {exchanges}, and then {found}"
        assert found["wrong"] == {}, what
        failed = NOT_SERIALIZABLE in [response for _, response in exchanges]
        # At READ COMMITTED BEGIN takes no snapshot.
        turns = schedule if keeps_snapshot else schedule[len(calls) :]
        serial = len(list(itertools.groupby(turns))) == len(calls)
        assert not failed or (keeps_snapshot and not serial), what
        if keeps_snapshot:
            removals = [response for request, response in exchanges if request.function in REMOVALS]
            assert removals == ["SA009"] * len(removals), what
            exchanges = [each for each in exchanges if each[0].function not in REMOVALS]
        if serial:
            assert one_by_one(situation.model, exchanges, found), f"not as in the contract: {what}"
        else:
            assert explain(situation.model, [[each] for each in exchanges], found), f"no serial order: {what}"
        self.schedules += 1
        self.not_serializable += failed


TABLES = (
    *("stock", "holds", "orders", "payments", "lapses", "events", "inbox", "settings", "ledger_carried"),
    *("operations", "rejected_webhooks", "rejection_counter", "purge_state", "claims"),
    *("refunds", "awaited_payments"),
)
REMOVALS = ("purge", "forget_tests", "begin_refunds", "cancel_sale")
"""functions that are refused above READ COMMITTED"""
TERMS = (
    *("starts_at", "ends_at", "paused", "cancelled", "max_per_buyer", "max_per_hold", "limit_group"),
    "has_terms",
)
REFILL = "; ".join(
    [
        *(f"delete from flashsale_data.{name}" for name in (*TABLES[2:], "holds", "stock")),
        # forget_tests() may have deleted it.
        "insert into flashsale_data.products overriding system value"
        " select p.* from proof.products p"
        " where not exists (select from flashsale_data.products q where q.product_id = p.product_id)",
        *(f"insert into flashsale_data.{name} table proof.{name}" for name in TABLES),
        f"update flashsale_data.products set price = {PRICE}.00 where price <> {PRICE}",
        f"update flashsale_data.products p set {', '.join(f'{name} = s.{name}' for name in TERMS)}"
        " from proof.products s where s.product_id = p.product_id and (p.has_terms or s.has_terms)",
    ]
)
