"""POST /api/payments/webhook/stripe."""

import time
from typing import Any

import httpx
import psycopg
import pytest

from tests.api.providers.webhooks import (
    JSON,
    STRIPE,
    TAKEN,
    order_status,
    payments,
    refunds,
    stripe,
    waiting,
)
from tests.support.provider_events import checkout_session, payment_intent, sign_stripe, stripe_event
from tests.support.sql_calls import audit, create_product, order_units, rows, value


def test_decline_decline_success_on_one_intent_pays_the_order(
    client: httpx.Client, db: psycopg.Connection, order_id: int
) -> None:
    declined = payment_intent(order_id, amount_received=0, status="requires_payment_method")
    for event in ("evt_1", "evt_2"):
        assert stripe(client, "payment_intent.payment_failed", declined, event) == TAKEN
        assert order_status(db, order_id) == "pending_payment"
    assert stripe(client, "payment_intent.succeeded", payment_intent(order_id), "evt_3") == TAKEN
    assert stripe(client, "payment_intent.payment_failed", declined, "evt_1") == TAKEN
    assert order_status(db, order_id) == "paid"
    assert payments(db) == [
        ("stripe:pi_3QabcDEF:declined", order_id, "declined", "no_change", None, None),
        ("stripe:pi_3QabcDEF:success", order_id, "success", "applied", "99.00", "USD"),
    ]
    assert rows(db, "select * from flashsale.rejected_webhooks") == []


def test_three_kinds_of_events_are_one_payment(
    client: httpx.Client, db: psycopg.Connection, order_id: int
) -> None:
    intent = payment_intent(order_id)
    charge = {"id": "ch_1", "object": "charge", "amount": 9900, "payment_intent": intent["id"], "paid": True}
    assert stripe(client, "payment_intent.succeeded", intent, "evt_1") == TAKEN
    assert stripe(client, "charge.succeeded", charge, "evt_2") == TAKEN
    assert stripe(client, "checkout.session.completed", checkout_session(order_id), "evt_3") == TAKEN
    assert [row[3] for row in payments(db)] == ["applied"]
    assert rows(db, "select * from flashsale.refunds_due") == []
    assert audit(db) == []


def test_an_unpaid_session_pays_when_its_payment_has_succeeded(
    client: httpx.Client, db: psycopg.Connection, order_id: int
) -> None:
    unpaid = checkout_session(order_id, payment_status="unpaid")
    assert stripe(client, "checkout.session.completed", unpaid, "evt_1") == TAKEN
    assert order_status(db, order_id) == "pending_payment"
    assert (
        stripe(client, "checkout.session.async_payment_succeeded", checkout_session(order_id), "evt_2")
        == TAKEN
    )
    assert order_status(db, order_id) == "paid"


@pytest.mark.parametrize(
    ("kind", "obj"),
    [
        ("payment_intent.canceled", lambda n: payment_intent(n, amount_received=0, status="canceled")),
        (
            "checkout.session.expired",
            lambda n: checkout_session(n, payment_intent=None, payment_status="unpaid"),
        ),
        ("checkout.session.async_payment_failed", lambda n: checkout_session(n, payment_status="unpaid")),
    ],
)
def test_a_payment_that_can_never_succeed_returns_the_units(
    client: httpx.Client, db: psycopg.Connection, order_id: int, kind: str, obj: Any
) -> None:
    assert stripe(client, kind, obj(order_id)) == TAKEN
    assert order_status(db, order_id) == "cancelled"
    assert [row[2:5] for row in payments(db)] == [("failed", "applied", None)]


@pytest.mark.parametrize(
    ("currency", "minor", "major"),
    [("jpy", 9900, "9900"), ("isk", 990000, "9900.00"), ("ugx", 990000, "9900.00"), ("kwd", 9900, "9.900")],
)
def test_stripes_minor_units(
    client: httpx.Client, db: psycopg.Connection, currency: str, minor: int, major: str
) -> None:
    product = create_product(db, price=major, currency=currency.upper())
    order = order_units(db, product, 1).order_id
    intent = payment_intent(order, amount=minor, amount_received=minor, currency=currency)
    assert stripe(client, "payment_intent.succeeded", intent) == TAKEN
    assert payments(db)[0][2:] == ("success", "applied", major, currency.upper())


def test_another_amount_is_due_back(client: httpx.Client, db: psycopg.Connection, order_id: int) -> None:
    assert stripe(client, "payment_intent.succeeded", payment_intent(order_id, amount_received=9899)) == TAKEN
    assert [row[3] for row in payments(db)] == ["amount_mismatch"]
    assert order_status(db, order_id) == "pending_payment"


def test_an_event_before_its_order_waits_for_it(
    client: httpx.Client, db: psycopg.Connection, order_id: int
) -> None:
    assert stripe(client, "payment_intent.succeeded", payment_intent(order_id + 1)) == TAKEN
    product = value(db, "select product_id from flashsale.get_order(%s)", order_id)
    assert order_units(db, product, 1).status == "paid"


def test_events_of_other_kinds_are_ignored_without_data(client: httpx.Client, db: psycopg.Connection) -> None:
    body = b'{"id":"evt_1","object":"v2.core.event","type":"v1.billing.meter.error_report_triggered"}'
    answer = client.post(STRIPE, content=body, headers=sign_stripe(body))
    assert (answer.status_code, answer.json()) == TAKEN
    assert rows(db, "select * from flashsale.rejected_webhooks") == []


def test_a_chargeback_in_another_currency_is_kept(
    client: httpx.Client, db: psycopg.Connection, order_id: int
) -> None:
    assert stripe(client, "payment_intent.succeeded", payment_intent(order_id)) == TAKEN
    dispute = {
        "id": "dp_1", "object": "dispute", "amount": 9900, "currency": "jpy", "payment_intent": "pi_3QabcDEF",
        "status": "needs_response",
    }  # fmt: skip
    assert stripe(client, "charge.dispute.funds_withdrawn", dispute, "evt_2") == TAKEN
    assert refunds(db) == []
    kept = rows(db, "select webhook_id, code from flashsale.rejected_webhooks")
    assert [tuple(row) for row in kept] == [("stripe:evt_2", "invalid_request")]


def test_what_is_signed_and_cannot_be_read_is_kept(
    client: httpx.Client, db: psycopg.Connection, order_id: int
) -> None:
    broken = payment_intent(order_id, amount_received="9900")
    assert stripe(client, "payment_intent.succeeded", broken) == TAKEN
    for body in (b"paid!", b"\xff", b"[" * 10_000, b'{"id":"evt_2","type":"payment_intent.succeeded"}', b""):
        answer = client.post(STRIPE, content=body, headers=sign_stripe(body))
        assert (answer.status_code, answer.json()) == TAKEN
    large = stripe_event("payment_intent.succeeded", payment_intent(order_id, note="x" * 300_000), "evt_3")
    assert client.post(STRIPE, content=large, headers=sign_stripe(large)).status_code == 200
    kept = [tuple(row) for row in rows(db, "select webhook_id, code from flashsale.rejected_webhooks")]
    assert len(kept) == 7
    assert kept.count(("stripe:evt_1", "invalid_request")) == 1
    assert kept.count(("stripe:evt_3", "payload_too_large")) == 1
    assert payments(db) == []
    # The same event, understood later.
    assert stripe(client, "payment_intent.succeeded", payment_intent(order_id)) == TAKEN
    assert order_status(db, order_id) == "paid"
    assert (
        value(db, "select count(*) from flashsale.rejected_webhooks where webhook_id = 'stripe:evt_1'") == 0
    )


def test_another_amount_of_a_payment_that_is_known_is_kept(
    client: httpx.Client, db: psycopg.Connection, order_id: int
) -> None:
    assert stripe(client, "payment_intent.succeeded", payment_intent(order_id), "evt_1") == TAKEN
    assert (
        stripe(client, "checkout.session.completed", checkout_session(order_id, amount_total=100), "evt_2")
        == TAKEN
    )
    kept = rows(db, "select webhook_id, code from flashsale.rejected_webhooks")
    assert [tuple(row) for row in kept] == [("stripe:evt_2", "idempotency_key_reused")]


def test_only_stripes_signature_lets_an_event_in(
    client: httpx.Client, db: psycopg.Connection, order_id: int
) -> None:
    body = stripe_event("payment_intent.succeeded", payment_intent(order_id))
    signed = sign_stripe(body)
    good = signed["Stripe-Signature"]
    digest = good.partition("v1=")[2]
    stamp = good.partition(",")[0]
    refused = {
        "none": {},
        "empty": {"Stripe-Signature": ""},
        "another secret": sign_stripe(body, "whsec_AnotherSecretOfAnEndpoint012"),
        "too old": sign_stripe(body, at=time.time() - 310),
        "too new": sign_stripe(body, at=time.time() + 310),
        "another scheme": {"Stripe-Signature": f"{stamp},v0={digest}"},
        "no timestamp": {"Stripe-Signature": f"v1={digest}"},
        "another timestamp": {"Stripe-Signature": f"t={int(time.time()) + 2},v1={digest}"},
        "cut": {"Stripe-Signature": good[:-1]},
        "latin1": {"Stripe-Signature": good + "\xe9"},
    }
    for name, headers in refused.items():
        answer = client.post(
            STRIPE,
            content=body,
            headers=[(k.encode(), v.encode("latin-1")) for k, v in (JSON | headers).items()],
        )
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_signature"), name
    assert client.post(STRIPE, content=body + b" ", headers=signed).status_code == 401
    assert payments(db) == []
    assert rows(db, "select * from flashsale.rejected_webhooks") == []
    several = {"Stripe-Signature": good.replace("v1=", f"v1={'0' * 64},v1=")}
    assert client.post(STRIPE, content=body, headers=JSON | several).json() == {"received": True}


def refund(**more: Any) -> dict[str, Any]:
    return {
        "id": "re_1", "object": "refund", "amount": 4000, "currency": "usd", "charge": "ch_1", "metadata": {},
        "payment_intent": "pi_3QabcDEF", "reason": None, "status": "succeeded", **more,
    }  # fmt: skip


def test_stripes_refunds_and_disputes_are_facts(
    client: httpx.Client, db: psycopg.Connection, order_id: int
) -> None:
    assert stripe(client, "payment_intent.succeeded", payment_intent(order_id)) == TAKEN
    assert stripe(client, "refund.created", refund(status="pending"), "evt_2") == TAKEN
    assert refunds(db) == []
    assert stripe(client, "refund.updated", refund(), "evt_3") == TAKEN
    assert stripe(client, "refund.created", refund(), "evt_2") == TAKEN
    payment = "stripe:pi_3QabcDEF:success"
    assert refunds(db) == [("re_1", payment, "40.00", "refund", "done")]
    assert stripe(client, "refund.failed", refund(status="failed"), "evt_4") == TAKEN
    dispute = {
        "id": "dp_1", "object": "dispute", "amount": 9900, "currency": "usd", "payment_intent": "pi_3QabcDEF",
        "status": "needs_response",
    }  # fmt: skip
    assert stripe(client, "charge.dispute.created", dispute, "evt_5") == TAKEN
    assert stripe(client, "charge.dispute.funds_withdrawn", dispute, "evt_6") == TAKEN
    assert stripe(client, "charge.dispute.closed", dispute | {"status": "lost"}, "evt_7") == TAKEN
    assert refunds(db) == [
        ("re_1", payment, "40.00", "refund", "failed"),
        ("dp_1", payment, "99.00", "chargeback", "done"),
    ]
    assert order_status(db, order_id) == "paid"
    assert rows(db, "select * from flashsale.rejected_webhooks") == []
    assert audit(db) == []


def test_a_refund_that_we_asked_for_has_our_key(
    client: httpx.Client, db: psycopg.Connection, order_id: int
) -> None:
    assert stripe(client, "payment_intent.succeeded", payment_intent(order_id)) == TAKEN
    second = payment_intent(order_id, id="pi_second")
    assert stripe(client, "payment_intent.succeeded", second) == TAKEN
    key = value(db, "select refund_key from flashsale.begin_refunds()")
    ours = refund(amount=9900, payment_intent="pi_second", metadata={"refund_key": key})
    assert stripe(client, "refund.created", ours, "evt_3") == TAKEN
    assert refunds(db) == [(key, "stripe:pi_second:success", "99.00", "refund", "done")]
    assert rows(db, "select * from flashsale.refunds_due") == []
    # One of another shop's payments, and one that is too large.
    assert stripe(client, "refund.created", refund(payment_intent="pi_other"), "evt_4") == TAKEN
    assert stripe(client, "refund.created", refund(id="re_2", amount=9901), "evt_5") == TAKEN
    kept = rows(db, "select webhook_id, code from flashsale.rejected_webhooks")
    assert [tuple(row) for row in kept] == [("stripe:evt_5", "refund_too_large")]
    assert waiting(db) == [("re_1", "stripe:pi_other:success", "40.00", "refund", "done")]


def test_stripes_refund_and_dispute_that_overtake_their_payment(
    client: httpx.Client, db: psycopg.Connection, order_id: int
) -> None:
    assert stripe(client, "refund.created", refund(), "evt_2") == TAKEN
    dispute = {
        "id": "dp_1", "object": "dispute", "amount": 5900, "currency": "usd", "payment_intent": "pi_3QabcDEF",
        "status": "needs_response",
    }  # fmt: skip
    assert stripe(client, "charge.dispute.funds_withdrawn", dispute, "evt_3") == TAKEN
    assert refunds(db) == []
    assert stripe(client, "payment_intent.succeeded", payment_intent(order_id), "evt_1") == TAKEN
    assert order_status(db, order_id) == "paid"
    payment = "stripe:pi_3QabcDEF:success"
    assert refunds(db) == [
        ("re_1", payment, "40.00", "refund", "done"),
        ("dp_1", payment, "59.00", "chargeback", "done"),
    ]
    assert value(db, "select refunded::text from flashsale_data.payments") == "99.00"
    assert waiting(db) == []
    assert audit(db) == []
