"""POST /api/holds, GET and DELETE /api/holds/{hold_id}."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import httpx
import psycopg


def place(client: httpx.Client, qty: int = 1, product_id: int = 1, key: str | None = None) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key is not None else {}
    return client.post("/api/holds", json={"product_id": product_id, "qty": qty}, headers=headers)


def test_a_hold_lives_from_post_to_delete(client: httpx.Client) -> None:
    placed = place(client, qty=2)
    hold = placed.json()
    assert placed.status_code == 201
    assert placed.headers["location"] == f"/api/holds/{hold['hold_id']}"
    assert "idempotency-replayed" not in placed.headers
    assert hold.keys() == {"hold_id", "product_id", "qty", "status", "expires_at"}
    assert (hold["product_id"], hold["qty"], hold["status"]) == (1, 2, "active")
    assert 0 < hold["hold_id"] < 2**53
    assert hold["expires_at"].endswith("Z")
    lasts = datetime.fromisoformat(hold["expires_at"]) - datetime.now(UTC)
    assert timedelta(seconds=110) < lasts < timedelta(seconds=121)

    assert client.get(placed.headers["location"]).json() == hold
    for _ in range(2):
        released = client.delete(placed.headers["location"])
        assert (released.status_code, released.content) == (204, b"")
    assert client.get(placed.headers["location"]).json() == hold | {"status": "released"}
    assert client.get("/api/products/1").json()["available_stock"] == 50


def test_an_ordered_hold_shows_its_order_and_cannot_be_released(client: httpx.Client) -> None:
    hold = place(client).json()
    order = client.post("/api/orders", json={"hold_id": hold["hold_id"]}).json()
    shown = client.get(f"/api/holds/{hold['hold_id']}").json()
    assert shown == hold | {
        "status": "ordered",
        "order": {"order_id": order["order_id"], "status": "pending_payment"},
    }
    refused = client.delete(f"/api/holds/{hold['hold_id']}")
    assert (refused.status_code, refused.json()["code"]) == (409, "hold_already_used")


def test_a_lapsed_hold_is_expired_at_once(client: httpx.Client, db: psycopg.Connection) -> None:
    db.execute("select flashsale.change_settings(p_hold_time => '100 milliseconds')")
    hold = place(client, qty=50).json()
    db.execute("select pg_sleep_until(%s)", (hold["expires_at"],))
    assert client.get(f"/api/holds/{hold['hold_id']}").json()["status"] == "expired"
    assert client.delete(f"/api/holds/{hold['hold_id']}").json()["code"] == "hold_expired"
    assert client.post("/api/orders", json={"hold_id": hold["hold_id"]}).status_code == 410
    assert place(client, qty=50).status_code == 201


def test_refusals(client: httpx.Client) -> None:
    for answer, status, code in (
        (place(client, product_id=2), 404, "product_not_found"),
        (place(client, qty=51), 409, "insufficient_stock"),
        (client.get("/api/holds/1"), 404, "hold_not_found"),
        (client.get("/api/holds/x"), 404, "hold_not_found"),
        (client.get(f"/api/holds/{2**53}"), 404, "hold_not_found"),
        (client.delete("/api/holds/1"), 404, "hold_not_found"),
        (place(client, key="a b"), 422, "invalid_request"),
        (place(client, key="x" * 256), 422, "invalid_request"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_replay_answers_with_the_same_hold_as_it_now_stands(client: httpx.Client) -> None:
    first, again = place(client, key="k1"), place(client, key="k1")
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    client.delete(first.headers["location"])
    assert place(client, key="k1").json() == first.json() | {"status": "released"}
    reused = place(client, qty=2, key="k1")
    assert (reused.status_code, reused.json()["code"]) == (422, "idempotency_key_reused")
    # Keys are taken as they are, whatever they would mean in an array literal.
    odd = place(client, key='{"NULL",\\}')
    assert odd.json()["hold_id"] != first.json()["hold_id"]
    assert place(client, key='{"NULL",\\}').json() == odd.json()


def test_forty_buyers_at_once_get_exactly_what_there_is(client: httpx.Client, db: psycopg.Connection) -> None:
    db.execute("select flashsale.create_product('Rare', 13, 1, 'USD')")
    with ThreadPoolExecutor(40) as buyers:
        answers = list(buyers.map(lambda _: place(client, product_id=2), range(40)))
    assert sorted(answer.status_code for answer in answers) == [201] * 13 + [409] * 27
    assert len({answer.json().get("hold_id") for answer in answers} - {None}) == 13
    assert {answer.json()["title"] for answer in answers if answer.status_code == 409} == {
        "Insufficient stock"
    }
    assert client.get("/api/products/2").json()["available_stock"] == 0


def test_a_replay_of_an_ordered_hold_shows_its_order(client: httpx.Client) -> None:
    headers = {"Idempotency-Key": "ordered"}
    body = {"product_id": 1, "qty": 1}
    placed = client.post("/api/holds", json=body, headers=headers).json()
    order = client.post("/api/orders", json={"hold_id": placed["hold_id"]}).json()
    replay = client.post("/api/holds", json=body, headers=headers)
    assert replay.json() == placed | {
        "status": "ordered",
        "order": {"order_id": order["order_id"], "status": "pending_payment"},
    }
