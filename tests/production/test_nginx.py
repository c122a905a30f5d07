"""ops/nginx.conf: what it exposes and limits, and that no log has the id of a hold."""

import json
import re
import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from api.schemas.webhook_body import MAX_READ_BYTES, MAX_WEBHOOK_BYTES
from api.settings import KEEPALIVE_SECONDS
from flashsale.database.seed import APP_ROLE
from flashsale.local.cluster import Cluster
from flashsale.webhooks import signature_headers
from tests.api.test_settings import SECRET
from tests.support import servers
from tests.support.http import running_server
from tests.support.nginx import CONFIGURATION, HOST, Nginx, running_nginx
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, servers.needs("nginx")]

JSON = {"Content-Type": "application/json"}
WEBHOOK = "/api/payments/webhook"


@pytest.fixture
def production(db: psycopg.Connection, cluster: Cluster, tmp_path: Path) -> Iterator[str]:
    db.execute("select flashsale.create_product('Shoe', 1000, 99, 'USD')")
    settings = {
        "FLASHSALE_WEBHOOK_SECRETS": SECRET,
        "FLASHSALE_ALLOW_UNSIGNED_WEBHOOKS": "0",
        "FLASHSALE_PAGE": "0",
    }
    with running_server(cluster.url(APP_ROLE, db.info.dbname), tmp_path / "gunicorn.log", **settings) as base:
        yield base


@pytest.fixture
def nginx(production: str, tmp_path: Path) -> Iterator[Nginx]:
    with running_nginx(production, tmp_path / "nginx") as nginx:
        yield nginx


def call(
    nginx: Nginx, method: str, path: str, body: object = None, headers: dict | None = None, **options: str
) -> tuple[int, dict]:
    conn = nginx.connect(**options)
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    conn.request(method, path, data, {**(JSON if data is not None else {}), **(headers or {})})
    response = conn.getresponse()
    text = response.read()
    conn.close()
    is_json = "json" in (response.headers["content-type"] or "")
    return response.status, json.loads(text) if is_json and text else {}


def test_a_purchase_leaves_no_id_of_a_hold_in_any_log(nginx: Nginx, tmp_path: Path) -> None:
    assert call(nginx, "GET", "/api/products/1")[1]["available_stock"] == 1000
    key = {"Idempotency-Key": str(uuid.uuid4())}
    status, hold = call(nginx, "POST", "/api/holds", {"product_id": 1, "qty": 2}, key)
    assert status == 201
    hold_id = hold["hold_id"]
    assert call(nginx, "GET", f"/api/holds/{hold_id}")[0] == 200
    _, order = call(nginx, "POST", "/api/orders", {"hold_id": hold_id})
    path = f"/api/orders/{order['order_id']}?hold_id={hold_id}"
    event = {"idempotency_key": "pay_1:success", "order_id": order["order_id"], "status": "success"}
    data = json.dumps(event).encode()
    assert call(nginx, "POST", WEBHOOK, data, signature_headers(data, "msg_1", (SECRET,)))[0] == 200
    assert call(nginx, "GET", path, headers={"Referer": f"https://shop.example{path}"})[1]["status"] == "paid"
    assert call(nginx, "DELETE", f"/api/holds/{hold_id}")[0] == 409
    lines = [json.loads(line) for line in (nginx.folder / "flashsale.log").read_text().splitlines()]
    assert {line["route"] for line in lines} == {
        *("/api/products/{product_id}", "/api/holds", "/api/holds/{hold_id}"),
        *("/api/orders", "/api/orders/{order_id}", WEBHOOK),
    }
    assert all(line["request_id"] for line in lines)

    # Limits and failures are logged with whole request lines, unless the level is crit.
    for _ in range(60):
        call(nginx, "GET", path)
    assert str(hold_id) not in nginx.logs() + (tmp_path / "gunicorn.log").read_text()


def test_a_failure_of_the_server_leaves_none_either(db: psycopg.Connection, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with running_nginx(f"http://127.0.0.1:{port}", tmp_path / "nginx") as nginx:
        for path in ("/api/holds/4872316950284173", "/api/orders/99?hold_id=4872316950284173"):
            assert call(nginx, "GET", path)[0] == 502
        wait_until(lambda: '"status":502' in nginx.logs(), "nginx has logged the failure")
        assert "4872316950284173" not in nginx.logs()


def test_only_the_paths_of_buyers_and_of_the_provider_are_exposed(nginx: Nginx) -> None:
    for path in ("/", "/docs", "/openapi.json", "/page/page.js", "/metrics", "/healthz", "/readyz", "/x"):
        assert call(nginx, "GET", path)[0] == 404, path
    assert call(nginx, "GET", "/api/products")[0] == 200
    assert call(nginx, "GET", "/api/holds/1")[1]["code"] == "hold_not_found"
    assert call(nginx, "GET", "/api/orders/1?hold_id=1")[1]["code"] == "order_not_found"
    assert call(nginx, "POST", WEBHOOK, {})[1]["code"] == "invalid_signature"
    # What nginx answers itself is no path of the server under another spelling.
    for path in ("//healthz", "/api/../healthz", "/api/holds/../../metrics", "/%68ealthz"):
        assert call(nginx, "GET", path)[0] == 404, path


def test_http_2_is_offered_and_old_versions_of_tls_are_not(nginx: Nginx) -> None:
    nginx.tls.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", nginx.port)) as plain,
        nginx.tls.wrap_socket(plain, server_hostname=HOST) as wire,
    ):
        assert wire.selected_alpn_protocol() == "h2"
        assert wire.version() == "TLSv1.3"
    old = subprocess.run(
        ["openssl", "s_client", "-tls1_1", "-cipher", "ALL@SECLEVEL=0",
         "-connect", f"127.0.0.1:{nginx.port}"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    assert "alert protocol version" in old.stderr


def test_a_large_webhook_reaches_the_server_and_a_large_hold_does_not(
    nginx: Nginx, db: psycopg.Connection
) -> None:
    event = {"idempotency_key": "pay_1:success", "order_id": 1, "status": "success", "more": ""}
    event["more"] = "x" * (MAX_WEBHOOK_BYTES - len(json.dumps(event)))
    data = json.dumps(event).encode()
    assert len(data) == MAX_WEBHOOK_BYTES
    assert call(nginx, "POST", WEBHOOK, data, signature_headers(data, "msg_1", (SECRET,)))[0] == 202
    data += b" "
    status, problem = call(nginx, "POST", WEBHOOK, data, signature_headers(data, "msg_2", (SECRET,)))
    assert (status, problem["code"]) == (413, "payload_too_large")
    assert db.execute("select code from flashsale.rejected_webhooks").fetchall() == [("payload_too_large",)]
    assert call(nginx, "POST", "/api/holds", b" " * 20_000)[1]["code"] == "payload_too_large"
    assert call(nginx, "POST", "/api/holds", b" " * 70_000) == (413, {})


def test_events_of_a_stream_come_at_once_without_the_figures_of_the_shop(nginx: Nginx) -> None:
    conn = nginx.connect()
    conn.request("GET", "/api/products/1/live")
    response = conn.getresponse()
    assert response.headers["content-type"] == "text/event-stream"

    def sample() -> dict:
        while not (line := response.readline()).startswith(b"data: {"):
            assert line
        return json.loads(line.removeprefix(b"data: "))

    assert sample().keys() == {"at", "available"}
    call(nginx, "POST", "/api/holds", {"product_id": 1, "qty": 400})
    # Fewer bytes than any buffer of nginx, and far sooner than the stream ends.
    assert sample()["available"] == 600
    conn.close()


def test_one_address_cannot_take_the_server_and_others_are_served(nginx: Nginx) -> None:
    body = {"product_id": 1, "qty": 1}
    answers = [call(nginx, "POST", "/api/holds", body) for _ in range(60)]
    refused = [problem for status, problem in answers if status == 429]
    assert answers[0][0] == 201 and len(refused) > 5
    assert refused[0]["code"] == "too_many_requests"
    assert call(nginx, "POST", "/api/holds", body, source="127.0.0.2")[0] == 201
    assert call(nginx, "GET", "/api/products/1")[0] == 200
    assert call(nginx, "POST", WEBHOOK, {})[0] == 401


def test_one_address_has_so_many_streams(nginx: Nginx) -> None:
    limit = int(re.search(r"limit_conn flashsale_streams (\d+);", CONFIGURATION)[1])
    opened = [nginx.connect() for _ in range(limit + 1)]
    statuses = []
    for conn in opened:
        conn.request("GET", "/api/products/1/live")
        statuses.append(conn.getresponse().status)
    assert statuses == [200] * limit + [429]
    for conn in opened:
        conn.close()


def test_times_and_sizes_agree_with_the_server() -> None:
    def seconds(name: str, text: str = CONFIGURATION) -> int:
        return int(re.search(rf"^ +{name} (\d+)s;", text, re.MULTILINE)[1])

    upstream, _, server = CONFIGURATION.partition("\nserver {")
    assert seconds("keepalive_timeout", upstream) < KEEPALIVE_SECONDS
    assert seconds("proxy_read_timeout", server) >= 10
    stream = server[server.index("/live$") :]
    assert seconds("proxy_read_timeout", stream) > 5 * 2
    assert "client_max_body_size 1m;" in server and MAX_READ_BYTES == 1024 * 1024
    assert f"client_body_buffer_size {MAX_WEBHOOK_BYTES // 1024}k;" in server
