"""`flashsale webhook send`: signatures, repetition, and the printed responses."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from standardwebhooks import Webhook

from flashsale.database.seed import APP_ROLE
from tests.support.http import free_port, running_server
from tests.support.provider_events import ADYEN_KEY, STRIPE_SECRET
from tests.support.sale_steps import create_order, create_product, one, order, order_status, place_hold

SECRET, OLD = "whsec_" + "bmV3" * 8, "whsec_" + "b2xk" * 8


class Provider(HTTPServer):
    """A stand-in for the server: records requests, and returns the configured responses."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.responses: list[tuple[int, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.server.requests.append((self.path, headers, body))
            status, response = (
                self.server.responses.pop(0) if self.server.responses else (200, b'{"result":"applied"}')
            )
            if not status:
                return
            self.send_response(status)
            self.send_header("Content-Length", str(len(response)))
            self.end_headers()
            self.wfile.write(response)

        def log_message(self, *_: object) -> None:
            pass


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def send(flashsale, provider):
    """Sends to the stand-in, by FLASHSALE_HOST and FLASHSALE_PORT."""

    def run(*options, **environment):
        where = {"FLASHSALE_HOST": "127.0.0.1", "FLASHSALE_PORT": str(provider.server_port)}
        return flashsale("webhook", "send", *options, **(where | environment))

    return run


def test_it_sends_the_event(send, provider):
    result = send(
        "--order", 7, "--status", "failed", "--amount", "99.00", "--currency", "USD", "--key", "pay_é"
    )
    assert result.exit_code == 0
    ((path, headers, body),) = provider.requests
    assert path == "/api/payments/webhook"
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == {
        "idempotency_key": "pay_é", "order_id": 7, "status": "failed", "amount": "99.00", "currency": "USD",
    }  # fmt: skip
    lines = result.stdout.splitlines()
    assert lines[0].endswith("unsigned")
    assert lines[1] == '1/1  200  {"result": "applied"}'


def test_omitted_options_are_not_sent(send, provider):
    send("--order", 7)
    send("--order", 7)
    first, second = (json.loads(body) for _, _, body in provider.requests)
    assert first.keys() == {"idempotency_key", "order_id", "status"}
    assert first["status"] == "success"
    assert first["idempotency_key"] != second["idempotency_key"]


def test_it_is_signed_with_the_first_secret(send, provider):
    result = send("--order", 7, FLASHSALE_WEBHOOK_SECRETS=f"{SECRET},{OLD}")
    assert result.stdout.splitlines()[0].endswith("  signed")
    ((_, headers, body),) = provider.requests
    Webhook(SECRET).verify(body, headers)


def test_it_is_unsigned_without_a_secret(send, provider):
    send("--order", 7)
    assert not provider.requests[0][1].keys() & {"webhook-id", "webhook-timestamp", "webhook-signature"}


def test_it_plays_stripe(flashsale, db, database_url, cluster, tmp_path):
    """A card is declined first; then it is charged."""
    create_product(db, stock=5)
    paid = order(db, 1)
    app = cluster.url(APP_ROLE, db.info.dbname)
    secrets = {"FLASHSALE_STRIPE_SECRETS": STRIPE_SECRET}

    def send(*options, **environment):
        arguments = ("--provider", "stripe", "--order", paid, "--key", "pi_1", "--url", url, *options)
        return flashsale("webhook", "send", *arguments, **(secrets | environment))

    with running_server(app, tmp_path / "gunicorn.log") as url:
        assert send("--status", "declined").stdout.splitlines()[1] == '1/1  200  {"received": true}'
        assert order_status(db, paid)[0] == "pending_payment"
        assert send("--times", 2).exit_code == 0
        assert order_status(db, paid)[0] == "paid"
    assert one(db, "select amount from flashsale.payments where status = 'success'") == 99
    assert "set FLASHSALE_STRIPE_SECRETS" in send(FLASHSALE_STRIPE_SECRETS="").stderr
    assert "Stripe has no event for cancelled" in send("--status", "cancelled").stderr
    unknown = flashsale("webhook", "send", "--provider", "stripe", "--order", 10**6, **secrets)
    assert "give --amount and --currency" in unknown.stderr


def test_it_plays_adyen(flashsale, db, cluster, tmp_path):
    """An authorisation is refused first; the next one succeeds, in a currency without decimals."""
    create_product(db, stock=5, price="12500", currency="JPY")
    paid = order(db, 1)
    secrets = {"FLASHSALE_ADYEN_HMAC_KEYS": ADYEN_KEY}

    def send(*options, **environment):
        arguments = ("--provider", "adyen", "--order", paid, "--url", url, *options)
        return flashsale("webhook", "send", *arguments, **(secrets | environment))

    with running_server(cluster.url(APP_ROLE, db.info.dbname), tmp_path / "gunicorn.log", **secrets) as url:
        refused = send("--status", "declined")
        assert refused.stdout.splitlines()[0].endswith("  signed")
        assert refused.stdout.splitlines()[1] == "1/1  200  [accepted]"
        assert order_status(db, paid)[0] == "pending_payment"
        assert send("--key", "P1", "--times", 2).exit_code == 0
        assert order_status(db, paid)[0] == "paid"
    payments = "select idempotency_key, amount, currency from flashsale.payments where status = 'success'"
    assert db.execute(payments).fetchall() == [("adyen:P1:success", 12500, "JPY")]
    assert "set FLASHSALE_ADYEN_HMAC_KEYS" in send(FLASHSALE_ADYEN_HMAC_KEYS="").stderr
    assert "Adyen has no authorisation that is failed" in send("--status", "failed").stderr


def test_times_repeats_the_same_webhook(send, provider):
    result = send("--order", 7, "--times", 3, FLASHSALE_WEBHOOK_SECRETS=SECRET)
    assert len(provider.requests) == 3
    assert len({body for _, _, body in provider.requests}) == 1
    assert len({headers["webhook-id"] for _, headers, _ in provider.requests}) == 1
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == ["1/3", "2/3", "3/3"]


def test_a_rejection_is_printed_and_exits_with_1(send, provider):
    provider.responses = [(200, b"{}"), (422, b'{"code":"idempotency_key_reused"}')]
    result = send("--order", 7, "--times", 2, "--json")
    assert result.exit_code == 1
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"status": 200, "replayed": False, "body": {}},
        {"status": 422, "replayed": False, "body": {"code": "idempotency_key_reused"}},
    ]


def test_control_characters_in_a_response_are_escaped(send, provider):
    provider.responses = [(500, b"\x1b[2J<html>")]
    result = send("--order", 7)
    assert result.exit_code == 1
    assert "500  \\x1b[2J<html>" in result.stdout


def test_url_names_another_server(flashsale, provider):
    for tail in ("", "/", "/api/payments/webhook"):
        url = f"http://127.0.0.1:{provider.server_port}{tail}"
        assert flashsale("webhook", "send", "--order", 7, "--url", url).exit_code == 0
    assert {path for path, *_ in provider.requests} == {"/api/payments/webhook"}


@pytest.mark.parametrize(
    "url", ["nonsense", "file:///etc/passwd", "http://", "http://[", "http://127.0.0.1:x"]
)
def test_an_invalid_url_is_a_one_line_error(flashsale, url):
    result = flashsale("webhook", "send", "--order", 7, "--url", url)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


def test_an_unreachable_server_is_a_one_line_error(send):
    result = send("--order", 7, FLASHSALE_PORT=str(free_port()))
    assert result.exit_code == 1
    assert "Connection refused; is the server running?" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_response_that_is_lost_names_the_key_to_repeat_it_with(send, provider):
    provider.responses = [(0, b"")]
    result = send("--order", 7)
    assert result.exit_code == 1
    key = json.loads(provider.requests[0][2])["idempotency_key"]
    assert "the webhook may have been applied. Repeat the command with --key " + key in result.stderr
    assert "is the server running" not in result.stderr


def test_an_invalid_secret_is_a_one_line_error_without_the_secret(send):
    result = send("--order", 7, FLASHSALE_WEBHOOK_SECRETS="hunter2")
    assert result.exit_code == 1
    assert "secret 1 in FLASHSALE_WEBHOOK_SECRETS" in result.stderr
    assert "hunter2" not in result.output


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--order", 7, "--early"],
        ["--order", 0],
        ["--order", 7, "--times", 0],
        ["--order", 7, "--status", "ok"],
    ],
)
def test_wrong_usage_exits_with_2(send, provider, options):
    assert send(*options).exit_code == 2
    assert provider.requests == []


def test_the_real_server_accepts_repeated_early_and_signed_webhooks(flashsale, db, cluster, tmp_path):
    url = cluster.url(APP_ROLE, db.info.dbname)
    settings = {"FLASHSALE_WEBHOOK_SECRETS": f"{SECRET},{OLD}", "FLASHSALE_ALLOW_UNSIGNED_WEBHOOKS": "0"}
    with running_server(url, tmp_path / "gunicorn.log", **settings) as base:

        def send(*options, secret=SECRET):
            result = flashsale(
                "webhook", "send", "--url", base, "--json", *options, FLASHSALE_WEBHOOK_SECRETS=secret
            )
            lines = [json.loads(line) for line in result.stdout.splitlines()]
            return result.exit_code, [
                (line["status"], line["replayed"], line["body"].get("result")) for line in lines
            ]

        product = create_product(db)
        first = order(db, product)
        assert send("--order", first, "--times", 2) == (0, [(200, False, "applied"), (200, True, "applied")])
        assert order_status(db, first) == ("paid", None)

        assert send("--early", secret=OLD) == (0, [(202, False, "stored")])
        early = create_order(db, place_hold(db, product))
        assert order_status(db, early) == ("paid", None)
        assert one(db, "select result from flashsale.payments where order_id = %s", early) == "applied"

        assert send("--order", first, secret="") == (1, [(401, False, None)])
