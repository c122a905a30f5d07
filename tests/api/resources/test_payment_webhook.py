"""POST /api/payments/webhook."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from standardwebhooks import Webhook

from flashsale.database.seed import APP_ROLE
from flashsale.local.cluster import Cluster
from tests.support.http import running_server

URL = "/api/payments/webhook"


def order(client: httpx.Client) -> int:
    hold = client.post("/api/holds", json={"product_id": 1, "qty": 1}).json()
    return client.post("/api/orders", json={"hold_id": hold["hold_id"]}).json()["order_id"]


def tell(
    client: httpx.Client, key: str, order_id: int, status: str = "success", **more: Any
) -> httpx.Response:
    return client.post(URL, json={"idempotency_key": key, "order_id": order_id, "status": status, **more})


def test_the_same_webhook_five_times_has_one_effect_and_one_answer(client: httpx.Client) -> None:
    order_id = order(client)
    with ThreadPoolExecutor(5) as senders:
        answers = list(senders.map(lambda _: tell(client, "pay_1", order_id), range(5)))
    answers += [tell(client, "pay_1", order_id) for _ in range(5)]
    assert {answer.status_code for answer in answers} == {200}
    assert all(
        answer.json() == {"order_id": order_id, "status": "paid", "result": "applied"} for answer in answers
    )
    assert [answer.headers.get("idempotency-replayed") for answer in answers].count("true") == 9
    reused = tell(client, "pay_1", order_id, "failed")
    assert (reused.status_code, reused.json()["code"]) == (422, "idempotency_key_reused")


def test_a_webhook_before_its_order_is_stored_and_the_order_is_born_paid(client: httpx.Client) -> None:
    coming = order(client) + 1
    stored = tell(client, "stored", coming)
    assert (stored.status_code, stored.json()) == (
        202,
        {"order_id": coming, "status": None, "result": "stored"},
    )
    hold = client.post("/api/holds", json={"product_id": 1, "qty": 1}).json()
    born = client.post("/api/orders", json={"hold_id": hold["hold_id"]}).json()
    assert (born["order_id"], born["status"]) == (coming, "paid")
    again = tell(client, "stored", coming)
    assert (again.status_code, again.json()) == (
        200,
        {"order_id": coming, "status": "paid", "result": "applied"},
    )
    assert again.headers["idempotency-replayed"] == "true"


def test_further_members_are_kept_with_the_event(client: httpx.Client, db: psycopg.Connection) -> None:
    order_id = order(client)
    tell(client, "kept", order_id, amount="99.00", currency="USD", card={"last4": "4242"}, note='say "é\\"')
    (payload,) = db.execute("select payload from flashsale_data.payments").fetchone()
    assert payload["card"] == {"last4": "4242"}
    assert payload["note"] == 'say "é\\"'


def test_amounts_are_decimals_that_sql_compares(client: httpx.Client) -> None:
    order_id = order(client)
    assert tell(client, "less", order_id, amount="98.00").json()["result"] == "amount_mismatch"
    assert tell(client, "less, as a number", order_id, amount=98.5).json()["result"] == "amount_mismatch"
    for more in ({"amount": -1}, {"amount": "x"}, {"amount": [99]}, {"amount": 1e-7}, {"currency": 840}):
        refused = tell(client, "typed", order_id, **more)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request"), more


@pytest.mark.parametrize(
    "more",
    [
        {"amount": 99.0, "currency": "usd"},
        {"amount": 99, "currency": None},
        {"amount": None},
        {"order_id": str},
        {"customer": {"name": "Zo\u00eb \ud83d"}, "note": "a\0b"},
        {"line_items": ["x" * 1000] * 240},
    ],
    ids=["number", "null currency", "null amount", "order as text", "odd text", "240 kB"],
)
def test_a_payment_is_not_lost_over_its_looks(client: httpx.Client, more: dict[str, Any]) -> None:
    order_id = order(client)
    event = {"idempotency_key": "k", "order_id": order_id, "status": "success", **more}
    if more.get("order_id"):
        event["order_id"] = str(order_id)
    answer = client.post(URL, content=json.dumps(event), headers={"content-type": "application/json"})
    assert answer.json() == {"order_id": order_id, "status": "paid", "result": "applied"}


def test_a_full_inbox_has_retry_after(client: httpx.Client, db: psycopg.Connection) -> None:
    db.execute("select flashsale.change_settings(p_inbox_limit => 0)")
    full = tell(client, "k", 12345)
    assert (full.status_code, full.json()["code"]) == (503, "inbox_full")
    assert int(full.headers["retry-after"]) > 0


def test_bad_payloads_fail_alone(client: httpx.Client) -> None:
    order_id = order(client)
    good = {"idempotency_key": "good", "order_id": order_id, "status": "success"}
    bodies = [
        b'{"idempotency_key":"bad","order_id":1,"status":"success","x":NaN}',
        b'{"idempotency_key":"bad","order_id":1,"status":"success","x":1e999999}',
        b'{"idempotency_key":"bad\\u0000","order_id":1,"status":"success"}',
        b'{"idempotency_key":"bad\\ud800","order_id":1,"status":"success"}',
        b'{"idempotency_key":"","order_id":1,"status":"success"}',
        b'{"idempotency_key":"bad","order_id":1,"status":"success","amount":"1e999999999"}',
        b'{"idempotency_key":"bad","order_id":1,"status":"success","amount":"NaN"}',
        b'{"idempotency_key":"bad","order_id":1,"status":"success","amount":"Infinity"}',
    ]
    headers = {"content-type": "application/json"}

    def send(body: bytes | None) -> httpx.Response:
        return (
            client.post(URL, json=good) if body is None else client.post(URL, content=body, headers=headers)
        )

    with ThreadPoolExecutor(len(bodies) + 1) as senders:
        *bad, accepted = senders.map(send, [*bodies, None])
    assert [answer.status_code // 100 for answer in bad] == [4] * len(bodies)
    assert accepted.json()["result"] == "applied"


@pytest.fixture
def signing_client(postgresql: psycopg.Connection, cluster: Cluster, tmp_path: Path) -> Any:
    secrets = ["whsec_" + base64.b64encode(bytes([n]) * 24).decode() for n in (1, 2)]
    with (
        running_server(
            cluster.url(APP_ROLE, postgresql.info.dbname),
            tmp_path / "signed.log",
            FLASHSALE_ALLOW_UNSIGNED_WEBHOOKS="",
            FLASHSALE_WEBHOOK_SECRETS=" ".join(secrets),
        ) as url,
        httpx.Client(base_url=url) as client,
    ):
        yield client, secrets


def test_signatures_are_checked_before_the_body_is_read(
    signing_client: tuple[httpx.Client, list[str]],
) -> None:
    client, secrets = signing_client
    body = '{"idempotency_key":"k","order_id":7,"status":"success","note":"é"}'

    def signed(secret: str, text: str) -> dict[str, str]:
        at = datetime.now(UTC)
        return {
            "content-type": "application/json",
            "webhook-id": "msg_1",
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": Webhook(secret).sign("msg_1", at, text),
        }

    for secret in secrets:
        assert client.post(URL, content=body, headers=signed(secret, body)).status_code == 202
    unsigned = client.post(URL, content=body, headers={"content-type": "application/json"})
    assert (unsigned.status_code, unsigned.json()["code"]) == (401, "invalid_signature")
    # An unsigned body is not parsed; a signed one that is malformed is a malformed_json.
    assert client.post(URL, content="{", headers={"content-type": "application/json"}).status_code == 401
    assert client.post(URL, content="{", headers=signed(secrets[0], "{")).status_code == 400
    assert client.post(URL, content=body + " ", headers=signed(secrets[0], body)).status_code == 401
    assert client.post(URL, content=b"\xff", headers=signed(secrets[0], body)).status_code == 401
