"""HTTP over two shards: each id leads to the shard of its slot."""

import json
import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from flashsale.database.seed import APP_ROLE
from tests.shards.served.shop import NAMES, SLOTS, Shop
from tests.support.http import free_port
from tests.support.metrics_scrape import Metrics
from tests.support.provider_events import sign_stripe, stripe_event
from tests.support.sql_calls import row, value
from tests.support.waiting import wait_until

WEBHOOK = "/api/payments/webhook"


def hold(client: httpx.Client, product: int, qty: int = 1, key: str | None = None) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return client.post("/api/holds", json={"product_id": product, "qty": qty}, headers=headers)


def order(client: httpx.Client, product: int) -> tuple[int, int]:
    """An order, and its hold."""
    hold_id = hold(client, product).json()["hold_id"]
    response = client.post("/api/orders", json={"hold_id": hold_id})
    assert response.status_code == 201, response.text
    return response.json()["order_id"], hold_id


def pay(client: httpx.Client, order_id: int, key: str) -> httpx.Response:
    event = {"idempotency_key": key, "order_id": order_id, "status": "success"}
    return client.post(WEBHOOK, json=event)


@pytest.mark.parametrize("slot", range(SLOTS))
def test_a_sale_in_any_slot(client: httpx.Client, shop: Shop, slot: int) -> None:
    product = shop.product(slot)
    order_id, hold_id = order(client, product)
    assert (product % SLOTS, hold_id % SLOTS, order_id % SLOTS) == (slot, slot, slot)
    assert client.get(f"/api/holds/{hold_id}").json()["order"]["order_id"] == order_id
    assert client.get(f"/api/products/{product}").json()["available_stock"] == 49
    assert pay(client, order_id, "p").json()["result"] == "applied"
    shown = client.get(f"/api/orders/{order_id}", params={"hold_id": hold_id})
    assert shown.json()["status"] == "paid"

    placed = hold(client, product).json()
    extension = {"expires_at": placed["expires_at"]}
    assert client.post(f"/api/holds/{placed['hold_id']}/extension", json=extension).status_code == 200
    assert client.delete(f"/api/holds/{placed['hold_id']}").status_code == 204
    abandoned, of = order(client, product)
    assert client.delete(f"/api/orders/{abandoned}", params={"hold_id": of}).status_code == 204
    allowance = client.get(f"/api/products/{product}/allowance", params={"buyer": "ann"})
    assert allowance.json()["max_per_buyer"] is None
    shop.check()


def test_what_does_not_exist_is_not_found_on_its_own_shard(client: httpx.Client, shop: Shop) -> None:
    for slot in range(SLOTS):
        id_ = 4000 + slot
        codes = [
            hold(client, id_).json()["code"],
            client.get(f"/api/products/{id_}").json()["code"],
            client.get(f"/api/holds/{id_}").json()["code"],
            client.get(f"/api/orders/{id_}", params={"hold_id": id_}).json()["code"],
        ]
        assert codes == ["product_not_found", "product_not_found", "hold_not_found", "order_not_found"]


def test_an_early_webhook_waits_on_the_shard_of_its_order(client: httpx.Client, shop: Shop) -> None:
    for shard, slot in (("a", 1), ("b", 3)):
        product = shop.product(slot)
        coming = value(shop[shard], "select flashsale.next_order_id(%s)", product)
        assert coming % SLOTS == slot
        stored = pay(client, coming, f"early-{slot}")
        assert (stored.status_code, stored.json()["result"]) == (202, "stored")
        assert shop.count("inbox") == {"a": 1, "b": 1}
        assert value(shop[shard], "select stored from flashsale_data.inbox") == 1
        order_id, hold_id = order(client, product)
        assert order_id == coming
        shown = client.get(f"/api/orders/{order_id}", params={"hold_id": hold_id})
        assert shown.json()["status"] == "paid"
        assert value(shop[shard], "select stored from flashsale_data.inbox") == 0
    shop.check()


def test_holds_and_orders_of_all_slots_have_the_residues_of_their_products(
    client: httpx.Client, shop: Shop
) -> None:
    """Check 2: no id twice over all shards."""
    products = [shop.product(slot, 1000) for slot in range(SLOTS)]
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda number: order(client, products[number % SLOTS]), range(400)))
    for number, (order_id, hold_id) in enumerate(made):
        assert order_id % SLOTS == hold_id % SLOTS == number % SLOTS
    assert len({order_id for order_id, _ in made}) == len({hold_id for _, hold_id in made}) == 400
    assert sorted(shop.ids("select order_id from flashsale_data.orders")) == sorted(
        order_id for order_id, _ in made
    )
    shop.check()


def test_no_call_spans_shards(shop: Shop, tmp_path: Path) -> None:
    """Check 4: a shard would refuse such a call as a whole."""
    products = [shop.product(slot, 1000) for slot in range(SLOTS)]
    port = free_port()
    environment = {"FLASHSALE_METRICS_PORT": str(port)}
    with shop.server(tmp_path / "gunicorn.log", **environment) as client, ThreadPoolExecutor(32) as pool:
        found = Counter(
            pool.map(lambda number: hold(client, products[number % SLOTS]).status_code, range(800))
        )
        assert found == {201: 800}
        metrics = Metrics(port)
        calls = "flashsale_batch_size_sum"
        for shard in NAMES.values():
            assert metrics(calls, function="place_holds", shard=shard) == 400
        assert metrics("flashsale_calls_failed_total") == 0
        assert metrics("flashsale_batch_size_count", function="place_holds") < 800, "batches have been sent"
    assert shop.count("holds") == {"a": 400, "b": 400}


def test_an_idempotency_key_counts_within_its_slot(client: httpx.Client, shop: Shop) -> None:
    """Check 8."""
    first, same_slot, other_slot, other_shard = (shop.product(slot) for slot in (0, 0, 1, 2))
    placed = hold(client, first, key="cart")
    assert placed.status_code == 201
    assert hold(client, first, key="cart").headers["Idempotency-Replayed"] == "true"
    assert hold(client, same_slot, key="cart").json()["code"] == "idempotency_key_reused"
    others = [hold(client, product, key="cart") for product in (other_slot, other_shard)]
    assert [response.status_code for response in others] == [201, 201]
    assert len({response.json()["hold_id"] for response in (placed, *others)}) == 3


def test_the_list_has_the_products_of_all_shards_in_pages(client: httpx.Client, shop: Shop) -> None:
    products = sorted(shop.product(slot) for slot in (0, 1, 2, 3, 3, 3, 1))
    response = client.get("/api/products")
    assert [each["id"] for each in response.json()] == products
    assert "Missing-Products" not in response.headers
    seen: list[int] = []
    next_page = "/api/products?limit=3"
    while next_page:
        response = client.get(next_page)
        seen += [each["id"] for each in response.json()]
        next_page = response.links.get("next", {}).get("url", "")
    assert seen == products


def test_a_refund_finds_its_payment_by_its_key_alone(client: httpx.Client, shop: Shop) -> None:
    """A provider's refund names the payment, not the order."""
    order_id, _ = order(client, shop.product(3))
    intent = {
        "id": "pi_1", "object": "payment_intent", "amount": 9900, "amount_received": 9900, "currency": "usd",
        "metadata": {"order_id": str(order_id)}, "status": "succeeded",
    }  # fmt: skip
    assert deliver(client, "payment_intent.succeeded", intent).status_code == 200
    refunded = {
        "id": "re_1", "object": "refund", "amount": 9900, "currency": "usd", "payment_intent": "pi_1",
        "status": "succeeded", "metadata": {},
    }  # fmt: skip
    assert deliver(client, "refund.updated", refunded).status_code == 200
    assert shop.count("refunds") == {"a": 0, "b": 1}
    strange = refunded | {"id": "re_2", "payment_intent": "pi_of_another_shop"}
    assert deliver(client, "refund.updated", strange).status_code == 200
    assert shop.count("refunds") == {"a": 0, "b": 1}
    shop.check()


def deliver(client: httpx.Client, kind: str, obj: dict[str, object]) -> httpx.Response:
    body = stripe_event(kind, obj, f"evt_{obj['id']}")
    return client.post(f"{WEBHOOK}/stripe", content=body, headers=sign_stripe(body))


def test_a_refused_webhook_is_kept_with_its_order(client: httpx.Client, shop: Shop) -> None:
    order_id, _ = order(client, shop.product(2))
    assert pay(client, order_id, "k").status_code == 200
    other, _ = order(client, shop.product(2))
    signed = {"idempotency_key": "k", "order_id": order_id, "status": "success", "amount": "1.00"}
    assert client.post(WEBHOOK, json=signed).json()["code"] == "idempotency_key_reused"
    assert shop.count("rejected_webhooks") == {"a": 0, "b": 1}
    assert other != order_id


def test_a_refused_webhook_without_an_order_is_kept_on_one_shard(client: httpx.Client, shop: Shop) -> None:
    unread = {"id": "pi_2", "object": "payment_intent", "amount": 1, "currency": "usd", "status": "succeeded",
              "metadata": {"order_id": "1"}, "amount_received": "many"}  # fmt: skip
    for _ in range(3):
        assert deliver(client, "payment_intent.succeeded", unread).status_code == 200
    assert sorted(shop.count("rejected_webhooks").values()) == [0, 1]
    assert shop.ids("select deliveries from flashsale_data.rejected_webhooks") == [3]


def test_the_stock_of_products_of_all_shards_is_streamed(client: httpx.Client, shop: Shop) -> None:
    for slot in (0, 3):
        product = shop.product(slot)
        with client.stream("GET", f"/api/products/{product}/live") as stream:
            lines = stream.iter_lines()
            assert sample(lines)["available"] == 50
            assert hold(client, product, 7).status_code == 201
            assert sample(lines)["available"] == 43


def sample(lines: object) -> dict[str, object]:
    """The next event: stock."""
    for line in lines:  # type: ignore[attr-defined]
        if line == "event: stock":
            while not (line := next(lines)).startswith("data: "):  # type: ignore[call-overload]
                pass
            return json.loads(line.removeprefix("data: "))
    raise AssertionError("the stream has ended")


def test_metrics_say_which_shard_they_are_of(shop: Shop, tmp_path: Path) -> None:
    product = shop.product(2)
    port = free_port()
    with shop.server(tmp_path / "gunicorn.log", FLASHSALE_METRICS_PORT=str(port)) as client:
        hold(client, product)
        metrics = Metrics(port)
        for name in NAMES.values():
            assert metrics("flashsale_database_up", shard=name) == 1
            assert metrics("flashsale_db_connections", shard=name) >= 10
            assert metrics("flashsale_inbox_limit", shard=name) > 0
        assert metrics("flashsale_stock_units", shard=NAMES["b"], state="held") == 1
        assert metrics("flashsale_stock_units", shard=NAMES["a"]) == 0
        text = metrics.text()
        assert text.count("# TYPE flashsale_database_up ") == 1
        assert not math.isnan(metrics("flashsale_pool_waiting"))


def test_with_one_database_no_metric_has_the_label(shop: Shop, tmp_path: Path) -> None:
    port = free_port()
    environment = {"FLASHSALE_METRICS_PORT": str(port), "FLASHSALE_PAGE": "1"}
    urls = shop.url("a", APP_ROLE)
    with shop.server(tmp_path / "gunicorn.log", urls=urls, **environment) as client:
        assert hold(client, shop.product(0)).status_code == 201
        assert "shard" not in Metrics(port).text()
        assert "shards" not in client.get("/readyz").json()


def test_a_server_with_one_of_two_databases_does_nothing_for_the_others_ids(
    shop: Shop, tmp_path: Path
) -> None:
    """Check 3: no row anywhere, and the inbox stays as it was."""
    shop.product(2)
    with shop.server(tmp_path / "gunicorn.log", urls=shop.url("a", APP_ROLE)) as client:
        for response in (hold(client, 2), client.get("/api/products/2"), pay(client, 4002, "p")):
            assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    assert shop.count("holds") == shop.count("payments") == {"a": 0, "b": 0}
    assert row(shop.a, "select stored from flashsale_data.inbox").stored == 0


def test_a_server_and_its_shards_become_ready(client: httpx.Client, shop: Shop) -> None:
    ready = client.get("/readyz")
    assert ready.status_code == 200, ready.text
    named = {each["shard"]: (each["status"], each["slots"]) for each in ready.json()["shards"]}
    assert named == {NAMES["a"]: ("ready", "0-1"), NAMES["b"]: ("ready", "2-3")}
    assert ready.json()["schema"] == "current"

    shop.b.execute("update flashsale_data.schema_state set digest = 'of another version'")
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["shards"][1]["schema"]) == (200, "outdated")
    shop.a.execute("update flashsale_data.schema_state set digest = 'of another version'")
    wait_until(lambda: client.get("/readyz").status_code == 503, "no shard is ready")
