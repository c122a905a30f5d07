"""The payment provider: reports what has become of payments, and returns money."""

import asyncio
import math
from collections.abc import Sequence
from decimal import ROUND_DOWN, Decimal
from random import Random

import msgspec

from flashsale.rehearsal.buyers import Buyer
from flashsale.rehearsal.checkout import Checkout
from flashsale.rehearsal.client import JSON
from flashsale.rehearsal.config import SaleConfig
from flashsale.rehearsal.observations import Observations, Operation, Purchase, Response, Webhook
from flashsale.rehearsal.shop import RecordedRefund, Refund, Shop
from flashsale.webhooks import signature_headers

REFUNDED_SHARE, FAILING_SHARE = 0.75, 0.2
"""of the payments for which money is due: those that are paid back; of these, those that fail at first"""
MAX_ROUNDS = 20
"""of refunds: each begins those that are due, and records their outcomes"""
LOCKED = "55P03"
"""another transaction has the row: nothing was done"""


class Provider:
    """Sends the webhooks, some of them again, and makes the refunds that the shop asks for.

    `observed.refunds` is its own account of what it has paid back.
    """

    def __init__(
        self, checkout: Checkout, config: SaleConfig, observed: Observations, random: Random
    ) -> None:
        self._checkout = checkout
        self._config = config
        self._observed = observed
        self._random = random

    # --- Webhooks ------------------------------------------------------------------------------------------

    async def report(self, purchase: Purchase, status: str) -> Webhook | None:
        """Report what has become of a payment for an order, under a key of its own."""
        assert purchase.order_id is not None  # noqa: S101 - every behaviour orders before it pays
        webhook = await self.send(purchase.order_id, status, purchase.amount, purchase.buyer)
        if webhook is not None:
            purchase.webhooks.append(webhook)
        return webhook

    async def send(self, order_id: int, status: str, amount: Decimal, buyer: Buyer) -> Webhook | None:
        """Send a webhook, twice concurrently for some buyers; None if the server did not acknowledge it."""
        key = self._checkout.new_key()
        responses = await asyncio.gather(
            *[self._post(key, order_id, status, amount) for _ in range(1 + buyer.duplicated)]
        )
        self._checkout.compare(Operation.WEBHOOK, responses)
        if not responses[0].ok:
            self._checkout.record_refusal(Operation.WEBHOOK, responses[0])
            return None
        body = responses[0].body
        return Webhook(key, order_id, status, str(body.get("result")), body.get("status"), amount)

    async def resend(self, webhook: Webhook) -> None:
        """Send an acknowledged webhook again."""
        with self._checkout.recording_errors():
            response = await self._post(webhook.key, webhook.order_id, webhook.status, webhook.amount)
            self._observed.duplicates += 1
            result = (response.body.get("result"), response.body.get("status"))
            if result != (webhook.result, webhook.order_status) or not response.replayed:
                self._observed.mismatches.append(
                    f"webhook {webhook.key}: first {webhook.result}, {webhook.order_status};"
                    f" then {response} {result}"
                )

    async def _post(self, key: str, order_id: int, status: str, amount: Decimal) -> Response:
        # With amount and currency: if the order is a customer's, they do not match it.
        event = {
            "idempotency_key": key, "order_id": order_id, "status": status,
            "amount": str(amount), "currency": self._config.currency,
        }  # fmt: skip
        body = msgspec.json.encode(event)
        headers = JSON | signature_headers(body, key, self._config.secrets)
        return await self._checkout.request(Operation.WEBHOOK, "POST", "/api/payments/webhook", body, headers)

    # --- Refunds -------------------------------------------------------------------------------------------

    async def refund(self, shop: Shop) -> None:
        """Return most of the money that is due; the rest stays due.

        One payment is returned in part before the shop asks for it, as in the provider's dashboard. Some
        refunds fail, and are asked for again. Every outcome is reported twice.
        """
        unmatched = {webhook.key for webhook in self._observed.unmatched}  # maybe of a customer's order
        owed = sorted(self._observed.owed - unmatched)
        chosen = self._random.sample(owed, math.ceil(len(owed) * REFUNDED_SHARE))
        if not chosen:
            return
        await self._refund_in_dashboard(shop, chosen[0])
        failing = set(self._random.sample(chosen, round(len(chosen) * FAILING_SHARE)))
        for _ in range(MAX_ROUNDS):
            requests = await shop.begin_refunds(chosen)
            if not requests:
                return
            if taken := await shop.begin_refunds([request.payment_key for request in requests]):
                self._checkout.record_error(f"{len(taken):,} refunds were handed out to two workers")
            refunds = [
                Refund(*request, "failed" if request.payment_key in failing else "done")
                for request in requests
            ]
            failing -= {request.payment_key for request in requests}
            await self._record(shop, refunds)
        self._checkout.record_error(f"refunds are still due after {MAX_ROUNDS} rounds")

    async def _refund_in_dashboard(self, shop: Shop, key: str) -> None:
        amount = next(webhook.amount for webhook in self._observed.webhooks if webhook.key == key)
        part = (amount / 3).quantize(Decimal("0.01"), ROUND_DOWN)
        await self._record(shop, [Refund(f"{key}-dashboard", key, part, "done")])

    async def _record(self, shop: Shop, refunds: Sequence[Refund]) -> None:
        for refund in refunds:
            if refund.status == "done":
                before = self._observed.refunds.get(refund.payment_key, Decimal(0))
                self._observed.refunds[refund.payment_key] = before + refund.amount
        first = await self._record_until_done(shop, refunds)
        again = await self._record_until_done(shop, refunds)
        self._observed.duplicates += len(refunds)
        for key, recorded in first.items():
            repeated = again[key]
            if recorded.sqlstate or recorded.replayed:
                self._checkout.record_error(f"refund {key}: {recorded.sqlstate or 'recorded before'}")
            elif not repeated.replayed or repeated[2:4] != recorded[2:4]:
                self._observed.mismatches.append(f"refund {key}: first {recorded}; then {repeated}")

    async def _record_until_done(self, shop: Shop, refunds: Sequence[Refund]) -> dict[str, RecordedRefund]:
        """What the shop says of each refund; those whose payment is locked are recorded again."""
        recorded: dict[str, RecordedRefund] = {}
        waiting = list(refunds)
        for _ in range(MAX_ROUNDS):
            recorded |= {row.refund_key: row for row in await shop.record_refunds(waiting)}
            waiting = [refund for refund in waiting if recorded[refund.refund_key].sqlstate == LOCKED]
            if not waiting:
                break
        return recorded
