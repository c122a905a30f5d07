"""Every error, from every layer, is problem details (RFC 9457), and every response has its request id."""

import re
from typing import Any

import httpx
import psycopg
import pytest

from api import problems
from api.server.http_protocol import MAX_HEAD_BYTES
from tests.api.raw_connection import exchange_raw, send_raw
from tests.support.shared_server import shared_server

shared, postgresql, started, server = shared_server("flashsale_problems", "module")

JSON = {"content-type": "application/json"}


def test_the_table_of_refusals_equals_the_view(db: psycopg.Connection) -> None:
    rows = db.execute("select sqlstate, code, http_status, title from flashsale.refusals").fetchall()
    ours = [
        (sqlstate, type_.code, type_.status, type_.title) for sqlstate, type_ in problems.REFUSALS.items()
    ]
    assert sorted(rows) == sorted(ours)


def assert_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", answer.headers["x-request-id"])
    assert answer.headers["cache-control"] == "no-store"
    problem = answer.json()
    assert problem.keys() >= {"type", "title", "status", "detail", "code"}
    assert (problem["status"], problem["code"], problem["type"]) == (status, code, f"/problems/{code}")
    assert problem["title"]
    assert problem["detail"]


def test_errors_from_the_application(client: httpx.Client) -> None:
    hold = b'{"product_id":1,"qty":1}'
    big = b'{"product_id":1,"qty":1' + b" " * 16_384 + b"}"

    def chunks(data: bytes) -> Any:
        yield from (data[n : n + 1000] for n in range(0, len(data), 1000))

    for send, status, code in (
        (lambda: client.get("/nowhere"), 404, "not_found"),
        (lambda: client.get("/api/holds/1/2"), 404, "not_found"),
        (lambda: client.get("/%FF%00"), 404, "not_found"),
        (lambda: client.get("/api/holds"), 405, "method_not_allowed"),
        (lambda: client.request("PROPFIND", "/api/holds"), 405, "method_not_allowed"),
        (lambda: client.post("/api/products/1", json={}), 405, "method_not_allowed"),
        (lambda: client.post("/api/holds", content=big, headers=JSON), 413, "payload_too_large"),
        (lambda: client.post("/api/holds", content=chunks(big), headers=JSON), 413, "payload_too_large"),
        (lambda: client.post("/api/holds", content=hold), 415, "unsupported_media_type"),
        (lambda: client.post("/api/holds", data={"qty": "1"}), 415, "unsupported_media_type"),
        (lambda: client.post("/api/holds", content=b"", headers=JSON), 400, "malformed_json"),
        (lambda: client.post("/api/holds", content=hold + hold, headers=JSON), 400, "malformed_json"),
        (lambda: client.post("/api/holds", json={"product_id": 1}), 422, "invalid_request"),
    ):
        assert_problem(send(), status, code)

    allowed = client.put("/api/holds").headers["allow"]
    assert set(allowed.split(", ")) == {"POST", "OPTIONS"}
    # The limit is 16 KiB, and not a byte less.
    fits = b'{"product_id":1,"qty":1' + b" " * (16_384 - len(hold)) + b"}"
    assert client.post("/api/holds", content=fits, headers=JSON).status_code == 201
    assert client.post("/api/holds", content=chunks(fits), headers=JSON).status_code == 201
    for media_type, status in (
        ("application/json; charset=utf-8", 201),
        ('Application/JSON;charset="UTF-8"', 201),
        ("application/json; charset=latin1", 415),
        ("application/merge-patch+json", 415),
        ("text/json", 415),
    ):
        answer = client.post("/api/holds", content=hold, headers={"content-type": media_type})
        assert answer.status_code == status, media_type


def test_request_ids_head_and_options(client: httpx.Client) -> None:
    for given in ("abc-123_X.y", "a" * 128):
        assert client.get("/healthz", headers={"X-Request-ID": given}).headers["x-request-id"] == given
        assert client.get("/nowhere", headers={"X-Request-ID": given}).headers["x-request-id"] == given
    made = set()
    for given in ("", "a" * 129, "a b", "<script>", 'x"y', "\u00e9"):
        made.add(
            client.get("/healthz", headers={"X-Request-ID": given.encode("latin1")}).headers["x-request-id"]
        )
    assert len(made) == 6
    assert made.isdisjoint({"a" * 129, "a b"})

    for path in ("/api/products", "/api/products/1", "/healthz", "/readyz"):
        got, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers["content-length"] == got.headers["content-length"]
    missing = client.head("/api/products/2")
    assert (missing.status_code, missing.content) == (404, b"")
    options = client.options("/api/products/1")
    assert options.is_success
    assert "GET" in options.headers["allow"]


def test_invalid_http_is_a_problem_too(client: httpx.Client, server: str) -> None:
    for raw in (
        b"garbage\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz?\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n",
        b"POST /api/holds HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        b"POST /api/holds HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /api/holds HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ):
        assert_problem(send_raw(server, raw), 400, "bad_request")
    huge = b"GET /healthz HTTP/1.1\r\nHost: x\r\nCookie: " + b"x" * (MAX_HEAD_BYTES + 1000)
    assert_problem(send_raw(server, huge), 431, "headers_too_large")
    assert_problem(send_raw(server, huge + b"\r\n\r\n"), 431, "headers_too_large")
    assert client.get("/healthz").status_code == 200


def test_a_body_that_never_ends_is_refused_at_the_limit(client: httpx.Client, server: str) -> None:
    head = b"POST /api/holds HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
    endless = (
        head + b"Transfer-Encoding: chunked\r\n\r\n" + b"4000\r\n" + b"[" * 0x4000 + b"\r\n" + b"1\r\n[\r\n"
    )
    assert_problem(send_raw(server, endless), 413, "payload_too_large")
    lying = head + b"Content-Length: 999999999\r\n\r\n["
    assert_problem(send_raw(server, lying), 413, "payload_too_large")


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n18\r\n%s\r\n", id="no last chunk"),
        pytest.param(b"Content-Length: 25\r\n\r\n%s", id="a byte is missing"),
    ],
)
def test_a_truncated_body_has_no_effect(client: httpx.Client, server: str, rest: bytes) -> None:
    """However whole its JSON looks: the framing says that more was meant to come (RFC 9112, 8)."""
    head = b"POST /api/holds HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    cut = head + rest % b'{"product_id":1,"qty":1}'
    assert exchange_raw(server, cut, then_leave=True) == b""
    if rest.startswith(b"T"):
        assert_problem(send_raw(server, cut + b"0 and rubbish"), 400, "bad_request")
    # What comes later is done later: by now the others would have been.
    assert client.post("/api/holds", json={"product_id": 1, "qty": 1}).status_code == 201
    assert client.get("/api/products/1").json()["available_stock"] == 49


def test_a_trailer_is_not_a_header_and_may_close_the_connection(client: httpx.Client, server: str) -> None:
    head = b"POST /api/holds HTTP/1.1\r\nHost: x\r\n%sTransfer-Encoding: chunked\r\n\r\n"
    body = b'18\r\n{"product_id":1,"qty":1}\r\n0\r\n'
    json_head = head % b"Content-Type: application/json\r\n"
    late = head % b"" + body + b"Content-Type: application/json\r\nConnection: close\r\n\r\n"
    assert_problem(send_raw(server, late), 415, "unsupported_media_type")
    placed = send_raw(server, json_head + body + b"Connection: close\r\n\r\nnot read by the server")
    assert (placed.status_code, placed.headers.get("connection")) == (201, "close")
    assert client.get("/api/products/1").json()["available_stock"] == 49
