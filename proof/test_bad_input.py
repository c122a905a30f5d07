"""Bad input: whatever is sent, over HTTP or to the SQL functions, no 500, no worker lost, memory flat."""

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg.pq import DiagnosticField as Field
from psycopg.pq import ExecStatus

from proof.campaign import Campaign
from proof.hostile_calls import HostileCalls
from proof.hostile_framings import ABANDONED, ABANDONED_PRODUCT, HOLD, SMUGGLED_PRODUCT, framings
from proof.hostile_requests import HOLD_IDS, HostileRequests
from proof.raw_http import JSON, Answer, Silence, Wire, chunked, request
from tests.api.test_schemathesis import make_the_examples_true, schemathesis
from tests.support.hostile_arguments import FUNCTIONS, Function, check_error, check_row, of_catalog
from tests.support.sale_steps import audit, one, order, pay, place_hold
from tests.support.waiting import wait_until

GROWTH = 16
"""MiB; more than this between the first fifth and the end would be a leak"""
CHUNK = 500
"""calls between two looks at the books"""
LAST_EVENT = "select coalesce(max(event_id), 0) from flashsale_data.events"


class Caller:
    """A session that sends arguments as bytes, as no driver would, and looks at what comes of each call."""

    def __init__(self, conn: psycopg.Connection) -> None:
        self._conn = conn
        self.served = self.refused = 0
        self.sqlstates: set[str] = set()

    def call(self, function: Function, arguments: list[bytes | None]) -> bool:
        """Call it, and check what must be so of any outcome; whether anything may have changed."""
        statement = function.statement(f"${number}" for number in range(1, len(arguments) + 1))
        result = self._conn.pgconn.exec_params(statement.encode(), arguments)
        told = (function.name, [argument and argument[:200] for argument in arguments])
        if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            said = {field: (result.error_field(field) or b"").decode(errors="replace") for field in Field}
            sqlstate = said[Field.SQLSTATE]
            check_error(
                sqlstate, said[Field.MESSAGE_PRIMARY], said[Field.MESSAGE_DETAIL], said[Field.CONTEXT], told
            )
            self.refused += 1
            self.sqlstates.add(sqlstate)
            return False
        columns = [result.fname(number) for number in range(result.nfields)]
        if b"sqlstate" not in columns:
            self.served += 1
            return True
        sqlstate, detail = columns.index(b"sqlstate"), columns.index(b"detail")
        rows = [
            (result.get_value(row, sqlstate), result.get_value(row, detail)) for row in range(result.ntuples)
        ]
        for refusal, reason in rows:
            check_row(refusal and refusal.decode(), reason and reason.decode())
        if function.names[0] == "p_request_nos":
            requests = self._conn.pgconn.exec_params(
                b"select coalesce(cardinality($1::int[]), 0)", arguments[:1]
            )
            assert len(rows) == int(requests.get_value(0, 0)), (told, "a row for each request")
        self.served += sum(refusal is None for refusal, _ in rows) > 0
        self.refused += sum(refusal is not None for refusal, _ in rows) > 0
        self.sqlstates.update(refusal.decode() for refusal, _ in rows if refusal)
        return any(refusal is None for refusal, _ in rows)


def test_hostile_arguments(
    db: psycopg.Connection, connect: Callable[..., psycopg.Connection], campaign: Campaign
) -> None:
    count = campaign.size(1_000, 100_000)
    functions = [of_catalog(db, name) for name in FUNCTIONS]
    # One without arguments can be called in one way.
    functions = [function for function in functions if function.types]
    one(db, "select flashsale.create_product('Shoe', 2147483647, 99)")
    db.execute("create role flashsale_proof_operator login in role flashsale_ops")
    try:
        conn = connect("flashsale_proof_operator")
        caller = Caller(conn)
        stand_ins: dict[str, str] = {}
        calls = HostileCalls(campaign.random, stand_ins)
        last = None
        for number in range(count):
            if number % CHUNK == 0:
                assert audit(db) == [], f"after {number} calls"
            if number % 20 == 0:
                # What the calls before may have changed to where nothing gets far.
                db.execute("select flashsale.change_settings('2 minutes', '15 minutes', 1000000, '24 hours')")
                ordered = order(db, 1)
                stand_ins |= {
                    "@held": str(place_hold(db, 1)),
                    "@used": str(place_hold(db, 1, 1, f"key {number}")),
                    "@order": str(ordered),
                }
                pay(db, ordered + 1000, key=f"early {number}")
                last = one(db, LAST_EVENT)
            function = campaign.random.choice(functions)
            arguments = calls.arguments(function)
            may_have_changed = caller.call(function, arguments)
            now = one(db, LAST_EVENT)
            assert may_have_changed or now == last, (function.name, arguments)
            last = now
        assert audit(db) == []
    finally:
        db.execute("select pg_terminate_backend(%s)", (conn.info.backend_pid,))
        db.execute("drop role flashsale_proof_operator")
    campaign.tried(
        f"{count:,} hostile calls of {len(functions)} SQL functions, something refused in {caller.refused:,}",
        f"refused only by {', '.join(sorted(caller.sqlstates))}; nothing refused left a trace",
    )


class Worker:
    """The server's one worker process, as its log and /proc tell of it."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self.pid = self._booted()

    def _booted(self) -> int:
        (pid,) = re.findall(r"Booting worker with pid: (\d+)", self._log.read_text())
        return int(pid)

    def resident(self) -> float:
        """What it has in memory, in MiB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024

    def open_files(self) -> int:
        """Sockets and all else that it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def check(self) -> None:
        """It is the one that was there at first, and nothing has gone wrong in it."""
        assert self._booted() == self.pid
        log = self._log.read_text()
        assert '"level":"error"' not in log, log[-5000:]
        assert '"level":"critical"' not in log, log[-5000:]


@pytest.fixture
def worker(server: str, tmp_path: Path) -> Iterator[Worker]:
    """The worker, which must still be there after the test."""
    worker = Worker(tmp_path / "gunicorn.log")
    yield worker
    worker.check()


@pytest.fixture
def shop(db: psycopg.Connection) -> None:
    """More units than anybody can ask for, of three products, and some holds whose ids can be guessed."""
    db.execute("select flashsale.change_settings('1 day', '1 day', 1000000, '24 hours')")
    for product in (1, ABANDONED_PRODUCT, SMUGGLED_PRODUCT):
        db.execute(f"alter table flashsale_data.products alter product_id restart with {product}")
        db.execute("select flashsale.create_product('Shoe', 2147483647, 99)")
    for hold_id in HOLD_IDS[::2]:
        made = place_hold(db, 1)
        db.execute("update flashsale_data.holds set hold_id = %s where hold_id = %s", (hold_id, made))


SERVED = {200, 201, 202, 204, 304}
REFUSED = {400, 401, 404, 405, 409, 410, 413, 415, 422, 431}


class Tally:
    """What was answered, by all threads together, and what it says has been done."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.holds: set[int] = set()
        self.orders: set[int] = set()
        self.payments = 0
        self._lock = threading.Lock()

    def add(self, answer: Answer, sent: bytes) -> None:
        """Check and count one answer."""
        said = (sent[:2000], answer)
        assert answer.status in SERVED | REFUSED | {503}, said
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", answer.headers["x-request-id"]), said
        if answer.status not in SERVED and answer.body:
            problem = answer.problem
            assert problem, said
            assert problem not in ("outcome_unknown", "internal_error"), said
        if answer.status == 503:
            assert int(answer.headers["retry-after"]) > 0, said
        with self._lock:
            self.statuses[answer.status] += 1
            if answer.status == 201:
                made = answer.json
                (self.orders if "order_id" in made else self.holds).add(
                    made.get("order_id") or made["hold_id"]
                )
            elif (
                answer.body.startswith(b'{"order_id":')
                and b'"result":"' in answer.body
                and answer.headers.get("idempotency-replayed") != "true"
            ):
                self.payments += 1

    def check(self, db: psycopg.Connection) -> None:
        """What is in the tables is what was answered, and nothing that was refused."""
        assert audit(db) == []
        made = db.execute(
            "select hold_id from flashsale_data.holds where product_id <> %s and not hold_id = any (%s)",
            (ABANDONED_PRODUCT, list(HOLD_IDS)),
        )
        assert {hold for (hold,) in made} == self.holds
        assert {made for (made,) in db.execute("select order_id from flashsale_data.orders")} == self.orders
        assert one(db, "select count(*) from flashsale_data.payments") == self.payments


def in_threads(work: Callable[[random.Random, int], None], campaign: Campaign, count: int) -> None:
    """Do `work(rng, share)` in a few threads, each with random numbers and a share of `count` of its own."""
    threads = 8
    seeds = [campaign.random.getrandbits(64) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        started = [pool.submit(work, random.Random(seed), count // threads) for seed in seeds]
        for future in started:
            future.result()


def send_well_framed(server: str, tally: Tally, rng: random.Random, count: int) -> None:
    """`count` requests on connections that are kept, a few at a time."""
    requests = HostileRequests(rng)
    unsent: list[tuple[bytes, bool]] = []
    while count > 0:
        with Wire(server) as wire:
            is_open = True
            while is_open and count > 0:
                unsent += [requests.well_framed() for _ in range(8 - len(unsent))]
                wire.send(b"".join(data for data, _ in unsent))
                # What comes after a request at which the server closes goes out again on the next connection.
                while is_open and unsent:
                    data, is_head = unsent.pop(0)
                    answer = wire.answer(to_head=is_head)
                    assert answer is not None, (data[:2000], "the server closed and said nothing")
                    tally.add(answer, data)
                    is_open = answer.headers.get("connection") != "close"
                    count -= 1


def send_spoilt(server: str, tally: Tally, rng: random.Random, count: int) -> None:
    """`count` streams, each on a connection of its own, which the server must end."""
    requests = HostileRequests(rng)
    for _ in range(count):
        data = requests.spoilt()
        with Wire(server) as wire:
            wire.send(data)
            try:
                answers = wire.answers()
            except Silence as error:
                raise AssertionError((data[:2000], "the server neither answers nor closes")) from error
            assert answers, (data[:2000], "the server closed and said nothing")
            for answer in answers:
                tally.add(answer, data)


def test_broken_framing(
    server: str, worker: Worker, shop: None, db: psycopg.Connection, campaign: Campaign
) -> None:
    tally = Tally()
    for framing in framings():
        with Wire(server) as wire:
            wire.send(framing.data)
            if not framing.closes:
                continue
            answers = wire.answers()
        assert tuple(answer.status for answer in answers) == framing.statuses, (framing.name, answers)
        for answer in answers:
            tally.add(answer, framing.data)
    tally.check(db)
    smuggled = "select count(*) from flashsale_data.holds where product_id = %s"
    assert one(db, smuggled, SMUGGLED_PRODUCT) == 0
    campaign.tried(
        f"{len(framings())} ways to break HTTP's framing, and requests smuggled in them",
        "each answered as HTTP wants it, none smuggled",
    )


def test_hostile_requests(
    server: str, worker: Worker, shop: None, db: psycopg.Connection, campaign: Campaign
) -> None:
    well_framed, spoilt = campaign.size((500, 250), (75_000, 30_000))
    tally = Tally()
    in_threads(lambda rng, share: send_well_framed(server, tally, rng, share), campaign, well_framed // 5)
    in_threads(lambda rng, share: send_spoilt(server, tally, rng, share), campaign, spoilt // 5)
    before = worker.resident()
    in_threads(lambda rng, share: send_well_framed(server, tally, rng, share), campaign, well_framed)
    in_threads(lambda rng, share: send_spoilt(server, tally, rng, share), campaign, spoilt)
    after = worker.resident()
    tally.check(db)
    assert after < before + GROWTH, (before, after)
    campaign.tried(
        f"{sum(tally.statuses.values()):,} answers to hostile HTTP requests, {spoilt:,} of broken framing",
        f"{dict(sorted(tally.statuses.items()))}; one worker, {before:.0f} MiB, then {after:.0f}",
    )


def test_clients_that_leave(
    server: str, worker: Worker, shop: None, db: psycopg.Connection, campaign: Campaign
) -> None:
    """In the middle of a request, or before its answer: it is done or not, and nothing stays open."""
    count = campaign.size(200, 10_000)
    hold = request(b"POST", b"/api/holds", JSON, ABANDONED)

    def leave(rng: random.Random, share: int) -> None:
        for _ in range(share):
            with Wire(server) as wire:
                wire.send(
                    hold * rng.choice((1, 1, 5))
                    + hold[: rng.choice((0, len(hold), rng.randrange(len(hold))))]
                )
                if rng.random() < 0.3:
                    wire.answer()
                if rng.random() < 0.5:
                    wire.reset()

    leave(campaign.random, 20)
    files, before = worker.open_files(), worker.resident()
    in_threads(leave, campaign, count)
    wait_until(lambda: worker.open_files() <= files, "all connections are closed")
    after = worker.resident()
    assert audit(db) == []
    assert after < before + GROWTH, (before, after)
    campaign.tried(
        f"{count:,} clients that left before their answers",
        f"books balance, no socket stays open; {before:.0f} MiB, then {after:.0f}",
    )


def test_slow_and_huge_bodies(
    server: str, worker: Worker, shop: None, db: psycopg.Connection, campaign: Campaign
) -> None:
    """Slow ones are given up after ten seconds, huge ones at the limit, and nobody else waits for either."""
    if not campaign.full:
        pytest.skip("takes its ten seconds; in small, tests/api/test_problems.py has one")
    slow, huge = 300, 1_000
    head = b"POST /api/holds HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    drips = [
        head[:-2],  # its head never ends
        head + b"Content-Length: 10000\r\n\r\n" + b" ",
        head + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n",
    ]
    more = [b"X", b" ", b"1\r\n \r\n"]
    latencies = []
    tally = Tally()
    wires = [Wire(server) for _ in range(slow)]
    try:
        for number, wire in enumerate(wires):
            wire.send(drips[number % 3])
        began = time.monotonic()
        before = worker.resident()
        with Wire(server) as other:
            sent = 0
            while time.monotonic() < began + 9:
                for number, wire in enumerate(wires):
                    wire.send(more[number % 3])
                asked = time.monotonic()
                other.send(request(b"POST", b"/api/holds", JSON, HOLD))
                tally.add(other.answer(), HOLD)
                latencies.append(time.monotonic() - asked)
                with Wire(server) as big:
                    big.send(head + (b"Content-Length: %d\r\n\r\n" % 10**10) + b"[" * 100_000)
                    assert big.answer().status == 413
                if sent < huge:
                    with Wire(server) as big:
                        big.send(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"[" * 65536) * 4)
                        assert big.answer().status == 413
                    sent += 1
        for wire in wires:
            answer = wire.answer()
            assert answer is not None and (answer.status, answer.problem) == (408, "request_timeout")
            assert wire.answer() is None
        assert 9 < time.monotonic() - began < 20
    finally:
        for wire in wires:
            wire.__exit__()
    after = worker.resident()
    tally.check(db)
    assert after < before + GROWTH, (before, after)
    campaign.tried(
        f"{slow} bodies that drip, and {2 * sent} without end, beside {len(latencies)} holds",
        f"408 after 10 s, 413 at once; the slowest hold took {max(latencies) * 1000:.0f} ms;"
        f" {before:.0f} MiB, then {after:.0f}",
    )


def test_what_schemathesis_makes_of_the_document(
    server: str, worker: Worker, db: psycopg.Connection, tmp_path: Path, campaign: Campaign
) -> None:
    if not campaign.full:
        pytest.skip("in small, tests/api/test_schemathesis.py")
    make_the_examples_true(db)
    cases = schemathesis(server, tmp_path, "--max-examples=300", f"--seed={campaign.seed}")
    assert audit(db) == []
    campaign.tried(f"{cases:,} cases that schemathesis makes of /openapi.json", "all as documented")
