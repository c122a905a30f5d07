"""Stripe's webhooks, as Stripe sends them: for tests of a shop (https://docs.stripe.com/webhooks)."""

import hashlib
import hmac
import json
import os
import time
import uuid
from collections.abc import Mapping
from decimal import Decimal

from api.providers.stripe import minor_units
from api.settings import InvalidSettings, parse_stripe_secrets
from flashsale.errors import UserError

EVENTS = {
    "success": ("payment_intent.succeeded", "succeeded"),
    "declined": ("payment_intent.payment_failed", "requires_payment_method"),
    "failed": ("payment_intent.canceled", "canceled"),
}
"""by status of this project: the type of the event, and the status of the PaymentIntent"""


def payment_event(payment: str, order_id: int, status: str, amount: Decimal, currency: str) -> bytes:
    """An event about a PaymentIntent.

    :param payment: the PaymentIntent's id
    :param status: one of EVENTS
    :param amount: in major units
    """
    kind, stripe_status = EVENTS[status]
    minor = int(minor_units(amount, currency.upper()))
    intent = {
        "id": payment,
        "object": "payment_intent",
        "amount": minor,
        "amount_received": minor if status == "success" else 0,
        "currency": currency.lower(),
        "metadata": {"order_id": str(order_id)},
        "status": stripe_status,
    }
    event = {
        "id": f"evt_{uuid.uuid4().hex}",
        "object": "event",
        "type": kind,
        "livemode": False,
        "data": {"object": intent},
    }
    return json.dumps(event).encode()


def signature_headers(body: bytes, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The header that signs `body` with the first of FLASHSALE_STRIPE_SECRETS and the current time.

    :raises UserError: there is no such secret
    """
    try:
        secrets = parse_stripe_secrets(environment.get("FLASHSALE_STRIPE_SECRETS", ""))
    except InvalidSettings as error:
        raise UserError(str(error)) from error
    if not secrets:
        raise UserError("set FLASHSALE_STRIPE_SECRETS to the signing secret that the server has")
    timestamp = str(int(time.time()))
    digest = hmac.new(secrets[0].encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return {"Stripe-Signature": f"t={timestamp},v1={digest}"}
