"""The terms of a sale over HTTP: window, pause, limits of buyers, extensions, abandoned orders."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from flashsale.database.seed import APP_ROLE
from flashsale.local.cluster import Cluster
from tests.support.buyer_tokens import bearer
from tests.support.http import running_server
from tests.support.shared_server import shared_server

shared, postgresql, started, server = shared_server("flashsale_terms", "module", FLASHSALE_TRUST_BUYER="0")


@pytest.fixture
def shop(client: httpx.Client) -> httpx.Client:
    """A client of a server that verifies tokens and trusts no caller; product 1 has 50 units."""
    return client


def place(
    client: httpx.Client, qty: int = 1, buyer: str | None = None, key: str | None = None
) -> httpx.Response:
    headers = {} if buyer is None else bearer(buyer)
    if key is not None:
        headers["Idempotency-Key"] = key
    return client.post("/api/holds", json={"product_id": 1, "qty": qty}, headers=headers)


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def members(response: httpx.Response) -> dict[str, Any]:
    return {
        name: value
        for name, value in response.json().items()
        if name not in ("type", "title", "status", "detail", "code")
    }


def instant(text: str) -> datetime:
    assert text.endswith("Z")
    return datetime.fromisoformat(text)


# The window and the pause.


def test_a_product_has_its_terms_and_the_databases_clock(shop: httpx.Client, db: psycopg.Connection) -> None:
    product = shop.get("/api/products/1").json()
    assert {name: product[name] for name in ("sale_status", "starts_at", "ends_at", "max_per_buyer")} == {
        "sale_status": "open", "starts_at": None, "ends_at": None, "max_per_buyer": None,
    }  # fmt: skip
    assert abs(instant(product["now"]) - datetime.now(UTC)) < timedelta(seconds=5)
    db.execute(
        "select flashsale.change_terms(array[1], '2126-01-12 10:00+00', '2126-01-12 11:00:00.5+00', 2)"
    )
    product = shop.get("/api/products/1").json()
    assert product == shop.get("/api/products").json()[0] | {"now": product["now"]}
    assert (product["sale_status"], product["max_per_buyer"]) == ("scheduled", 2)
    assert (product["starts_at"], product["ends_at"]) == ("2126-01-12T10:00:00Z", "2126-01-12T11:00:00.500Z")
    db.execute("select flashsale.change_terms(array[1], p_listed => false)")
    assert shop.get("/api/products").json() == []
    assert shop.get("/api/products/1").status_code == 200


@pytest.mark.parametrize(("starts_in", "most", "least"), [("1 day", 60, 60), ("30 seconds", 30, 1)])
def test_an_early_request_gets_a_retry_after(
    shop: httpx.Client, db: psycopg.Connection, starts_in: str, most: int, least: int
) -> None:
    starts_at = db.execute(
        "select starts_at from flashsale.change_terms(array[1], now() + %s::interval)", (starts_in,)
    ).fetchone()[0]
    early = place(shop)
    assert code(early) == (409, "sale_not_started")
    assert members(early).keys() == {"starts_at"}
    assert abs(instant(members(early)["starts_at"]) - starts_at) < timedelta(milliseconds=1)
    assert least <= int(early.headers["retry-after"]) <= most


def test_holds_are_placed_from_the_start_on_and_not_before(
    shop: httpx.Client, db: psycopg.Connection
) -> None:
    starts_at = db.execute(
        "select starts_at from flashsale.change_terms(array[1], now() + interval '1 second')"
    ).fetchone()[0]
    while (answer := place(shop)).status_code != 201:
        assert code(answer) == (409, "sale_not_started")
        assert answer.headers["retry-after"] == "1"
    placed_at = db.execute("select min(placed_at) from flashsale_data.holds").fetchone()[0]
    assert starts_at <= placed_at < starts_at + timedelta(seconds=1)


def test_an_ended_and_a_paused_sale_place_no_hold_but_go_on_with_what_is_held(
    shop: httpx.Client, db: psycopg.Connection
) -> None:
    held = place(shop).json()["hold_id"]
    db.execute("select flashsale.pause_sale(array[1])")
    assert code(place(shop)) == (409, "sale_paused")
    assert shop.get("/api/products/1").json()["sale_status"] == "paused"
    db.execute("select flashsale.resume_sale(array[1])")
    assert place(shop).status_code == 201
    ends_at = db.execute(
        "select ends_at from flashsale.change_terms(array[1], p_ends_at => now())"
    ).fetchone()[0]
    ended = place(shop)
    assert code(ended) == (409, "sale_ended")
    assert "retry-after" not in ended.headers
    assert abs(instant(members(ended)["ends_at"]) - ends_at) < timedelta(milliseconds=1)
    assert shop.post("/api/orders", json={"hold_id": held}).status_code == 201


# The limit.


def test_a_buyer_gets_no_more_than_the_limit(shop: httpx.Client, db: psycopg.Connection) -> None:
    db.execute("select flashsale.change_terms(array[1], p_max_per_buyer => 3)")
    assert code(place(shop)) == (422, "buyer_required")
    assert place(shop, 2, "ada").status_code == 201
    refused = place(shop, 2, "ada")
    assert code(refused) == (409, "limit_reached")
    assert members(refused) == {"limit": 3, "taken": 2, "remaining": 1}
    assert place(shop, 1, "ada").status_code == 201
    assert place(shop, 3, "bob").status_code == 201
    for buyer, taken in (("ada", 3), ("eve", 0)):
        allowance = shop.get("/api/products/1/allowance", headers=bearer(buyer))
        assert allowance.json() == {"max_per_buyer": 3, "taken": taken, "remaining": 3 - taken}


def test_a_hold_has_no_more_units_than_one_may(shop: httpx.Client, db: psycopg.Connection) -> None:
    db.execute("select flashsale.change_terms(array[1], p_max_per_hold => 4)")
    refused = place(shop, 5)
    assert (code(refused), members(refused)) == (
        (409, "limit_reached"), {"limit": 4, "taken": 0, "remaining": 4},
    )  # fmt: skip
    assert place(shop, 4).status_code == 201


def test_two_hundred_requests_of_one_buyer_get_exactly_the_limit(
    shop: httpx.Client, db: psycopg.Connection
) -> None:
    db.execute("select flashsale.change_terms(array[1], p_max_per_buyer => 2)")
    headers = bearer("ada")
    body = {"product_id": 1, "qty": 1}
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda _: shop.post("/api/holds", json=body, headers=headers), range(200)))
    codes = [answer.status_code for answer in answers]
    assert (codes.count(201), codes.count(409)) == (2, 198)


def test_a_key_belongs_to_its_buyer(shop: httpx.Client) -> None:
    placed = place(shop, buyer="ada", key="k1")
    assert place(shop, buyer="ada", key="k1").json() == placed.json()
    assert code(place(shop, buyer="bob", key="k1")) == (422, "idempotency_key_reused")
    assert code(place(shop, key="k1")) == (422, "idempotency_key_reused")


def test_an_allowance_needs_a_buyer_and_a_product(shop: httpx.Client) -> None:
    path = "/api/products/1/allowance"
    assert shop.get(path, headers=bearer()).json() == {
        "max_per_buyer": None,
        "taken": None,
        "remaining": None,
    }
    assert code(shop.get(path)) == (422, "invalid_request")
    assert code(shop.get(path, params={"buyer": "ada"})) == (422, "invalid_request")
    assert code(shop.get("/api/products/2/allowance", headers=bearer())) == (404, "product_not_found")
    assert code(shop.get("/api/products/x/allowance", headers=bearer())) == (404, "product_not_found")


# Who the buyer is.


@pytest.mark.parametrize(
    "authorization", ["Bearer", "Bearer x", *bearer(exp=1).values(), *bearer(aud="x").values()]
)
def test_a_token_that_is_not_valid_is_refused(shop: httpx.Client, authorization: str) -> None:
    headers = {"Authorization": authorization}
    for answer in (
        shop.post("/api/holds", json={"product_id": 1, "qty": 1}, headers=headers),
        shop.get("/api/products/1/allowance", headers=headers),
    ):
        assert code(answer) == (401, "invalid_token")
        assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert shop.get("/api/products/1").json()["available_stock"] == 50


def test_a_buyer_in_the_body_needs_trust(shop: httpx.Client, db: psycopg.Connection) -> None:
    body = {"product_id": 1, "qty": 1, "buyer": "ada"}
    refused = shop.post("/api/holds", json=body)
    assert code(refused) == (422, "invalid_request")
    assert "FLASHSALE_TRUST_BUYER" in refused.json()["detail"]
    assert db.execute("select count(*) from flashsale_data.holds").fetchone()[0] == 0


def test_a_trusted_caller_names_the_buyer(db: psycopg.Connection, cluster: Cluster, tmp_path: Path) -> None:
    db.execute("select flashsale.create_product('Shoe', 50, 99, 'USD', p_max_per_buyer => 2)")
    url = cluster.url(APP_ROLE, db.info.dbname)
    log = tmp_path / "gunicorn.log"
    with running_server(url, log, FLASHSALE_BUYER_KEYS="") as base, httpx.Client(base_url=base) as client:

        def named(buyer: Any, **more: Any) -> httpx.Response:
            return client.post("/api/holds", json={"product_id": 1, "qty": 2, "buyer": buyer}, **more)

        assert named("ключ 🦶").status_code == 201
        assert code(named("ключ 🦶")) == (409, "limit_reached")
        allowance = client.get("/api/products/1/allowance", params={"buyer": "ключ 🦶"})
        assert allowance.json() == {"max_per_buyer": 2, "taken": 2, "remaining": 0}
        for wrong in ("", "x" * 256, None, 1, ["ada"], "\0"):
            assert code(named(wrong)) == (422, "invalid_request")
        for wrong in ("", "x" * 256, "\0"):
            refused = client.get("/api/products/1/allowance", params={"buyer": wrong})
            assert code(refused) == (422, "invalid_request")
        assert named("🦶" * 255).status_code == 201
        # Without a key every token is foreign, and none becomes valid by trust.
        assert code(named("ada", headers=bearer("ada"))) == (401, "invalid_token")
        twice = b'{"product_id":1,"qty":1,"buyer":"a","buyer":"b"}'
        json = {"Content-Type": "application/json"}
        assert code(client.post("/api/holds", content=twice, headers=json)) == (400, "malformed_json")
        surrogate = b'{"product_id":1,"qty":1,"buyer":"\\ud800"}'
        assert code(client.post("/api/holds", content=surrogate, headers=json)) == (400, "malformed_json")
        described = client.get("/openapi.json").json()["components"]["schemas"]["NewHold"]["properties"]
        assert "buyer" in described
    assert "FLASHSALE_TRUST_BUYER is set" in log.read_text()


def test_the_document_of_a_server_without_trust_has_no_named_buyer(shop: httpx.Client) -> None:
    described = shop.get("/openapi.json").json()
    assert "buyer" not in described["components"]["schemas"]["NewHold"]["properties"]
    allowance = described["paths"]["/api/products/{product_id}/allowance"]["get"]
    assert "buyer" not in {parameter.get("name") for parameter in allowance["parameters"]}
    assert allowance["security"] == [{}, {"buyerToken": []}]


# Extensions and abandoned orders.


def test_a_hold_is_extended_once(shop: httpx.Client) -> None:
    hold = place(shop).json()
    path = f"/api/holds/{hold['hold_id']}/extension"
    extended = shop.post(path, json={"expires_at": hold["expires_at"]})
    assert extended.status_code == 200
    later = extended.json()["expires_at"]
    assert extended.json() == hold | {"expires_at": later}
    assert instant(later) - instant(hold["expires_at"]) == timedelta(minutes=1)
    assert "idempotency-replayed" not in extended.headers
    again = shop.post(path, json={"expires_at": hold["expires_at"]})
    assert (again.json(), again.headers["idempotency-replayed"]) == (extended.json(), "true")
    refused = shop.post(path, json={"expires_at": later})
    assert (code(refused), members(refused)) == ((409, "extension_refused"), {"expires_at": later})
    assert shop.get(f"/api/holds/{hold['hold_id']}").json()["expires_at"] == later


def test_what_is_no_active_hold_is_not_extended(shop: httpx.Client, db: psycopg.Connection) -> None:
    def extend(hold: dict[str, Any]) -> httpx.Response:
        return shop.post(f"/api/holds/{hold['hold_id']}/extension", json={"expires_at": hold["expires_at"]})

    ordered, released = place(shop).json(), place(shop).json()
    shop.post("/api/orders", json={"hold_id": ordered["hold_id"]})
    shop.delete(f"/api/holds/{released['hold_id']}")
    db.execute("select flashsale.change_settings(p_hold_time => '100 milliseconds')")
    lapsed = place(shop).json()
    db.execute("select pg_sleep_until(%s)", (lapsed["expires_at"],))
    for hold, status, expected in (
        (ordered, 409, "hold_already_used"),
        (released, 409, "hold_released"),
        (lapsed, 410, "hold_expired"),
        (lapsed | {"hold_id": 1}, 404, "hold_not_found"),
        (lapsed | {"hold_id": "x"}, 404, "hold_not_found"),
    ):
        refused = extend(hold)
        assert code(refused) == (status, expected)
        assert members(refused) == {}


@pytest.mark.parametrize(
    "body",
    [
        {}, {"expires_at": None}, {"expires_at": 5}, {"expires_at": "soon"},
        {"expires_at": "2025-13-12T10:45:20Z"}, {"expires_at": "2025-01-12T10:45:20"},
        {"expires_at": "2025-01-12T10:45:20+00:00"}, {"expires_at": "0000-01-12T10:45:20Z"},
        {"expires_at": "2025-01-12T10:45:20Z", "by": 1},
    ],
)  # fmt: skip
def test_an_extension_has_the_end_that_was_seen(client: httpx.Client, body: dict[str, Any]) -> None:
    assert code(client.post("/api/holds/1/extension", json=body)) == (422, "invalid_request")


def test_an_abandoned_order_gives_its_units_back(shop: httpx.Client) -> None:
    hold_id = place(shop, 3).json()["hold_id"]
    order_id = shop.post("/api/orders", json={"hold_id": hold_id}).json()["order_id"]
    path, right = f"/api/orders/{order_id}", {"hold_id": hold_id}
    for wrong in ({}, {"hold_id": hold_id - 1}, {"hold_id": "x"}):
        assert code(shop.delete(path, params=wrong)) == (404, "order_not_found")
    assert shop.get("/api/products/1").json()["available_stock"] == 47
    for _ in range(2):
        abandoned = shop.delete(path, params=right)
        assert (abandoned.status_code, abandoned.content) == (204, b"")
    order = shop.get(path, params=right).json()
    assert (order["status"], order["cancel_reason"]) == ("cancelled", "buyer_cancelled")
    assert shop.get("/api/products/1").json()["available_stock"] == 50


def test_a_paid_order_cannot_be_abandoned(shop: httpx.Client) -> None:
    hold_id = place(shop).json()["hold_id"]
    order_id = shop.post("/api/orders", json={"hold_id": hold_id}).json()["order_id"]
    event = {"idempotency_key": "pay_1", "order_id": order_id, "status": "success"}
    assert shop.post("/api/payments/webhook", json=event).json()["result"] == "applied"
    refused = shop.delete(f"/api/orders/{order_id}", params={"hold_id": hold_id})
    assert (code(refused), members(refused)) == ((409, "order_settled"), {"order_status": "paid"})


def test_a_free_order_is_paid_at_once(shop: httpx.Client, db: psycopg.Connection) -> None:
    db.execute("select flashsale.change_price(1, 0)")
    hold_id = place(shop).json()["hold_id"]
    order = shop.post("/api/orders", json={"hold_id": hold_id}).json()
    assert (order["status"], order["amount"]) == ("paid", "0.00")
