"""The payment provider: reports what has become of payments."""

import asyncio

import msgspec

from flashsale.rehearsal.buyers import Buyer
from flashsale.rehearsal.checkout import Checkout
from flashsale.rehearsal.client import JSON
from flashsale.rehearsal.config import SaleConfig
from flashsale.rehearsal.observations import Observations, Operation, Purchase, Response, Webhook
from flashsale.webhooks import signature_headers


class Provider:
    """Sends the webhooks, some of them again."""

    def __init__(self, checkout: Checkout, config: SaleConfig, observed: Observations) -> None:
        self._checkout = checkout
        self._config = config
        self._observed = observed

    async def report(self, purchase: Purchase, status: str) -> Webhook | None:
        """Report what has become of the payment of an order."""
        assert purchase.order_id is not None  # noqa: S101 - every behaviour orders before it pays
        webhook = await self.send(purchase.order_id, status, purchase.buyer)
        if webhook is not None:
            purchase.webhooks.append(webhook)
        return webhook

    async def send(self, order_id: int, status: str, buyer: Buyer) -> Webhook | None:
        """Send a webhook, twice concurrently for some buyers; None if the server did not acknowledge it."""
        key = self._checkout.new_key()
        responses = await asyncio.gather(
            *[self._post(key, order_id, status) for _ in range(1 + buyer.duplicated)]
        )
        self._checkout.compare(Operation.WEBHOOK, responses)
        if not responses[0].ok:
            self._checkout.record_refusal(Operation.WEBHOOK, responses[0])
            return None
        body = responses[0].body
        return Webhook(key, order_id, status, str(body.get("result")), body.get("status"))

    async def resend(self, webhook: Webhook) -> None:
        """Send an acknowledged webhook again."""
        with self._checkout.recording_errors():
            response = await self._post(webhook.key, webhook.order_id, webhook.status)
            self._observed.duplicates += 1
            result = (response.body.get("result"), response.body.get("status"))
            if result != (webhook.result, webhook.order_status) or not response.replayed:
                self._observed.mismatches.append(
                    f"webhook {webhook.key}: first {webhook.result}, {webhook.order_status};"
                    f" then {response} {result}"
                )

    async def _post(self, key: str, order_id: int, status: str) -> Response:
        # With price and currency: if the order is a customer's, they do not match it.
        event = {
            "idempotency_key": key, "order_id": order_id, "status": status,
            "amount": self._config.price, "currency": self._config.currency,
        }  # fmt: skip
        body = msgspec.json.encode(event)
        headers = JSON | signature_headers(body, key, self._config.secrets)
        return await self._checkout.request(Operation.WEBHOOK, "POST", "/api/payments/webhook", body, headers)
