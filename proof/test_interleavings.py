"""Every interleaving of two and of three transactions, over real connections, at each isolation level.

A transaction is three steps: begin (and take a snapshot), one request, commit. A schedule is an order of the
steps of all. A step that cannot be taken yet, since its session waits for a lock, makes a schedule
impossible: the schedule that lets the other go first is another one. (This is what keeps PostgreSQL's own
isolationtester from the job: it wants the impossible ones left out by whoever writes the specification.)
"""

import itertools
import select
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import psycopg
import pytest
from psycopg import IsolationLevel

from proof.campaign import Campaign
from proof.clock_shift import TICK, move_on
from proof.model import Answer, Model
from proof.requests import NOT_SERIALIZABLE, Call, alone, ask, receive, send
from proof.serial_orders import answered, explain, one_by_one
from proof.tables import EMPTY, keep_plan, state
from tests.support.sql_calls import change_settings, create_product, next_order_id

LEVELS = list(IsolationLevel)[1:]
SHORTER = 4
"""ticks"""
FAILED_EARLY = "failed early"
"""a webhook's key"""
BEGIN, REQUEST, COMMIT = range(3)
NAMES = ("begin", "asks", "commits")


@dataclass
class Shop:
    """A product with a hold, the order that the webhooks are about, and how many units a buyer wants; the
    order that the early failed webhook's key is used again for."""

    model: Model
    product: int
    hold: int
    order: int
    wanted: int
    other: int


# --- what they start from ---


def in_time(db: psycopg.Connection, model: Model, product: int) -> Shop:
    """2 of 6 units are available, and a buyer wants 3; the order awaits payment."""
    order = made(db, model, "create_order", made(db, model, "place_hold", product, 2, None)["hold_id"], None)
    hold = made(db, model, "place_hold", product, 2, None)["hold_id"]
    return Shop(model, product, hold, order["order_id"], 3, order["order_id"])


def late(db: psycopg.Connection, model: Model, product: int) -> Shop:
    """The order is overdue and a hold has lapsed, both not marked; a buyer wants all that is available."""
    order = made(db, model, "create_order", made(db, model, "place_hold", product, 2, None)["hold_id"], None)
    made(db, model, "place_hold", product, 1, None)
    move_on(db, model.order_ticks)
    model.tick(model.order_ticks)
    hold = made(db, model, "place_hold", product, 2, None)["hold_id"]
    return Shop(model, product, hold, order["order_id"], 4, order["order_id"])


def unborn(db: psycopg.Connection, model: Model, product: int) -> Shop:
    """The webhooks are about the order that the hold will become; all is held, and a buyer wants 2."""
    made(db, model, "place_hold", product, 4, None)
    hold = made(db, model, "place_hold", product, 2, None)["hold_id"]
    coming = next_order_id(db)
    return Shop(model, product, hold, coming, 2, coming)


def waited(db: psycopg.Connection, model: Model, product: int) -> Shop:
    """As unborn, but a success and a failed webhook have waited too long for the order, which is not marked;
    a second success still waits, unless inbox_keep is shortened. Another order awaits payment, and 2 of 6
    units are available."""
    return after_waits(
        db, model, product, over={FAILED_EARLY: "failed", "paid early": "success"},
        waiting={"paid again early": "success"}, waits=SHORTER + 1,
    )  # fmt: skip


def declined(db: psycopg.Connection, model: Model, product: int) -> Shop:
    """As waited, but without a success, and what waits goes on waiting if inbox_keep is shortened: the order
    is cancelled when it is created."""
    return after_waits(
        db, model, product, over={FAILED_EARLY: "failed"}, waiting={"cancelled early": "cancelled"},
        waits=SHORTER - 1,
    )  # fmt: skip


def refused(db: psycopg.Connection, model: Model, product: int) -> Shop:
    """As waited, but with the failed webhook alone."""
    return after_waits(db, model, product, over={FAILED_EARLY: "failed"}, waiting={}, waits=0)


def after_waits(
    db: psycopg.Connection,
    model: Model,
    product: int,
    *,
    over: dict[str, str],
    waiting: dict[str, str],
    waits: int,
) -> Shop:
    """`over` and `waiting` are words by key of webhooks for the coming order; the latter came `waits` ticks
    ago."""
    coming = next_order_id(db) + 1
    for words, ticks in ((over, model.keep_ticks - waits), (waiting, waits)):
        for key, word in words.items():
            made(db, model, "apply_payment", key, coming, word, None, None)
        move_on(db, ticks)
        model.tick(ticks)
    other = made(db, model, "create_order", made(db, model, "place_hold", product, 2, None)["hold_id"], None)
    hold = made(db, model, "place_hold", product, 2, None)["hold_id"]
    assert next_order_id(db) == coming
    return Shop(model, product, hold, coming, 3, other["order_id"])


SHOPS = (in_time, late, unborn, waited, declined)
STALE = (waited, declined)
"""shops with early webhooks whose wait is over"""


def made(db: psycopg.Connection, model: Model, function: str, *args: object) -> Answer:
    call = alone(function, *args)
    (seen,) = ask(db, call)
    assert answered(model, call.requests[0], seen) == seen
    return seen


# --- what they do ---

OPERATIONS: dict[str, Callable[[Shop], Call]] = {
    "place_hold": lambda shop: alone("place_hold", shop.product, shop.wanted, "cart"),
    "release": lambda shop: alone("release_hold", shop.hold),
    "create_order": lambda shop: alone("create_order", shop.hold, "checkout"),
    "success": lambda shop: alone("apply_payment", "pays", shop.order, "success", None, None),
    "failed": lambda shop: alone("apply_payment", "fails", shop.order, "failed", None, None),
    "cancelled": lambda shop: alone("apply_payment", "cancels", shop.order, "cancelled", None, None),
    "sweep": lambda shop: alone("expire_due", 1000),
    "adjust_stock": lambda shop: alone("adjust_stock", shop.product, -2),
    "second success": lambda shop: alone("apply_payment", "pays again", shop.order, "success", None, None),
    "purge": lambda shop: alone("purge"),
    "shorter inbox_keep": lambda shop: alone("change_settings", SHORTER),
    "adjust_stock to zero": lambda shop: alone(
        "adjust_stock", shop.product, -shop.model.available(shop.product)
    ),
    "key reused": lambda shop: alone("apply_payment", FAILED_EARLY, shop.other, "success", None, None),
    "early replay": lambda shop: alone("apply_payment", FAILED_EARLY, shop.order, "failed", None, None),
}
# Two of a kind are one request and its replay.
PAIRS = list(itertools.combinations_with_replacement(OPERATIONS, 2))
TRIPLES = list(itertools.combinations(list(OPERATIONS)[:8], 3))
OF_THE_INBOX = (
    *("create_order", "success", "sweep", "purge"),
    *("shorter inbox_keep", "key reused", "early replay"),
)
INBOX_PAIRS = list(itertools.combinations(OF_THE_INBOX, 2))
INBOX_TRIPLES = list(itertools.combinations(OF_THE_INBOX, 3))


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
    """A connection that can be left waiting."""

    def __init__(self, conn: psycopg.Connection, watcher: psycopg.Connection) -> None:
        self.conn = conn
        self.watcher = watcher
        self.pid = conn.info.backend_pid
        self.steps_taken = 0
        self.call: Call
        self.answer: Answer
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
                self.look()
            case 2:
                try:
                    self.conn.execute("commit")
                except psycopg.errors.SerializationFailure:
                    self.answer = NOT_SERIALIZABLE
        self.steps_taken += 1

    def look(self) -> None:
        """Return when the request is answered, or waits for a lock."""
        pgconn = self.conn.pgconn
        patience = 0.003
        while True:
            if select.select([pgconn.socket], [], [], patience)[0]:
                pgconn.consume_input()
                if not pgconn.is_busy():
                    (self.answer,) = receive(self.conn, self.call)
                    self.waits = False
                    return
            elif self.is_blocked():
                return
            patience = 0.001

    def is_blocked(self) -> bool:
        return self.watcher.execute("select pg_blocking_pids(%s) <> '{}'", (self.pid,)).fetchone()[0]


class Interleaver:
    """Takes schedules, each from the same shop."""

    def __init__(self, db: psycopg.Connection, connect: Callable[..., psycopg.Connection]) -> None:
        self.db = db
        self.sessions = [Session(connect(), db) for _ in range(4)]
        for session in self.sessions:
            # A deadlock is to be found at once, and nothing hangs.
            session.conn.execute("set deadlock_timeout = '20ms'; set statement_timeout = '20s'")
        self.tried = self.undone = self.waited = 0
        keep_plan(db)
        for name in TABLES:
            db.execute(f"create table proof.{name} (like flashsale_data.{name})")

    def open(self, kind: Callable[..., Shop]) -> Shop:
        """A new shop, which every schedule begins with from now on."""
        self.db.execute(f"{EMPTY}; select setval('flashsale_data.order_ids', 1)")
        model = Model()
        change_settings(
            self.db, hold_time=f"{model.hold_ticks * TICK} s", payment_window=f"{model.order_ticks * TICK} s",
            inbox_keep=f"{model.keep_ticks * TICK} s",
        )  # fmt: skip
        product = create_product(self.db, stock=6)
        model.totals[product] = 6
        shop = kind(self.db, model, product)
        for name in TABLES:
            self.db.execute(f"truncate proof.{name}; insert into proof.{name} table flashsale_data.{name}")
        self.next_order = next_order_id(self.db)
        self.db.execute("vacuum")
        return shop

    def run(self, shop: Shop, names: Sequence[str], level: IsolationLevel, begun: bool) -> None:
        calls = [OPERATIONS[name](shop) for name in names]
        impossible: tuple[int, ...] | None = None
        for schedule in schedules(len(names), begun):
            if impossible is None or schedule[: len(impossible)] != impossible:
                impossible = self.take(shop, calls, schedule, level)

    def take(
        self, shop: Shop, calls: Sequence[Call], schedule: Sequence[int], level: IsolationLevel
    ) -> tuple[int, ...] | None:
        """The beginning of the schedule that turned out to be impossible, if any."""
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
            self.waited += sessions[turn].waits
            if sessions[turn].steps_taken > COMMIT:
                for session in sessions:
                    if session.waits:
                        session.look()
        if impossible:
            self.finish(sessions)
            return impossible
        self.judge(shop, calls, schedule, level)
        return None

    def finish(self, sessions: Sequence[Session]) -> None:
        """Let those go that need not wait, until all are done."""
        while any(session.waits or session.conn.info.transaction_status for session in sessions):
            for session in sessions:
                if session.waits:
                    session.look()
                elif session.conn.info.transaction_status:
                    session.conn.execute("rollback")

    def judge(
        self, shop: Shop, calls: Sequence[Call], schedule: Sequence[int], level: IsolationLevel
    ) -> None:
        keeps = level > IsolationLevel.READ_COMMITTED
        told = []
        story = []
        taken = Counter()
        for turn in schedule:
            story.append(f"{turn + 1} {NAMES[taken[turn]]}")
            taken[turn] += 1
            if taken[turn] > COMMIT:
                (request,) = calls[turn].requests
                told.append((request, self.sessions[turn].answer))
        found = state(self.db)
        what = f"{level.name}: {', '.join(story)}: in order of commit {told}, and left {found}"
        assert found["wrong"] == {}, what
        undone = NOT_SERIALIZABLE in [answer for _, answer in told]
        # At READ COMMITTED BEGIN takes no snapshot.
        turns = schedule if keeps else schedule[len(calls) :]
        apart = len(list(itertools.groupby(turns))) == len(calls)
        assert not undone or (keeps and not apart), what
        if keeps:
            refused = [answer for request, answer in told if request.function == "purge"]
            assert refused == ["SA009"] * len(refused), what
            told = [(request, answer) for request, answer in told if request.function != "purge"]
        if apart:
            assert one_by_one(shop.model, told, found), f"the contract says otherwise than {what}"
        else:
            assert explain(shop.model, [[call] for call in told], found), f"no order of these explains {what}"
        self.tried += 1
        self.undone += undone


TABLES = ("stock", "holds", "orders", "payments", "lapses", "events", "inbox", "settings", "ledger_carried")
REFILL = "; ".join(
    [
        *(f"delete from flashsale_data.{name}" for name in (*TABLES[2:], "holds", "stock")),
        *(f"insert into flashsale_data.{name} table proof.{name}" for name in TABLES),
    ]
)


@pytest.fixture
def interleaver(db: psycopg.Connection, connect: Callable[..., psycopg.Connection]) -> Interleaver:
    return Interleaver(db, connect)


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name.lower())
def test_every_interleaving_is_some_serial_order(
    interleaver: Interleaver, campaign: Campaign, level: IsolationLevel
) -> None:
    """At READ COMMITTED nothing is undone; above it 40001 may be the answer."""
    # A snapshot is only then older than its request where the level keeps it.
    keeps = level > IsolationLevel.READ_COMMITTED
    for kind in SHOPS:
        shop = interleaver.open(kind)
        pairs, triples = (INBOX_PAIRS, INBOX_TRIPLES) if kind in STALE else (PAIRS, TRIPLES)
        for names in campaign.size(campaign.random.sample(pairs, 3), PAIRS):
            interleaver.run(shop, names, level, begun=not keeps)
        for names in campaign.size([], triples):
            interleaver.run(shop, names, level, begun=True)
    assert interleaver.waited > 0
    assert (interleaver.undone > 0) == keeps
    campaign.tried(
        f"{interleaver.tried:,} interleavings at {level.name.replace('_', ' ')}: {len(PAIRS)} pairs of"
        f" {', '.join(OPERATIONS)}, each in {len(SHOPS)} situations; {len(TRIPLES)} triples of"
        f" {', '.join(list(OPERATIONS)[:8])}, each in {len(SHOPS) - len(STALE)} of them; {len(INBOX_TRIPLES)}"
        f" triples of {', '.join(OF_THE_INBOX)} in each of the {len(STALE)} where early webhooks have waited"
        " too long",
        f"all; {interleaver.undone:,} with a 40001" if keeps else "all; no deadlock",
    )


def test_a_purge_leaves_an_order_whose_webhook_is_still_to_be_ended(
    interleaver: Interleaver, campaign: Campaign
) -> None:
    """The webhook's wait is over, but it is locked when the order is created."""
    level = IsolationLevel.READ_COMMITTED
    names = ("shorter inbox_keep", "create_order", "failed", "purge")
    shop = interleaver.open(refused)
    if campaign.full:
        interleaver.run(shop, names, level, begun=True)
    else:
        calls = [OPERATIONS[name](shop) for name in names]
        for last in ((3, 3, 0), (0, 3, 3)):
            assert interleaver.take(shop, calls, (0, 1, 2, 3, 0, 1, 1, 2, 2, *last), level) is None
    campaign.tried(f"{interleaver.tried:,} interleavings at READ COMMITTED of {', '.join(names)}")
