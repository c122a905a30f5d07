"""Refunds at Stripe: https://docs.stripe.com/api/refunds/create, https://docs.stripe.com/api/idempotent_requests."""

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from api.providers.stripe import minor_units
from flashsale.errors import UserError
from flashsale.refunds.worker import Outcome, Request

API_URL = "https://api.stripe.com"
TIMEOUT_SECONDS = 30
KEY_LIFETIME = timedelta(hours=23)
"""Stripe forgets an idempotency key after 24 hours: an older request is looked for before it is repeated"""

_Response = tuple[int, dict[str, Any]]


class StripeRefunds:
    """Stripe's refunds.

    :param api_key: secret or restricted key that may write refunds
    :param url: of the API
    """

    name = "stripe"

    def __init__(self, api_key: str, url: str = API_URL) -> None:
        self._api_key = api_key
        self._url = url.rstrip("/")

    def refund(self, request: Request) -> Outcome:
        payment_intent = request.payment_key.split(":")[1]
        if datetime.now(UTC) - request.requested_at > KEY_LIFETIME:
            found = self._find(payment_intent, request.refund_key)
            if found is not None:
                return found
        fields = {
            "payment_intent": payment_intent,
            "amount": str(_minor(request.amount, request.currency)),
            "metadata[refund_key]": request.refund_key,
            "metadata[order_id]": str(request.order_id),
        }
        return self._outcome(self._call("POST", "/v1/refunds", fields, request.refund_key))

    def _find(self, payment_intent: str, refund_key: str) -> Outcome | None:
        """The refund that was asked for under this key, if there is one."""
        query = urllib.parse.urlencode({"payment_intent": payment_intent, "limit": 100})
        status, body = self._call("GET", f"/v1/refunds?{query}")
        if status != 200:
            return self._outcome((status, body))
        for refund in body.get("data", []):
            if (refund.get("metadata") or {}).get("refund_key") == refund_key:
                return self._outcome((200, refund))
        return None

    def _outcome(self, response: _Response) -> Outcome:
        status, body = response
        error = body.get("error") or {}
        payload = {
            "provider": "stripe",
            "refund": body.get("id"),
            "status": body.get("status"),
            "error": error.get("code") or error.get("message"),
        }
        payload = {name: value for name, value in payload.items() if value is not None}
        if status in (401, 403):
            raise UserError(f"Stripe refuses the API key: {error.get('message') or status}")
        if status == 200:
            # A pending refund is on its way; if it fails, a webhook says so, and failed overrides done.
            return Outcome("failed" if body.get("status") in ("failed", "canceled") else "done", payload)
        if status in (400, 402, 404):
            return Outcome("failed", payload)
        return Outcome("unknown", payload | {"http_status": status})

    def _call(
        self, method: str, path: str, fields: dict[str, str] | None = None, key: str | None = None
    ) -> _Response:
        """Status and body of the response; status 0 if there was none."""
        data = None if fields is None else urllib.parse.urlencode(fields).encode()
        headers = {"Authorization": f"Bearer {self._api_key}"}
        if key is not None:
            headers["Idempotency-Key"] = key
        request = urllib.request.Request(self._url + path, data, headers, method=method)  # noqa: S310
        if request.type not in ("http", "https"):
            raise UserError(f"{self._url} is not an http or https URL")
        try:
            try:
                with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
                    return response.status, _object(response.read())
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, _object(error.read())
        except (OSError, http.client.HTTPException) as error:
            return 0, {"error": {"message": " ".join(str(error).split()) or type(error).__name__}}


def _object(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _minor(amount: Decimal, currency: str) -> int:
    units = minor_units(amount, currency)
    if units != int(units):
        raise UserError(f"{amount} {currency} is not a whole number of minor units")
    return int(units)
