"""Bad requests: no HTTP input causes a 500, ends the worker or makes it grow."""

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

from proof.campaign import Campaign
from proof.hostile_framings import ABANDONED, ABANDONED_PRODUCT, HOLD, SMUGGLED_PRODUCT, framings
from proof.hostile_requests import HOLD_IDS, HostileRequests
from proof.raw_http import JSON, NoResponse, RawConnection, Response, chunked, request
from tests.api.test_schemathesis import make_the_examples_true, schemathesis
from tests.support.sale_steps import audit, one, place_hold
from tests.support.waiting import wait_until

GROWTH = 16
"""MiB; more than this between the first fifth and the end would be a leak"""
THREADS = 8


class Worker:
    """The server's one worker process, by its log and /proc."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self.pid = self._booted()

    def _booted(self) -> int:
        (pid,) = re.findall(r"Booting worker with pid: (\d+)", self._log.read_text())
        return int(pid)

    def resident(self) -> float:
        """Resident memory in MiB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024

    def open_files(self) -> int:
        """Open file descriptors, among them its sockets."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def check(self) -> None:
        """The worker was never restarted and logged no error."""
        assert self._booted() == self.pid
        log = self._log.read_text()
        assert '"level":"error"' not in log, log[-5000:]
        assert '"level":"critical"' not in log, log[-5000:]


@pytest.fixture
def worker(server: str, tmp_path: Path) -> Iterator[Worker]:
    """The worker, which must outlive the test."""
    worker = Worker(tmp_path / "gunicorn.log")
    yield worker
    worker.check()


@pytest.fixture
def products(db: psycopg.Connection) -> None:
    """Three products with ample stock, and holds with ids that random requests hit."""
    db.execute("select flashsale.change_settings('1 day', '1 day', 1000000, '24 hours')")
    for product in (1, ABANDONED_PRODUCT, SMUGGLED_PRODUCT):
        db.execute(f"alter table flashsale_data.products alter product_id restart with {product}")
        db.execute("select flashsale.create_product('Shoe', 2147483647, 99)")
    for hold_id in HOLD_IDS[::2]:
        placed = place_hold(db, 1)
        db.execute("update flashsale_data.holds set hold_id = %s where hold_id = %s", (hold_id, placed))


SERVED = {200, 201, 202, 204, 304}
REFUSED = {400, 401, 404, 405, 409, 410, 413, 415, 422, 431}


class Tally:
    """The responses that all threads received, and the effects that they report."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.holds: set[int] = set()
        self.orders: set[int] = set()
        self.payments = 0
        self._lock = threading.Lock()

    def add(self, response: Response, sent: bytes) -> None:
        """Check and count one response."""
        exchange = (sent[:2000], response)
        assert response.status in SERVED | REFUSED | {503}, exchange
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", response.headers["x-request-id"]), exchange
        if response.status not in SERVED and response.body:
            problem = response.code
            assert problem, exchange
            assert problem not in ("outcome_unknown", "internal_error"), exchange
        if response.status == 503:
            assert int(response.headers["retry-after"]) > 0, exchange
        with self._lock:
            self.statuses[response.status] += 1
            if response.status == 201:
                made = response.json
                (self.orders if "order_id" in made else self.holds).add(
                    made.get("order_id") or made["hold_id"]
                )
            elif (
                response.body.startswith(b'{"order_id":')
                and b'"result":"' in response.body
                and response.headers.get("idempotency-replayed") != "true"
                # A declined attempt for an unknown order leaves nothing.
                and not response.body.endswith(b'"status":null,"result":"no_change"}')
            ):
                self.payments += 1

    def check(self, db: psycopg.Connection) -> None:
        """The tables hold the reported effects and no other."""
        assert audit(db) == []
        holds = db.execute(
            "select hold_id from flashsale_data.holds where product_id <> %s and not hold_id = any (%s)",
            (ABANDONED_PRODUCT, list(HOLD_IDS)),
        )
        assert {hold for (hold,) in holds} == self.holds
        assert {order for (order,) in db.execute("select order_id from flashsale_data.orders")} == self.orders
        assert one(db, "select count(*) from flashsale_data.payments") == self.payments


def in_threads(work: Callable[[random.Random, int], None], campaign: Campaign, count: int) -> None:
    """Run `work(rng, share)` in THREADS threads, each with its own random numbers and share of `count`."""
    seeds = [campaign.random.getrandbits(64) for _ in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as pool:
        started = [pool.submit(work, random.Random(seed), count // THREADS) for seed in seeds]
        for future in started:
            future.result()


def send_well_framed(server: str, tally: Tally, rng: random.Random, count: int) -> None:
    """`count` requests, pipelined on keep-alive connections."""
    requests = HostileRequests(rng)
    unsent: list[tuple[bytes, bool]] = []
    while count > 0:
        with RawConnection(server) as connection:
            is_open = True
            while is_open and count > 0:
                unsent += [requests.well_framed() for _ in range(8 - len(unsent))]
                connection.send(b"".join(data for data, _ in unsent))
                # Requests behind one at which the server closes are sent again on the next connection.
                while is_open and unsent:
                    data, is_head = unsent.pop(0)
                    response = connection.response(to_head=is_head)
                    assert response is not None, (data[:2000], "the server closed without a response")
                    tally.add(response, data)
                    is_open = response.headers.get("connection") != "close"
                    count -= 1


def send_corrupted(server: str, tally: Tally, rng: random.Random, count: int) -> None:
    """`count` streams, each on a connection of its own, which the server must close."""
    requests = HostileRequests(rng)
    for _ in range(count):
        data = requests.corrupted()
        with RawConnection(server) as connection:
            connection.send(data)
            try:
                responses = connection.responses()
            except NoResponse as error:
                raise AssertionError((data[:2000], "the server neither responds nor closes")) from error
            assert responses, (data[:2000], "the server closed without a response")
            for response in responses:
                tally.add(response, data)


def test_broken_framing(
    server: str, worker: Worker, products: None, db: psycopg.Connection, campaign: Campaign
) -> None:
    tally = Tally()
    for framing in framings():
        with RawConnection(server) as connection:
            connection.send(framing.data)
            if not framing.closes:
                continue
            responses = connection.responses()
        assert tuple(response.status for response in responses) == framing.statuses, (framing.name, responses)
        for response in responses:
            tally.add(response, framing.data)
    tally.check(db)
    smuggled = "select count(*) from flashsale_data.holds where product_id = %s"
    assert one(db, smuggled, SMUGGLED_PRODUCT) == 0
    campaign.record(
        f"{len(framings())} malformed or ambiguous framings, with requests smuggled in them",
        "the statuses that RFC 9112 asks for; none smuggled",
    )


def test_hostile_requests(
    server: str, worker: Worker, products: None, db: psycopg.Connection, campaign: Campaign
) -> None:
    well_framed, corrupted = campaign.size((500, 250), (75_000, 30_000))
    tally = Tally()
    in_threads(lambda rng, share: send_well_framed(server, tally, rng, share), campaign, well_framed // 5)
    in_threads(lambda rng, share: send_corrupted(server, tally, rng, share), campaign, corrupted // 5)
    before = worker.resident()
    in_threads(lambda rng, share: send_well_framed(server, tally, rng, share), campaign, well_framed)
    in_threads(lambda rng, share: send_corrupted(server, tally, rng, share), campaign, corrupted)
    after = worker.resident()
    tally.check(db)
    assert after < before + GROWTH, (before, after)
    campaign.record(
        f"{tally.statuses.total():,} responses to hostile HTTP requests and {corrupted:,} corrupted streams",
        f"{dict(sorted(tally.statuses.items()))}; one worker, {before:.0f} MiB, then {after:.0f}",
        responses=tally.statuses.total(),
    )


def test_clients_that_disconnect(
    server: str, worker: Worker, products: None, db: psycopg.Connection, campaign: Campaign
) -> None:
    """During a request, or before its response: it has its effect or none, and no socket stays open."""
    count = campaign.size(200, 10_000)
    hold = request(b"POST", b"/api/holds", JSON, ABANDONED)

    def disconnect(rng: random.Random, share: int) -> None:
        for _ in range(share):
            with RawConnection(server) as connection:
                connection.send(
                    hold * rng.choice((1, 1, 5))
                    + hold[: rng.choice((0, len(hold), rng.randrange(len(hold))))]
                )
                if rng.random() < 0.3:
                    connection.response()
                if rng.random() < 0.5:
                    connection.reset()

    disconnect(campaign.random, 20)
    files, before = worker.open_files(), worker.resident()
    in_threads(disconnect, campaign, count)
    wait_until(lambda: worker.open_files() <= files, "all connections are closed")
    after = worker.resident()
    assert audit(db) == []
    assert after < before + GROWTH, (before, after)
    campaign.record(
        f"{count:,} clients that disconnect during a request or before its response",
        f"audit() empty, no socket stays open; {before:.0f} MiB, then {after:.0f}",
        disconnects=count,
    )


def test_slow_and_huge_bodies(
    server: str, worker: Worker, products: None, db: psycopg.Connection, campaign: Campaign
) -> None:
    """A slow body is rejected after ten seconds, a huge one at the limit; other requests wait for neither."""
    if not campaign.full:
        pytest.skip("takes ten seconds; tests/api/test_problems.py has the small form")
    slow, huge = 300, 1_000
    head = b"POST /api/holds HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    drips = [
        head[:-2],  # its head is never complete
        head + b"Content-Length: 10000\r\n\r\n" + b" ",
        head + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n",
    ]
    more = [b"X", b" ", b"1\r\n \r\n"]
    latencies = []
    tally = Tally()
    connections = [RawConnection(server) for _ in range(slow)]
    try:
        for number, connection in enumerate(connections):
            connection.send(drips[number % 3])
        began = time.monotonic()
        before = worker.resident()
        with RawConnection(server) as other:
            huge_sent = 0
            while time.monotonic() < began + 9:
                for number, connection in enumerate(connections):
                    connection.send(more[number % 3])
                sent_at = time.monotonic()
                other.send(request(b"POST", b"/api/holds", JSON, HOLD))
                tally.add(other.response(), HOLD)
                latencies.append(time.monotonic() - sent_at)
                with RawConnection(server) as big:
                    big.send(head + (b"Content-Length: %d\r\n\r\n" % 10**10) + b"[" * 100_000)
                    assert big.response().status == 413
                if huge_sent < huge:
                    with RawConnection(server) as big:
                        big.send(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"[" * 65536) * 4)
                        assert big.response().status == 413
                    huge_sent += 1
        for connection in connections:
            response = connection.response()
            assert response is not None and (response.status, response.code) == (408, "request_timeout")
            assert connection.response() is None
        assert 9 < time.monotonic() - began < 20
    finally:
        for connection in connections:
            connection.__exit__()
    after = worker.resident()
    tally.check(db)
    assert after < before + GROWTH, (before, after)
    campaign.record(
        f"{slow} bodies sent byte by byte, and {2 * huge_sent} without end, beside {len(latencies)} holds",
        f"408 after 10 s, 413 at once; the slowest hold took {max(latencies) * 1000:.0f} ms;"
        f" {before:.0f} MiB, then {after:.0f}",
    )


def test_schemathesis(
    server: str, worker: Worker, db: psycopg.Connection, tmp_path: Path, campaign: Campaign
) -> None:
    if not campaign.full:
        pytest.skip("tests/api/test_schemathesis.py has the small form")
    make_the_examples_true(db)
    cases = schemathesis(server, tmp_path, "--max-examples=300", f"--seed={campaign.seed}")
    assert audit(db) == []
    campaign.record(
        f"{cases:,} cases that schemathesis generates from /openapi.json",
        "all as documented",
        schemathesis_cases=cases,
    )
