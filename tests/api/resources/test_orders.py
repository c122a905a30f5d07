"""POST /api/orders and GET /api/orders/{order_id}."""

import httpx


def hold(client: httpx.Client, qty: int = 1) -> int:
    return client.post("/api/holds", json={"product_id": 1, "qty": qty}).json()["hold_id"]


def test_an_order_is_created_and_its_hold_id_gives_access(client: httpx.Client) -> None:
    hold_id = hold(client, qty=2)
    made = client.post("/api/orders", json={"hold_id": hold_id})
    order = made.json()
    assert made.status_code == 201
    assert order.keys() == {"order_id", "status", "amount", "currency", "payment_due_at"}
    assert (order["status"], order["amount"], order["currency"]) == ("pending_payment", "198.00", "USD")

    path = f"/api/orders/{order['order_id']}"
    shown = client.get(path, params={"hold_id": hold_id})
    assert shown.status_code == 200
    assert shown.json() == order | {"product_id": 1, "qty": 2, "created_at": shown.json()["created_at"]}
    assert shown.json()["created_at"].endswith("Z")
    for query in ("", "?hold_id=", "?hold_id=1", "?hold_id=x", "?hold_id=-1", f"?hold_id={2**64}", "?hold=1"):
        answer = client.get(path + query)
        assert (answer.status_code, answer.json()["code"]) == (404, "order_not_found"), query
        assert ("hold_id is required" in answer.json()["detail"]) == ("hold_id=" not in query), query
    for order_id in ("0", "x", "999999", str(2**63)):
        assert client.get(f"/api/orders/{order_id}?hold_id={hold_id}").json()["code"] == "order_not_found"

    client.post(
        "/api/payments/webhook",
        json={"idempotency_key": "k", "order_id": order["order_id"], "status": "failed"},
    )
    cancelled = client.get(path, params={"hold_id": hold_id}).json()
    assert (cancelled["status"], cancelled["cancel_reason"]) == ("cancelled", "payment_failed")


def test_a_used_hold_names_its_order_in_the_problem(client: httpx.Client) -> None:
    hold_id = hold(client)
    order = client.post("/api/orders", json={"hold_id": hold_id}).json()
    again = client.post("/api/orders", json={"hold_id": hold_id})
    assert again.status_code == 409
    problem = again.json()
    assert problem["code"] == "hold_already_used"
    assert (problem["order_id"], problem["order_status"]) == (order["order_id"], "pending_payment")


def test_replays_and_refusals(client: httpx.Client) -> None:
    hold_id, other = hold(client), hold(client)
    key = {"Idempotency-Key": "order-1"}
    first = client.post("/api/orders", json={"hold_id": hold_id}, headers=key)
    again = client.post("/api/orders", json={"hold_id": hold_id}, headers=key)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    reused = client.post("/api/orders", json={"hold_id": other}, headers=key)
    assert (reused.status_code, reused.json()["code"]) == (422, "idempotency_key_reused")

    client.delete(f"/api/holds/{other}")
    released = client.post("/api/orders", json={"hold_id": other})
    assert (released.status_code, released.json()["code"]) == (409, "hold_released")
    assert "order_id" not in released.json()
    unknown = client.post("/api/orders", json={"hold_id": 1})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "hold_not_found")
    for body in ({"hold_id": 2**53}, {"hold_id": 0}, {"hold_id": "1"}, {}, {"hold_id": 1, "x": 1}, []):
        assert client.post("/api/orders", json=body).status_code == 422, body
