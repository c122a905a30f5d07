"""Sending Stripe's and Adyen's webhooks, and what has come of them."""

from typing import Any

import httpx
import psycopg

from tests.support.provider_events import adyen_notification, sign_stripe, stripe_event
from tests.support.sql_calls import value

STRIPE = "/api/payments/webhook/stripe"
ADYEN = "/api/payments/webhook/adyen"
JSON = {"Content-Type": "application/json"}


def stripe(client: httpx.Client, kind: str, obj: dict[str, Any], event_id: str = "evt_1") -> tuple[int, Any]:
    body = stripe_event(kind, obj, event_id)
    answer = client.post(STRIPE, content=body, headers=sign_stripe(body))
    return answer.status_code, answer.json()


def adyen(client: httpx.Client, *items: dict[str, Any]) -> tuple[int, str]:
    answer = client.post(ADYEN, content=adyen_notification(*items), headers=JSON)
    return answer.status_code, answer.text if answer.status_code == 200 else answer.json()["code"]


TAKEN = (200, {"received": True})
ACCEPTED = (200, "[accepted]")


def payments(db: psycopg.Connection) -> list[tuple[Any, ...]]:
    return db.execute(
        "select idempotency_key, order_id, status, result, amount::text, currency"
        " from flashsale_data.payments order by arrival"
    ).fetchall()


def order_status(db: psycopg.Connection, order_id: int) -> str:
    return str(value(db, "select status from flashsale.get_order(%s)", order_id))


def refunds(db: psycopg.Connection) -> list[tuple[Any, ...]]:
    """Of payments that are known."""
    return _refunds(db, "order_id is not null")


def waiting(db: psycopg.Connection) -> list[tuple[Any, ...]]:
    """Refunds of payments that are unknown."""
    return _refunds(db, "order_id is null")


def _refunds(db: psycopg.Connection, condition: str) -> list[tuple[Any, ...]]:
    return db.execute(
        "select refund_key, payment_key, amount::text, kind, status"
        f" from flashsale.refunds where {condition} order by recorded_at"
    ).fetchall()
