"""Forgery: only who has a secret says that an order is paid, and not even they can drown the sale."""

import multiprocessing
import random
import statistics
import string
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import psycopg
import pytest
import standardwebhooks.webhooks

from flashsale.database.seed import APP_ROLE
from flashsale.local.cluster import Cluster
from proof import webhook_flood as flood
from proof.campaign import Campaign
from proof.raw_http import JSON, Wire, request
from tests.api.test_webhook_signatures import BODY, NEW, OLD, OTHER, is_accepted, signed
from tests.support.http import running_server
from tests.support.sale_steps import audit, create_product, one, order

URL = b"/api/payments/webhook"
SPELLINGS = string.ascii_letters + string.digits + "+/=.,- _"


@pytest.fixture
def serve(cluster: Cluster, database_url: str, tmp_path: Path) -> Callable[..., object]:
    """serve(*secrets) is a server that believes those, and nothing unsigned."""
    dbname = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]

    def start(*secrets: str) -> object:
        return running_server(
            cluster.url(APP_ROLE, dbname),
            tmp_path / "gunicorn.log",
            FLASHSALE_WEBHOOK_SECRETS=",".join(secrets),
            FLASHSALE_ALLOW_UNSIGNED_WEBHOOKS="",
        )

    return start


def send(server: str, headers: dict[str, str], body: bytes = BODY) -> int:
    """The status of the answer to a webhook with these headers."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin1")
    with Wire(server) as wire:
        wire.send(request(b"POST", URL, JSON + lines, body))
        return wire.answer().status


# --- forged ---


def altered(rng: random.Random) -> tuple[str, dict[str, str], bytes]:
    """What was done, and the headers and body of a webhook that was signed and then tampered with."""
    while True:
        secret = rng.choice((OLD, NEW))
        sent = signed(secret)
        how, headers, body = tampered(rng, secret, dict(sent))
        # Blanks around a header's value are not part of it (RFC 9110, 5.5).
        if body != BODY or {name: value.strip() for name, value in headers.items()} != sent:
            return how, headers, body


def tampered(rng: random.Random, secret: str, headers: dict[str, str]) -> tuple[str, dict[str, str], bytes]:
    body = BODY
    identifier, at, signature = (headers[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
    how = rng.choice(FORGERIES)
    match how:
        case "one character":
            name = rng.choice(list(headers))
            value = list(headers[name])
            place = rng.randrange(len(value))
            value[place] = rng.choice([other for other in SPELLINGS if other != value[place]])
            headers[name] = "".join(value)
        case "a character less":
            name = rng.choice(list(headers))
            place = rng.randrange(len(headers[name]))
            headers[name] = headers[name][:place] + headers[name][place + 1 :]
        case "a character more":
            name = rng.choice(list(headers))
            place = rng.randrange(len(headers[name]) + 1)
            headers[name] = headers[name][:place] + rng.choice(SPELLINGS) + headers[name][place:]
        case "one byte of the body":
            place = rng.randrange(len(body))
            body = body[:place] + bytes([body[place] ^ 1 << rng.randrange(8)]) + body[place + 1 :]
        case "another body":
            body = rng.choice(
                (
                    BODY.replace(b"99", b"98"),
                    BODY + b" ",
                    b" " + BODY,
                    b"",
                    BODY.replace(b"success", b"failed"),
                )
            )
        case "a stranger's secret":
            headers = signed(OTHER)
        case "a guessed secret":
            headers |= signed("whsec_" + "".join(rng.choices(string.ascii_letters, k=32)))
        case "another time":
            headers["webhook-timestamp"] = str(int(at) + rng.choice((-1, 1)) * rng.randrange(1, 300))
        case "another id":
            headers["webhook-id"] = f"msg_{rng.randrange(2, 10**6)}"
        case "another version":
            headers["webhook-signature"] = (
                rng.choice(("v1a", "v2", "V1", "v", "v0", "", "v11")) + signature[2:]
            )
        case "random":
            headers["webhook-signature"] = (
                "v1," + "".join(rng.choices(string.ascii_letters + string.digits, k=43)) + "="
            )
        case "moved borders":
            # The signed text is id.time.body: the same text, cut elsewhere.
            headers["webhook-id"], headers["webhook-timestamp"], body = rng.choice(
                (
                    (f"{identifier}.{at}", at, BODY),
                    (identifier.split("_")[0], at, b"_1." + BODY),
                    (f"{identifier}.{at[:5]}", at[5:], BODY),
                    (identifier, at[:9], at[9:].encode() + b"." + BODY),
                )
            )
        case "another spelling":
            headers["webhook-timestamp"] = rng.choice(
                (
                    f"{at}.0",
                    f"+{at}",
                    f"0{at}",
                    f" {at}"[1:] + "e0",
                    f"{at[:1]}_{at[1:]}",
                    f"{at}.5",
                    f"-{at}",
                )
            )
        case "a longer signature":
            headers["webhook-signature"] = rng.choice(
                (
                    signature + "=",
                    signature.rstrip("="),
                    signature + "AAAA",
                    signature[:9] + "!" + signature[9:],
                    signature.replace("v1,", "v1,,"),
                    signature.replace("v1,", "v1, "),
                )
            )
        case "a missing header":
            del headers[rng.choice(list(headers))]
        case "another's signature":
            headers["webhook-signature"] = signed(secret, body=BODY.replace(b"99", b"7"))["webhook-signature"]
    return how, headers, body  # fmt: skip


FORGERIES = (
    "one character", "a character less", "a character more", "one byte of the body", "another body",
    "a stranger's secret",
    "a guessed secret", "another time", "another id", "another version", "random", "moved borders",
    "another spelling",
    "a longer signature", "a missing header", "another's signature",
)  # fmt: skip


def test_nothing_altered_is_accepted(
    serve: Callable[..., object], db: psycopg.Connection, campaign: Campaign
) -> None:
    count = campaign.size(1_000, 10_000)
    over_http = campaign.size(100, 10_000)
    tried: Counter[str] = Counter()
    with serve(OLD, NEW) as server:
        for number in range(count):
            how, headers, body = altered(campaign.random)
            tried[how] += 1
            assert not is_accepted(headers, body=body), (how, headers, body)
            if number < over_http:
                assert send(server, headers, body) == 401, (how, headers, body)
        assert one(db, "select count(*) from flashsale_data.payments") == 0
        assert send(server, signed(NEW)) == 202, "the control: what is not altered is accepted"
    campaign.tried(
        f"{count:,} webhooks altered after they were signed, in {len(tried)} ways, {over_http:,} over HTTP",
        "401 each; nothing recorded",
    )


# --- the clock ---


class Clock(datetime):
    """A clock that stands still; in place of the library's."""

    instant: ClassVar[datetime]

    @classmethod
    def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
        return cls.instant


def test_the_edge_of_300_seconds_is_exact(monkeypatch: pytest.MonkeyPatch, campaign: Campaign) -> None:
    count = campaign.size(100, 2_000)
    monkeypatch.setattr(standardwebhooks.webhooks, "datetime", Clock)
    edge, step = timedelta(seconds=300), timedelta(microseconds=1)
    headers = signed(NEW)
    for _ in range(count):
        at = datetime.fromtimestamp(campaign.random.randrange(10**9, 4 * 10**9), UTC)
        headers["webhook-timestamp"] = str(int(at.timestamp()))
        headers["webhook-signature"] = standardwebhooks.Webhook(NEW).sign("msg_1", at, BODY.decode())
        for now, accepted in (
            (at - edge - step, False), (at - edge, True), (at, True), (at + edge, True), (at + edge + step,
                False),
        ):  # fmt: skip
            Clock.instant = now
            assert is_accepted(headers) is accepted, (at, now)
    campaign.tried(
        f"{count:,} timestamps at ±300 s to the microsecond, under a clock that stands still",
        "300.000000 accepted, 300.000001 refused, either way",
    )


ROTATION = [(OLD,), (NEW, OLD), (NEW,)]


def test_rotation_and_the_edge_over_http(
    serve: Callable[..., object], db: psycopg.Connection, campaign: Campaign
) -> None:
    for believed in campaign.size(ROTATION[1:2], ROTATION):
        with serve(*believed) as server:
            for secret in (OLD, NEW, OTHER):
                assert send(server, signed(secret)) == (202 if secret in believed else 401)
            both = signed(NEW)
            both["webhook-signature"] += " " + signed(OLD)["webhook-signature"]
            assert send(server, both) == 202, "who signs with both is believed throughout"
            # As exactly as a clock that goes on allows.
            for off, status in (
                (-290, 202),
                (299, 202),
                (-302, 401),
                (310, 401),
                (-86400, 401),
                (86400, 401),
            ):
                assert send(server, signed(believed[-1], off=off)) == status, off
    assert one(db, "select count(*) from flashsale_data.payments") == 1, "one event, however often delivered"
    campaign.tried(
        "rotation over HTTP: the old secret, both, the new one; timestamps at -302, -290, 299 and 310 s",
        "accepted as long as the secret is set and within 300 s, else 401",
    )


# --- the flood ---

BUYERS = 32
CALM = 3.0
"""seconds of each window without a flood"""


class Buyers:
    """So many buyers at once, each placing a hold and an order, again and again."""

    def __init__(self, server: str, product: int, count: int) -> None:
        self.took: list[tuple[float, float]] = []
        """when each request began, and the seconds until it was answered"""
        self.failed: list[BaseException] = []
        self._server = server
        self._hold = request(b"POST", b"/api/holds", JSON, b'{"product_id":%d,"qty":1}' % product)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._buy) for _ in range(count)]

    @contextmanager
    def buying(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def _buy(self) -> None:
        try:
            with Wire(self._server) as wire:
                while not self._stop.is_set():
                    hold = self._ask(wire, self._hold)["hold_id"]
                    self._ask(wire, request(b"POST", b"/api/orders", JSON, b'{"hold_id":%d}' % hold))
        except BaseException as error:
            self.failed.append(error)

    def _ask(self, wire: Wire, data: bytes) -> dict:
        began = time.monotonic()
        wire.send(data)
        answer = wire.answer()
        self.took.append((began, time.monotonic() - began))
        assert answer.status == 201, answer
        return answer.json

    def p99(self, began: float, ended: float) -> float:
        """Of the requests that began in a window."""
        return statistics.quantiles((took for at, took in self.took if began <= at < ended), n=100)[98]


def test_a_signed_flood_stays_within_its_cap(
    serve: Callable[..., object], db: psycopg.Connection, campaign: Campaign
) -> None:
    windows, a_window, cap = campaign.size((2, 250, 300), (20, 10_000, 10_000))
    product = create_product(db, stock=2_000_000_000)
    db.execute("select flashsale.change_settings(p_inbox_limit => %s, p_hold_time => '1 hour')", (cap,))
    answers: Counter[str] = Counter()
    calm: list[float] = []
    flooded: list[float] = []
    spawn = multiprocessing.get_context("spawn")
    with serve(NEW) as server, ProcessPoolExecutor(1, mp_context=spawn) as sender:
        buyers = Buyers(server, product, campaign.size(2, BUYERS))
        with buyers.buying():
            for window in range(windows):
                numbers = range(window * a_window, (window + 1) * a_window)
                prepared = sender.submit(flood.prepare, NEW, numbers, 10**12).result()
                began = time.monotonic()
                time.sleep(campaign.size(0.2, CALM))
                meanwhile = time.monotonic()
                answers += sender.submit(flood.send, server, prepared).result()
                ended = time.monotonic()
                calm.append(buyers.p99(began, meanwhile))
                flooded.append(buyers.p99(meanwhile, ended))
        assert buyers.failed == []
        assert answers == {"202": cap, "503 inbox_full": windows * a_window - cap}
        assert one(db, "select stored from flashsale_data.inbox") == cap
        assert one(db, "select count(*) from flashsale_data.payments") == cap
        assert one(db, "select count(*) from flashsale_data.events where kind = 'payment_stored'") == cap
        # What is no flood is served all the same.
        waiting = order(db, product)
        body = BODY.replace(b"99", str(waiting).encode())
        assert send(server, signed(NEW, body=body), body) == 200
    assert audit(db) == []
    baseline, under = statistics.median(calm) * 1000, statistics.median(flooded) * 1000
    if campaign.full:
        assert under <= 2 * baseline, (calm, flooded)
    campaign.tried(
        f"a signed flood of {windows * a_window:,} webhooks for unknown orders, {flood.CONNECTIONS} at once,"
        f" beside {campaign.size(2, BUYERS)} buyers, {len(buyers.took):,} calls",
        f"{cap:,} stored, the rest 503 inbox_full; checkout p99 {baseline:.1f} ms without, {under:.1f} with",
    )
