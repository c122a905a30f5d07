"""`flashsale refunds`, against a provider that keeps idempotency keys as Stripe documents."""

import json
import os
import signal
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psycopg
import pytest

from flashsale.database.connection import connect
from flashsale.refunds.stripe import StripeRefunds
from flashsale.refunds.worker import pay
from tests.support.sql_calls import apply_payment, audit, create_product, order_units, rows, value


class FakeStripe(ThreadingHTTPServer):
    """POST and GET /v1/refunds.

    :ivar refunds: that were made, by idempotency key
    :ivar kill: ends the process that asks, once its refund is made and before it is answered
    :ivar answer: instead of making a refund
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.refunds: dict[str, dict[str, Any]] = {}
        self.kill: int | None = None
        self.answer: tuple[int, dict[str, Any]] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    class Handler(BaseHTTPRequestHandler):
        server: "FakeStripe"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            fields = dict(urllib.parse.parse_qsl(body))
            key = self.headers["Idempotency-Key"]
            if self.headers["Authorization"] != "Bearer sk_test":
                return self.respond(401, {"error": {"message": "Invalid API Key provided"}})
            if self.server.answer is not None:
                return self.respond(*self.server.answer)
            known = self.server.refunds.get(key)
            if known is not None and known["fields"] != fields:
                return self.respond(400, {"error": {"code": "idempotency_error"}})
            made = known or {
                "id": f"re_{len(self.server.refunds)}", "object": "refund", "status": "succeeded",
                "fields": fields, "metadata": {"refund_key": fields["metadata[refund_key]"]},
            }  # fmt: skip
            self.server.refunds[key] = made
            if self.server.kill is not None:
                os.kill(self.server.kill, signal.SIGKILL)
                return None
            return self.respond(200, made)

        def do_GET(self) -> None:
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            made = [
                refund for refund in self.server.refunds.values()
                if refund["fields"]["payment_intent"] == query["payment_intent"][0]
            ]  # fmt: skip
            self.respond(200, {"object": "list", "data": made})

        def respond(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass


@pytest.fixture
def stripe() -> Iterator[FakeStripe]:
    with FakeStripe() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def owe(db: psycopg.Connection, count: int, provider: str = "stripe") -> list[str]:
    """Refunds that are due: second payments of an order."""
    order = order_units(db, create_product(db), 1).order_id
    apply_payment(db, f"{provider}:pi_pays{order}:success", order)
    keys = [f"{provider}:pi_{order}x{i}:success" for i in range(count)]
    for key in keys:
        apply_payment(db, key, order)
    return keys


def due(db: psycopg.Connection) -> list[str]:
    return [row.idempotency_key for row in rows(db, "select idempotency_key from flashsale.refunds_due")]


def end_leases(db: psycopg.Connection) -> None:
    db.execute("update flashsale_data.refunds set lease_ends_at = now() where recorded_at is null")


def test_refunds_are_listed_begun_and_recorded_by_hand(flashsale, db):
    (payment,) = owe(db, 1, "bank")
    assert payment in flashsale("refunds", "list").stdout
    (begun,) = json.loads(flashsale("refunds", "begin", "--json").stdout)
    assert (begun["payment_key"], begun["amount"]) == (payment, "99.00")
    assert flashsale("refunds", "begin").stdout == "no refund is due that is not being made\n"
    recorded = flashsale("refunds", "record", begun["refund_key"], payment, "99.00")
    assert (
        recorded.stdout == f"{payment}: 99.00 refunded, 0 still due\n" or "0.00 still due" in recorded.stdout
    )
    assert flashsale("refunds", "list").stdout == "no refund is due\n"
    refused = flashsale("refunds", "record", "re_2", payment, "1")
    assert (refused.exit_code, "0.00 USD left to refund" in refused.stderr) == (1, True)


def test_the_worker_pays_what_is_due_at_its_provider(flashsale, db, stripe):
    keys = owe(db, 3)
    (other,) = owe(db, 1, "adyen")
    paid = flashsale("refunds", "pay", "--provider", "stripe", "--url", stripe.url, STRIPE_API_KEY="sk_test")
    assert paid.stdout.count("done") == 3
    assert due(db) == [other]
    assert {refund["fields"]["amount"] for refund in stripe.refunds.values()} == {"9900"}
    assert {
        f"stripe:{refund['fields']['payment_intent']}:success" for refund in stripe.refunds.values()
    } == set(keys)
    assert audit(db) == []


def test_without_a_key_that_is_accepted_nothing_is_recorded(flashsale, db, stripe):
    keys = owe(db, 1)
    arguments = ("refunds", "pay", "--provider", "stripe", "--url", stripe.url)
    assert "set STRIPE_API_KEY" in flashsale(*arguments).stderr
    assert "Invalid API Key" in flashsale(*arguments, STRIPE_API_KEY="sk_wrong").stderr
    assert due(db) == keys
    assert value(db, "select status from flashsale.refunds") == "requested"


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ((400, {"error": {"code": "charge_already_refunded"}}), "failed"),
        ((200, {"id": "re_1", "status": "failed"}), "failed"),
        ((200, {"id": "re_1", "status": "pending"}), "done"),
        ((429, {"error": {"code": "rate_limit"}}), "unknown"),
        ((500, {}), "unknown"),
    ],
)
def test_what_the_provider_says_is_recorded(cli_connection, db, stripe, answer, status):
    keys = owe(db, 1)
    stripe.answer = answer
    (made,) = pay(cli_connection, StripeRefunds("sk_test", stripe.url), 1)
    assert made[1].status == status
    assert value(db, "select status from flashsale.refunds") == (
        status if status != "unknown" else "requested"
    )
    assert due(db) == ([] if status == "done" else keys)


def test_a_request_whose_key_stripe_may_have_forgotten_is_looked_for(cli_connection, db, stripe):
    owe(db, 1)
    provider = StripeRefunds("sk_test", stripe.url)
    key = value(db, "select refund_key from flashsale.begin_refunds()")
    payment = value(db, "select payment_key from flashsale.refunds").split(":")[1]
    stripe.refunds["forgotten"] = {
        "id": "re_1", "status": "succeeded", "fields": {"payment_intent": payment},
        "metadata": {"refund_key": key},
    }  # fmt: skip
    db.execute("update flashsale_data.refunds set requested_at = now() - interval '2 days'")
    end_leases(db)
    ((_, outcome),) = pay(cli_connection, provider, 10)
    assert outcome.payload["refund"] == "re_1"
    assert len(stripe.refunds) == 1
    assert due(db) == []


def test_a_worker_that_is_killed_before_it_records_returns_no_money_twice(db, stripe):
    """A hundred times: the refund is made, and the worker dies before it hears of it."""
    keys = owe(db, 100)
    url = db.info.dsn
    for _ in keys:
        waits, goes = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.read(waits, 1)
                with connect("refunds pay", url) as conn:
                    list(pay(conn, StripeRefunds("sk_test", stripe.url), 1))
            finally:
                os._exit(3)
        stripe.kill = child
        os.write(goes, b"!")
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), status
        os.close(waits)
        os.close(goes)
    stripe.kill = None
    assert (len(stripe.refunds), len(due(db))) == (100, 100)
    end_leases(db)
    with connect("refunds pay", url) as conn:
        outcomes = [outcome.status for _, outcome in pay(conn, StripeRefunds("sk_test", stripe.url), 1000)]
    assert outcomes == ["done"] * 100
    assert (len(stripe.refunds), due(db)) == (100, [])
    assert audit(db) == []


@pytest.fixture
def cli_connection(db: psycopg.Connection) -> Iterator[psycopg.Connection]:
    with connect("refunds pay", db.info.dsn) as conn:
        yield conn
