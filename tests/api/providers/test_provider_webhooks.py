"""POST /api/payments/webhook/{provider}: what Stripe's and Adyen's webhooks have in common."""

import httpx
import psycopg
import pytest

from tests.api.providers.webhooks import ACCEPTED, STRIPE, TAKEN, adyen, payments, stripe
from tests.support.provider_events import adyen_item, payment_intent, sign_adyen, sign_stripe, stripe_event
from tests.support.sql_calls import rows


@pytest.mark.parametrize("reference", [None, "", "A-1001", "0", "1.5", "9" * 20, "٣"])
def test_payments_of_other_orders_are_ignored(
    client: httpx.Client, db: psycopg.Connection, order_id: int, reference: str | None
) -> None:
    metadata = {} if reference is None else {"order_id": reference}
    assert stripe(client, "payment_intent.succeeded", payment_intent(order_id, metadata=metadata)) == TAKEN
    assert adyen(client, sign_adyen(adyen_item(reference or ""))) == ACCEPTED
    assert payments(db) == []
    assert rows(db, "select * from flashsale.rejected_webhooks") == []


def test_what_a_further_delivery_may_mend_is_not_confirmed(
    client: httpx.Client, db: psycopg.Connection, order_id: int
) -> None:
    db.execute("select flashsale.change_settings(p_inbox_limit => 0)")
    unknown = order_id + 100
    body = stripe_event("payment_intent.succeeded", payment_intent(unknown))
    answer = client.post(STRIPE, content=body, headers=sign_stripe(body))
    assert (answer.status_code, answer.json()["code"]) == (503, "inbox_full")
    assert adyen(client, sign_adyen(adyen_item(unknown))) == (503, "inbox_full")
    assert rows(db, "select * from flashsale.rejected_webhooks") == []


def test_providers_that_are_not_configured_are_not_found(client: httpx.Client) -> None:
    for name in ("paypal", "Stripe", "x" * 1000):
        assert client.post(f"/api/payments/webhook/{name}", json={}).status_code == 404
    assert client.get(STRIPE).status_code == 405
    unsigned = client.post("/api/payments/webhook", json={})
    assert (unsigned.status_code, unsigned.json()["code"]) == (401, "invalid_signature")
