"""Webhooks of payment providers: bodies after the providers' documentation, and their signatures."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any

STRIPE_SECRET = "whsec_TestSecretOfAnEndpoint01234567"
ADYEN_KEY = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056"


def stripe_event(kind: str, obj: dict[str, Any], event_id: str = "evt_1") -> bytes:
    event = {
        "id": event_id, "object": "event", "api_version": "2025-06-30.basil", "created": 1764300000,
        "data": {"object": obj}, "livemode": False, "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None}, "type": kind,
    }  # fmt: skip
    return json.dumps(event, indent=2).encode()


def payment_intent(order_id: object, **more: Any) -> dict[str, Any]:
    return {
        "id": "pi_3QabcDEF", "object": "payment_intent", "amount": 9900, "amount_received": 9900,
        "currency": "usd", "metadata": {"order_id": str(order_id)}, "status": "succeeded",
        "last_payment_error": None, **more,
    }  # fmt: skip


def checkout_session(order_id: object, **more: Any) -> dict[str, Any]:
    return {
        "id": "cs_test_a1B2c3", "object": "checkout.session", "amount_total": 9900, "currency": "usd",
        "client_reference_id": str(order_id), "metadata": {}, "mode": "payment",
        "payment_intent": "pi_3QabcDEF", "payment_status": "paid", "status": "complete", **more,
    }  # fmt: skip


def sign_stripe(body: bytes, secret: str = STRIPE_SECRET, at: float | None = None) -> dict[str, str]:
    timestamp = str(int(time.time() if at is None else at))
    digest = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return {
        "Stripe-Signature": f"t={timestamp},v1={digest}",
        "Content-Type": "application/json; charset=utf-8",
    }


def adyen_item(order_id: object, **more: Any) -> dict[str, Any]:
    return {
        "additionalData": {}, "amount": {"currency": "USD", "value": 9900}, "eventCode": "AUTHORISATION",
        "eventDate": "2026-11-27T19:03:02+01:00", "merchantAccountCode": "ShopECOM",
        "merchantReference": str(order_id), "operations": ["CANCEL", "CAPTURE", "REFUND"],
        "paymentMethod": "visa", "pspReference": "QFQTPCQ8HXSKGK82", "reason": "033899:1111:03/2030",
        "success": "true", **more,
    }  # fmt: skip


def sign_adyen(item: dict[str, Any], key: str = ADYEN_KEY) -> dict[str, Any]:
    amount = item["amount"]
    signed = [
        item["pspReference"], item.get("originalReference", ""), item["merchantAccountCode"],
        item["merchantReference"], str(amount.get("value", "")), amount.get("currency", ""),
        item["eventCode"], item["success"],
    ]  # fmt: skip
    digest = hmac.new(bytes.fromhex(key), ":".join(signed).encode(), hashlib.sha256).digest()
    return item | {
        "additionalData": item["additionalData"] | {"hmacSignature": base64.b64encode(digest).decode()}
    }


def adyen_notification(*items: dict[str, Any]) -> bytes:
    wrapped = [{"NotificationRequestItem": item} for item in items]
    return json.dumps({"live": "false", "notificationItems": wrapped}).encode()
