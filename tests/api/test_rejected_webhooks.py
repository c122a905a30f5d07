"""Webhooks with a valid signature that are refused: kept, logged, counted; answered as before."""

import asyncio
import base64
import hmac
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import falcon.testing
import httpx
import psycopg
import pytest

from api.problems import Problem
from api.schemas.requests import MAX_BODY_BYTES
from api.schemas.webhook_body import (
    MAX_LARGE_BODIES_BYTES,
    MAX_READ_BYTES,
    MAX_WEBHOOK_BYTES,
    BodyMemory,
    WebhookBody,
)
from flashsale.database.seed import APP_ROLE
from flashsale.local.cluster import Cluster
from tests.support.metrics_scrape import Metrics, watched_server
from tests.support.sale_steps import create_product, order, pay
from tests.support.waiting import wait_until

URL = "/api/payments/webhook"
KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()


def signed(body: bytes, webhook_id: str = "msg_1", **headers: str) -> dict[str, str]:
    at = str(int(time.time()))
    signature = base64.b64encode(hmac.digest(KEY, f"{webhook_id}.{at}.".encode() + body, "sha256")).decode()
    return {
        "content-type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": at,
        "webhook-signature": f"v1,{signature}",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }


def event(order_id: int, key: str = "pay_1", status: str = "success", **more: Any) -> bytes:
    return json.dumps({"idempotency_key": key, "order_id": order_id, "status": status, **more}).encode()


class Server:
    """A server that requires signatures, its log and its metrics."""

    def __init__(self, client: httpx.Client, metrics: Metrics, log: Path) -> None:
        self.client = client
        self.metrics = metrics
        self._log = log

    def send(self, body: bytes, webhook_id: str = "msg_1", **headers: str) -> tuple[int, str]:
        """Status and code or result of a signed webhook."""
        answer = self.client.post(URL, content=body, headers=signed(body, webhook_id, **headers))
        said = answer.json()
        return answer.status_code, said.get("code") or said["result"]

    def text(self) -> str:
        return self._log.read_text()

    def lines(self, message: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.text().splitlines() if line.startswith("{")]
        return [line for line in found if line["message"] == message]


@pytest.fixture
def server(db: psycopg.Connection, cluster: Cluster, tmp_path: Path) -> Iterator[Server]:
    log = tmp_path / "gunicorn.log"
    with watched_server(
        cluster.url(APP_ROLE, db.info.dbname),
        log,
        FLASHSALE_ALLOW_UNSIGNED_WEBHOOKS="",
        FLASHSALE_WEBHOOK_SECRETS=SECRET,
    ) as (client, metrics):
        yield Server(client, metrics, log)


@pytest.fixture
def number(db: psycopg.Connection) -> int:
    """An order that awaits payment."""
    return order(db, create_product(db))


def rejected(db: psycopg.Connection) -> list[tuple[Any, ...]]:
    return db.execute(
        "select webhook_id, code, body, order_id from flashsale.rejected_webhooks order by first_seen_at"
    ).fetchall()


def test_every_way_to_refuse_a_signed_webhook_keeps_it_as_it_came(
    server: Server, db: psycopg.Connection, number: int
) -> None:
    pay(db, number, "failed", "used")
    good = event(number)
    form, latin1 = "application/x-www-form-urlencoded", "application/json; charset=latin1"
    refused = {
        "not JSON": (b"paid!", {}, 400, "malformed_json"),
        "invalid UTF-8": (good.replace(b"pay_1", b"pay_\xff"), {}, 400, "malformed_json"),
        "a byte order mark": (b"\xef\xbb\xbf" + good, {}, 400, "malformed_json"),
        "a duplicate member": (good.replace(b"}", b',"status":"success"}'), {}, 400, "malformed_json"),
        "deep nesting": (good[:-1] + b',"x":' + b"[" * 70 + b"]" * 70 + b"}", {}, 400, "malformed_json"),
        "compressed": (b"\x1f\x8b\x08\x00", {"content_encoding": "gzip"}, 400, "malformed_json"),
        "empty": (b"", {}, 400, "malformed_json"),
        "a status of the provider's": (event(number, status="succeeded"), {}, 422, "invalid_request"),
        "no order": (b'{"idempotency_key":"pay_1","status":"success"}', {}, 422, "invalid_request"),
        "an order out of range": (event(2**63), {}, 422, "invalid_request"),
        "a key too long": (event(number, key="k" * 256), {}, 422, "invalid_request"),
        "a key with NUL": (event(number, key="k\0"), {}, 422, "invalid_request"),
        "a status with NUL": (event(number, status="suc\0cess"), {}, 422, "invalid_request"),
        "an amount with a comma": (event(number, amount="99,00"), {}, 422, "invalid_request"),
        "a number out of range": (good.replace(b"}", b',"x":1e400}'), {}, 422, "invalid_request"),
        "a key used for a failure": (event(number, key="used"), {}, 422, "idempotency_key_reused"),
        "a form": (good, {"content_type": form}, 415, "unsupported_media_type"),
        "latin1": (good, {"content_type": latin1}, 415, "unsupported_media_type"),
        "too large": (event(number, x="y" * MAX_WEBHOOK_BYTES), {}, 413, "payload_too_large"),
    }  # fmt: skip
    for name, (body, headers, status, code) in refused.items():
        assert server.send(body, name, **headers) == (status, code), name
    kept = {row[0]: row[1:3] for row in rejected(db)}
    assert kept == {name: (code, body[:MAX_WEBHOOK_BYTES]) for name, (body, _, _, code) in refused.items()}
    assert server.metrics("flashsale_rejected_webhooks") == len(refused)
    lines = server.lines("a webhook was refused")
    assert {(line["code"], line["result"]) for line in lines} == {(row[1], "kept") for row in rejected(db)}
    assert all(line["request_id"] and line["detail"] for line in lines)


def test_one_that_is_delivered_again_and_served_goes(
    server: Server, db: psycopg.Connection, number: int
) -> None:
    assert server.send(event(number, status="succeeded"))[0] == 422
    assert server.send(event(number, status="succeeded"))[0] == 422
    assert db.execute("select deliveries from flashsale.rejected_webhooks").fetchall() == [(2,)]
    assert server.send(event(number)) == (200, "applied")
    assert rejected(db) == []
    assert server.metrics("flashsale_rejected_webhooks") == 0


def test_a_failure_whose_key_was_used_captured_nothing(
    server: Server, db: psycopg.Connection, number: int
) -> None:
    pay(db, number, key="used")
    assert server.send(event(number, key="used", status="failed")) == (422, "idempotency_key_reused")
    assert rejected(db) == []
    assert [line["result"] for line in server.lines("a webhook was refused")] == ["ignored"]


def test_past_the_limit_the_answer_is_the_same_and_the_log_has_an_error(
    server: Server, db: psycopg.Connection
) -> None:
    db.execute("select flashsale.change_settings(p_rejected_limit => 0)")
    assert server.send(b"paid!") == (400, "malformed_json")
    assert rejected(db) == []
    (line,) = server.lines("a refused webhook was not kept: rejected_limit are kept already")
    assert (line["level"], line["webhook_id"]) == ("error", "msg_1")
    wait_until(
        lambda: server.metrics("flashsale_rejected_webhooks_dropped_total") == 1, "the delivery is counted"
    )


def test_one_that_cannot_be_kept_is_to_be_delivered_again(server: Server, db: psycopg.Connection) -> None:
    db.execute("revoke execute on function flashsale.record_rejected_webhook from flashsale_api")
    assert server.send(b"paid!") == (503, "unavailable")
    assert '"level":"error","logger":"flashsale.webhooks"' in server.text()


def test_a_webhook_without_a_valid_signature_is_not_kept_and_the_log_says_why(
    server: Server, db: psycopg.Connection
) -> None:
    body = b"paid!"
    json_type = {"content-type": "application/json"}
    now = int(time.time())
    for headers in (
        json_type,
        signed(body) | {"webhook-timestamp": str(now - 4000)},
        signed(body) | {"webhook-signature": "v1," + base64.b64encode(bytes(32)).decode()},
    ):
        assert server.client.post(URL, content=body, headers=headers).status_code == 401
    assert rejected(db) == []
    details = [line["detail"] for line in server.lines("webhook refused")]
    assert [detail.split(":")[0].split(" 40")[0] for detail in details] == [
        "The request is not signed",
        "The timestamp is",
        "No configured secret matches the signature.",
    ]
    assert server.metrics("flashsale_webhooks_refused_total", code="invalid_signature") == 3


def test_a_webhook_to_a_mistyped_url_is_logged_and_counted(server: Server) -> None:
    for method, path, status, code in (
        ("POST", URL + "/", 404, "not_found"),
        ("POST", "/api/payments/webhooks", 404, "not_found"),
        ("PUT", URL, 405, "method_not_allowed"),
    ):
        assert server.client.request(method, path, content=b"{}").status_code == status
        assert server.lines("webhook refused")[-1]["code"] == code
    assert server.metrics("flashsale_webhooks_refused_total", code="not_found") == 2


def test_a_body_beyond_what_is_read_is_refused_and_logged(server: Server, db: psycopg.Connection) -> None:
    body = b"x" * (MAX_READ_BYTES + 1)
    assert server.send(body) == (413, "payload_too_large")

    def chunks() -> Iterator[bytes]:
        yield from (body[start : start + 100_000] for start in range(0, len(body), 100_000))

    answer = server.client.post(URL, content=chunks(), headers=signed(body))
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert rejected(db) == []
    assert [line["status"] for line in server.lines("webhook refused")] == [413, 413]


def read_body(memory: BodyMemory, data: bytes) -> bytes:
    """Read a body that another one, of MAX_BODY_BYTES + 1, shares the memory with."""

    async def read() -> bytes:
        req = falcon.testing.create_asgi_req(body=data)
        with WebhookBody(memory) as other, WebhookBody(memory) as body:
            await other.read(falcon.testing.create_asgi_req(body=b"x" * (MAX_BODY_BYTES + 1)))
            return await body.read(req)

    return asyncio.run(read())


def test_the_memory_of_large_bodies_is_limited_and_returned() -> None:
    memory = BodyMemory(3 * MAX_BODY_BYTES)
    for size in (MAX_BODY_BYTES, MAX_BODY_BYTES + 1, 2 * MAX_BODY_BYTES - 1):
        assert read_body(memory, b"y" * size) == b"y" * size
        assert memory.in_use == 0
    with pytest.raises(Problem) as refused:
        read_body(memory, b"y" * 2 * MAX_BODY_BYTES)
    assert refused.value.type.code == "overloaded"
    assert memory.in_use == 0


def test_large_bodies_use_bounded_memory_and_small_ones_are_served_meanwhile(
    server: Server, number: int
) -> None:
    """Connections that send most of a large body and then wait take up what large bodies may use."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in signed(b"").items())
    large = event(number, x="y" * (MAX_WEBHOOK_BYTES - 1000))
    waiting: list[socket.socket] = []

    def send_all_but_a_byte(size: int) -> None:
        address = (server.client.base_url.host, server.client.base_url.port)
        waiting.append(socket.create_connection(address))
        head = f"POST {URL} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n{fields}\r\n"
        waiting[-1].sendall(head.encode() + b"x" * (size - 1))

    def is_used_up() -> bool:
        if server.send(large, "large")[1] == "overloaded":
            return True
        send_all_but_a_byte(300_000)  # one that met the large webhook was refused
        return False

    try:
        for _ in range(MAX_LARGE_BODIES_BYTES // 1_000_000):
            send_all_but_a_byte(1_000_000)
        wait_until(is_used_up, "the memory is used up", timeout=9)
        assert server.send(event(number), "small") == (200, "applied")
    finally:
        for connection in waiting:
            connection.close()
    wait_until(lambda: server.send(large, "large")[1] != "overloaded", "the memory is free again")


def test_unsigned_rubbish_is_not_kept_but_a_payment_that_could_be_read_is(
    db: psycopg.Connection, cluster: Cluster, tmp_path: Path, number: int
) -> None:
    """Where unsigned webhooks are allowed, anyone can send them."""
    pay(db, number, "failed", "used")
    json_type = {"content-type": "application/json"}
    with watched_server(cluster.url(APP_ROLE, db.info.dbname), tmp_path / "log") as (client, _):
        for body in (b"paid!", event(number, status="succeeded"), event(2**63)):
            assert client.post(URL, content=body, headers=json_type).status_code in (400, 422)
        assert rejected(db) == []
        reused = event(number, key="used")
        assert client.post(URL, content=reused, headers=json_type).status_code == 422
    assert rejected(db) == [("key:used", "idempotency_key_reused", reused, number)]
