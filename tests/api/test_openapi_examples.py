"""Each example in /openapi.json, sent to a running server or brought about there."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import falcon.testing
import httpx
import psycopg
import pytest

from api.app import create_app
from api.database.client import CheckoutClient
from api.database.errors import OutcomeUnknown, Overloaded
from api.server.http_protocol import MAX_HEAD_BYTES
from api.webhook_signatures import SignatureVerifier
from tests.api.openapi_examples import Examples
from tests.api.raw_connection import send_raw
from tests.support.buyer_tokens import bearer
from tests.support.database import unreachable
from tests.support.provider_events import payment_intent, sign_stripe, stripe_event
from tests.support.sql_calls import value


@pytest.fixture
def examples(server: str, db: psycopg.Connection) -> Iterator[Examples]:
    db.execute("select flashsale.create_product('Limited sneaker', 50, 99.00, 'USD')")
    with httpx.Client(base_url=server, timeout=10) as client:
        yield Examples(client.get("/openapi.json").json(), client)


def test_each_example_is_true(
    examples: Examples, server: str, db: psycopg.Connection, connect: Callable[..., psycopg.Connection]
) -> None:
    with ThreadPoolExecutor(1) as slow:
        never_ends = slow.submit(send_raw, server, b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        of_products(examples)
        of_terms(examples, db)
        of_holds(examples, db)
        of_extensions(examples, db)
        of_abandoned_orders(examples)
        of_orders(examples, db)
        of_payments(examples, db)
        of_cancelled_sales(examples, db)
        of_any_request(examples, server)
        of_failures(examples, db, connect)
        examples.came("alive", "request_timeout", never_ends.result())
    assert examples.unseen == set()


def place(examples: Examples, qty: int = 1, key: str | None = None) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return examples.send("place_hold", "one_unit", {"qty": qty}, headers=headers)


def placed(examples: Examples) -> int:
    return int(examples.came("place_hold", "placed", place(examples))["hold_id"])


def lapsed(examples: Examples, db: psycopg.Connection) -> int:
    db.execute("select flashsale.change_settings(p_hold_time => '100 milliseconds')")
    hold = examples.came("place_hold", "placed", place(examples))
    db.execute("select flashsale.change_settings(p_hold_time => '2 minutes')")
    db.execute("select pg_sleep_until(%s)", (hold["expires_at"],))
    return int(hold["hold_id"])


def order(examples: Examples, hold_id: int, key: str | None = None) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return examples.send("create_order", "a_hold", {"hold_id": hold_id}, headers=headers)


def ordered(examples: Examples) -> int:
    made = order(examples, placed(examples))
    return int(examples.came("create_order", "awaiting_payment", made)["order_id"])


def pay(examples: Examples, name: str, order_id: int, key: str, **change: Any) -> httpx.Response:
    change |= {"order_id": order_id, "idempotency_key": key}
    return examples.send("apply_payment", name, change)


def of_products(examples: Examples) -> None:
    place(examples, qty=12)
    listed = examples.send("list_products", params={"limit": 1})
    (shoe,) = examples.came("list_products", "one_product", listed)
    assert listed.headers["link"] == '</api/products?after=1&limit=1>; rel="next"'
    examples.came("list_products", "invalid_request", examples.send("list_products", params={"limit": 0}))
    same = examples.came("get_product", "on_sale", examples.send("get_product", product_id=1))
    assert same | {"now": shoe["now"]} == shoe
    assert (shoe["price"], shoe["available_stock"]) == ("99.00", 38)
    examples.came("get_product", "product_not_found", examples.send("get_product", product_id=2))

    with examples.client.stream("GET", "/api/products/1/live") as stream:
        first = next(stream.iter_raw()).decode()
    response = httpx.Response(stream.status_code, headers=stream.headers, text=first)
    examples.came("watch_product", "first_event", response)
    examples.came("watch_product", "product_not_found", examples.send("watch_product", product_id=2))


def of_terms(examples: Examples, db: psycopg.Connection) -> None:
    db.execute(
        "select flashsale.create_product('Drop', 500, 149, 'EUR', p_max_per_buyer => 2,"
        " p_starts_at => now() + interval '1 day', p_ends_at => now() + interval '2 days')"
    )
    examples.came("get_product", "scheduled", examples.send("get_product", product_id=2))

    def place_for(buyer: str, qty: int = 1) -> httpx.Response:
        return examples.send("place_hold", "for_a_buyer", {"qty": qty, "buyer": buyer})

    def change(terms: str) -> None:
        db.execute(f"select flashsale.change_terms(array[1], {terms})")

    def allowance(**options: Any) -> httpx.Response:
        return examples.send("get_allowance", product_id=1, **options)

    change("now() + interval '1 day'")
    early = place(examples)
    examples.came("place_hold", "sale_not_started", early)
    assert early.headers["retry-after"] == "60"
    change("'-infinity', now()")
    examples.came("place_hold", "sale_ended", place(examples))
    change("p_ends_at => 'infinity'")
    db.execute("select flashsale.pause_sale(array[1])")
    examples.came("place_hold", "sale_paused", place(examples))
    db.execute("select flashsale.resume_sale(array[1])")

    examples.came("get_allowance", "without_a_limit", allowance(params={"buyer": "customer-4711"}))
    change("p_max_per_buyer => 2")
    examples.came("place_hold", "buyer_required", place(examples))
    examples.came("place_hold", "placed", place_for("customer-4711"))
    examples.came("place_hold", "limit_reached", place_for("customer-4711", 2))
    examples.came("get_allowance", "limited", allowance(headers=bearer("customer-4711")))
    examples.came("get_allowance", "invalid_request", allowance())
    examples.came("get_allowance", "invalid_token", allowance(headers=bearer(exp=1)))
    examples.came(
        "get_allowance", "product_not_found", examples.send("get_allowance", product_id=3, headers=bearer())
    )
    expired = examples.send("place_hold", "one_unit", headers=bearer(exp=1))
    examples.came("place_hold", "invalid_token", expired)
    change("p_max_per_buyer => 0")


def extend(examples: Examples, hold: Any) -> httpx.Response:
    change = {"expires_at": hold["expires_at"]}
    return examples.send("extend_hold", "the_end_that_was_seen", change, hold_id=hold["hold_id"])


def of_extensions(examples: Examples, db: psycopg.Connection) -> None:
    hold = place(examples).json()
    extended = examples.came("extend_hold", "extended", extend(examples, hold))
    again = extend(examples, hold)
    assert examples.came("extend_hold", "extended", again) == extended
    assert again.headers["idempotency-replayed"] == "true"
    examples.came("extend_hold", "extension_refused", extend(examples, extended))
    order(examples, hold["hold_id"])
    examples.came("extend_hold", "hold_already_used", extend(examples, hold))
    released = place(examples).json()
    examples.send("release_hold", hold_id=released["hold_id"])
    examples.came("extend_hold", "hold_released", extend(examples, released))
    examples.came("extend_hold", "hold_expired", extend(examples, hold | {"hold_id": lapsed(examples, db)}))
    examples.came("extend_hold", "hold_not_found", extend(examples, hold | {"hold_id": 1}))
    examples.came("extend_hold", "invalid_request", examples.send("extend_hold", json={}, hold_id=1))


def of_abandoned_orders(examples: Examples) -> None:
    hold_id = placed(examples)
    order_id = order(examples, hold_id).json()["order_id"]
    of_this = {"order_id": order_id, "params": {"hold_id": hold_id}}
    examples.came_empty("abandon_order", 204, examples.send("abandon_order", **of_this))
    of_another = of_this | {"order_id": order_id + 1}
    examples.came("abandon_order", "order_not_found", examples.send("abandon_order", **of_another))
    hold_id = placed(examples)
    order_id = order(examples, hold_id).json()["order_id"]
    pay(examples, "success", order_id, "pay_for_good")
    settled = examples.send("abandon_order", order_id=order_id, params={"hold_id": hold_id})
    examples.came("abandon_order", "order_settled", settled)


def of_holds(examples: Examples, db: psycopg.Connection) -> None:
    elsewhere = examples.send("place_hold", "one_unit", {"product_id": 3})
    examples.came("place_hold", "product_not_found", elsewhere)
    examples.came("place_hold", "insufficient_stock", place(examples, qty=50))
    place(examples, key="cart-7")
    again = place(examples, key="cart-7")
    examples.came("place_hold", "placed", again)
    assert again.headers["idempotency-replayed"] == "true"
    examples.came("place_hold", "idempotency_key_reused", place(examples, qty=2, key="cart-7"))
    examples.came("place_hold", "invalid_request", examples.send("place_hold", json={"product_id": 1}))

    hold_id = placed(examples)
    examples.came("get_hold", "active", examples.send("get_hold", hold_id=hold_id))
    order(examples, hold_id)
    examples.came("get_hold", "ordered", examples.send("get_hold", hold_id=hold_id))
    examples.came("get_hold", "hold_not_found", examples.send("get_hold", hold_id=1))
    examples.came("release_hold", "hold_not_found", examples.send("release_hold", hold_id=1))
    examples.came("release_hold", "hold_already_used", examples.send("release_hold", hold_id=hold_id))
    examples.came("release_hold", "hold_expired", examples.send("release_hold", hold_id=lapsed(examples, db)))
    examples.came_empty("release_hold", 204, examples.send("release_hold", hold_id=placed(examples)))


def of_orders(examples: Examples, db: psycopg.Connection) -> None:
    hold_id = placed(examples)
    made = examples.came("create_order", "awaiting_payment", order(examples, hold_id, key="order-1"))
    again = order(examples, hold_id, key="order-1")
    assert examples.came("create_order", "awaiting_payment", again) == made
    assert again.headers["idempotency-replayed"] == "true"
    other = order(examples, placed(examples), key="order-1")
    examples.came("create_order", "idempotency_key_reused", other)
    examples.came("create_order", "hold_already_used", order(examples, hold_id))
    examples.came("create_order", "hold_not_found", order(examples, 1))
    examples.came("create_order", "hold_expired", order(examples, lapsed(examples, db)))
    released = placed(examples)
    examples.send("release_hold", hold_id=released)
    examples.came("create_order", "hold_released", order(examples, released))
    examples.came("create_order", "invalid_request", examples.send("create_order", json={"hold_id": "14"}))

    stored = pay(examples, "success", made["order_id"] + 1, "before the order")
    examples.came("apply_payment", "stored", stored)
    examples.came("create_order", "paid_before", order(examples, placed(examples)))

    def look(order_id: int) -> httpx.Response:
        return examples.send("get_order", order_id=order_id, params={"hold_id": hold_id})

    examples.came("get_order", "awaiting_payment", look(made["order_id"]))
    pay(examples, "failed", made["order_id"], "no money")
    examples.came("get_order", "cancelled", look(made["order_id"]))
    examples.came("get_order", "order_not_found", look(made["order_id"] + 1))


def of_payments(examples: Examples, db: psycopg.Connection) -> None:
    one, two, three = ordered(examples), ordered(examples), ordered(examples)
    examples.came("apply_payment", "paid", pay(examples, "success", one, "pay_1"))
    examples.came("apply_payment", "failed_after_success", pay(examples, "failed", one, "pay_2"))
    examples.came("apply_payment", "paid_twice", pay(examples, "success", one, "pay_3"))
    examples.came("apply_payment", "cancelled", pay(examples, "failed", two, "pay_4"))
    wrong = pay(examples, "success_with_the_amount", three, "pay_5", amount="98.00")
    examples.came("apply_payment", "another_amount", wrong)
    right = pay(examples, "success_with_the_amount", three, "pay_6")
    examples.came("apply_payment", "paid", right)
    examples.came("apply_payment", "idempotency_key_reused", pay(examples, "failed", three, "pay_6"))
    refunded = pay(examples, "success", three, "pay_7", status="refunded")
    examples.came("apply_payment", "invalid_request", refunded)
    declined = pay(examples, "declined", ordered(examples), "pay_9")
    examples.came("apply_payment", "declined", declined)
    half_signed = examples.send("apply_payment", "success", headers={"webhook-id": "msg_1"})
    examples.came("apply_payment", "invalid_signature", half_signed)
    db.execute("select flashsale.change_settings(p_inbox_limit => 0)")
    examples.came("apply_payment", "inbox_full", pay(examples, "success", 10**6, "pay_8"))

    def take(provider: str, headers: dict[str, str]) -> httpx.Response:
        return examples.send("take_provider_webhook", provider=provider, content=event, headers=headers)

    event = stripe_event("payment_intent.succeeded", payment_intent(10**6))
    examples.came("take_provider_webhook", "not_found", take("adyen", {}))
    examples.came("take_provider_webhook", "invalid_signature", take("stripe", {}))
    examples.came("take_provider_webhook", "inbox_full", take("stripe", sign_stripe(event)))


def of_cancelled_sales(examples: Examples, db: psycopg.Connection) -> None:
    product_id = value(db, "select flashsale.create_product('Cancelled', 1, 1)")
    db.execute("select flashsale.cancel_sale(%s, 0)", (product_id,))
    cancelled = examples.send("place_hold", "one_unit", {"product_id": product_id})
    examples.came("place_hold", "sale_cancelled", cancelled)


def of_any_request(examples: Examples, server: str) -> None:
    for id_ in ("place_hold", "extend_hold", "create_order", "apply_payment"):
        json = {"content-type": "application/json"}
        path = {"hold_id": 1} if id_ == "extend_hold" else {}
        examples.came(id_, "malformed_json", examples.send(id_, content=b"", headers=json, **path))
        too_large = examples.send(id_, content=b" " * 300_000, headers=json, **path)
        examples.came(id_, "payload_too_large", too_large)
        examples.came(id_, "unsupported_media_type", examples.send(id_, content=b"{}", **path))
    head = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
    examples.came("alive", "bad_request", send_raw(server, b"no HTTP\r\n\r\n"))
    too_much = head + b"Cookie: " + b"x" * MAX_HEAD_BYTES
    examples.came("alive", "headers_too_large", send_raw(server, too_much))
    examples.came("", "not_found", examples.client.get("/api/carts"))
    examples.came("", "method_not_allowed", examples.client.put("/api/holds"))
    examples.came("alive", "alive", examples.send("alive"))


def of_failures(
    examples: Examples, db: psycopg.Connection, connect: Callable[..., psycopg.Connection]
) -> None:
    for error, name in (
        (Overloaded(), "overloaded"),
        (OutcomeUnknown(), "outcome_unknown"),
        (ZeroDivisionError(), "internal_error"),
    ):
        examples.came("place_hold", name, answer_to(error))

    operator = connect(autocommit=False)
    operator.execute("select from flashsale_data.stock for update")
    examples.came("place_hold", "busy", place(examples))
    operator.rollback()

    examples.came("ready", "not_scheduled", examples.send("ready"))
    db.execute("update flashsale_data.schema_state set digest = 'another'")
    examples.came("ready", "not_ready", examples.send("ready"))

    with unreachable(db):
        examples.came("get_product", "unavailable", examples.send("get_product", product_id=1))


def answer_to(error: Exception) -> httpx.Response:
    """The response to a request whose batch fails with this error."""

    class Broken:
        def submit(self, *arguments: object) -> None:
            raise error

    broken = CheckoutClient("postgresql:///nowhere")
    broken.place_holds = Broken()  # type: ignore[assignment]
    app = create_app(broken, SignatureVerifier([], allow_unsigned=True), lambda: {})
    result = falcon.testing.simulate_post(app, "/api/holds", json={"product_id": 1, "qty": 1})
    return httpx.Response(result.status_code, headers=dict(result.headers), content=result.content)
