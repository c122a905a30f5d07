"""FLASHSALE_CORS_ORIGINS: which responses may be read by pages of other origins."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from api.cross_origin import origin_of
from flashsale.database.seed import APP_ROLE
from flashsale.local.cluster import Cluster
from tests.api.raw_connection import send_raw
from tests.support.metrics_scrape import Metrics, watched_server

SHOP, OTHER = "https://shop.example", "http://localhost:3000"
PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type,idempotency-key",
}

Serve = Callable[[str], AbstractContextManager[tuple[httpx.Client, Metrics]]]


@pytest.fixture
def serve(db: psycopg.Connection, cluster: Cluster, tmp_path: Path) -> Serve:
    """A server with these origins."""
    db.execute("select flashsale.create_product('Shoe', 50, 99, 'USD')")

    @contextmanager
    def serving(origins: str) -> Iterator[tuple[httpx.Client, Metrics]]:
        url = cluster.url(APP_ROLE, db.info.dbname)
        with watched_server(url, tmp_path / "log", FLASHSALE_CORS_ORIGINS=origins) as server:
            yield server

    return serving


def cross_origin(response: httpx.Response) -> dict[str, str]:
    """Its headers that are about other origins."""
    prefix = "access-control-"
    headers = {
        name.removeprefix(prefix): v for name, v in response.headers.items() if name.startswith(prefix)
    }
    return headers | ({"vary": response.headers["vary"]} if "vary" in response.headers else {})


def hold(client: httpx.Client, origin: str, qty: int = 1) -> httpx.Response:
    headers = {"Origin": origin, "Idempotency-Key": f"{origin}/{qty}"}
    return client.post("/api/holds", json={"product_id": 1, "qty": qty}, headers=headers)


EXPOSED = "Location, Link, Idempotency-Replayed, Retry-After, X-Request-ID"
READABLE = {"allow-origin": SHOP, "expose-headers": EXPOSED, "vary": "Origin"}


def test_listed_origins_may_read_every_response_but_the_webhooks(serve: Serve) -> None:
    with serve(f"{SHOP}, {OTHER}") as (client, metrics):
        from_shop = {"Origin": SHOP}
        placed = hold(client, SHOP)
        assert (placed.status_code, cross_origin(placed)) == (201, READABLE)
        assert cross_origin(hold(client, OTHER)) == READABLE | {"allow-origin": OTHER}
        refused = hold(client, SHOP, 60)
        assert (refused.status_code, cross_origin(refused)) == (409, READABLE)
        for path in ("/api/products/1", "/api/products/2", "/nowhere", "/openapi.json"):
            assert cross_origin(client.get(path, headers=from_shop)) == READABLE, path
        assert cross_origin(client.put("/api/holds", headers=from_shop)) == READABLE
        unparsed = send_raw(
            str(client.base_url), b"BREW / HTTP/1.1\r\nHost: x\r\nOrigin: %s\r\n\r\n" % SHOP.encode()
        )
        # The parser stops at the first line.
        assert (unparsed.status_code, cross_origin(unparsed)) == (400, {"vary": "Origin"})
        huge = b"GET / HTTP/1.1\r\nOrigin: %s\r\nCookie: %s\r\n\r\n" % (SHOP.encode(), b"x" * 70_000)
        too_large = send_raw(str(client.base_url), huge)
        assert (too_large.status_code, cross_origin(too_large)) == (431, READABLE)

        for origin in ("https://evil.example", "null", f"{SHOP}.evil.example", SHOP.upper(), "\u00e9", ""):
            answer = client.get("/api/products/1", headers={"Origin": origin.encode("latin-1")})
            assert (answer.status_code, cross_origin(answer)) == (200, {"vary": "Origin"}), origin
        assert cross_origin(client.get("/api/products/1")) == {"vary": "Origin"}

        event = {"idempotency_key": "k", "order_id": 1, "status": "success"}
        webhook = client.post("/api/payments/webhook", json=event, headers=from_shop)
        assert (webhook.status_code, cross_origin(webhook)) == (202, {})
        assert cross_origin(client.options("/api/payments/webhook", headers=from_shop | PREFLIGHT)) == {}
        assert cross_origin(httpx.get(metrics.url, headers=from_shop)) == {}


def test_a_preflight_is_answered_for_listed_origins(serve: Serve) -> None:
    with serve(SHOP) as (client, _):

        def preflight(path: str, origin: str, method: str = "POST", names: bytes = b"x") -> httpx.Response:
            asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": names}
            answer = client.options(path, headers={"Origin": origin, **asked})
            assert answer.status_code == 200
            return answer

        for path, method in (
            ("/api/holds", "POST"),
            ("/api/holds/5", "DELETE"),
            ("/api/holds/5/extension", "POST"),
            ("/api/orders", "POST"),
            ("/api/orders/5", "DELETE"),
            ("/api/products/1/allowance", "GET"),
        ):
            # What is allowed does not depend on what is asked for, which may be anything.
            for names in (b"content-type,idempotency-key", b"\xff"):
                got = cross_origin(preflight(path, SHOP, method, names))
                assert method in got.pop("allow-methods").split(", ")
                allowed = {name.lower() for name in got.pop("allow-headers").split(", ")}
                assert {"authorization", "content-type", "idempotency-key", "x-request-id"} <= allowed
                assert int(got.pop("max-age")) > 0
                assert got == READABLE
        assert cross_origin(preflight("/api/holds", OTHER)) == {"vary": "Origin"}


def test_a_star_allows_every_origin_without_credentials(serve: Serve) -> None:
    any_origin = {"allow-origin": "*", "expose-headers": EXPOSED}
    with serve("*") as (client, _):
        assert cross_origin(hold(client, SHOP)) == any_origin
        preflight = client.options("/api/holds", headers={"Origin": OTHER, **PREFLIGHT})
        assert cross_origin(preflight)["allow-origin"] == "*"
        garbage = send_raw(str(client.base_url), b"garbage\r\n\r\n")
        assert (garbage.status_code, cross_origin(garbage)) == (400, any_origin)
        event = {"idempotency_key": "k", "order_id": 1, "status": "success"}
        webhook = client.post("/api/payments/webhook", json=event, headers={"Origin": SHOP})
        assert cross_origin(webhook) == {}


def test_without_origins_there_are_no_headers(serve: Serve) -> None:
    with serve("") as (client, _):
        assert cross_origin(hold(client, SHOP)) == {}
        assert cross_origin(client.options("/api/holds", headers={"Origin": SHOP, **PREFLIGHT})) == {}
        assert cross_origin(send_raw(str(client.base_url), b"garbage\r\n\r\n")) == {}


@pytest.mark.parametrize(
    ("data", "origin"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\norigin:https://a\r\nAccept: */*\r\n\r\n", b"https://a"),
        (b"GET / HTTP/1.1\r\nOrigin: \t https://a \r\n\r\n", b"https://a"),
        (b"GET / HTTP/1.1\r\nX-Origin: https://a\r\n\r\nbody\r\nOrigin: https://b\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: x\r\nOri", None),
        (b"", None),
        (b"GET / HTTP/1.1\r\norigin:" + b" " * 60_000 + b"\r", b""),
    ],
)
def test_the_origin_of_a_request_that_was_not_parsed(data: bytes, origin: bytes | None) -> None:
    assert origin_of(data) == origin
