"""Purchases: what a buyer does from the first look at the product to the payment."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from flashsale.rehearsal.buyers import Buyer, Step
from flashsale.rehearsal.checkout import Checkout
from flashsale.rehearsal.config import SaleConfig
from flashsale.rehearsal.observations import Observations, Operation, Outcome, Purchase, Response
from flashsale.rehearsal.provider import Provider

OPENING_TIMEOUT_SECONDS = 10
"""seconds after the start for which buyers are told that it has not come"""
_HURRIED = {Step.WAIT_FOR_END_OF_RUSH, Step.WAIT_UNTIL_OVERDUE}
"""steps without a pause before them"""


class Purchasing:
    """Takes buyers through their purchases."""

    def __init__(
        self, checkout: Checkout, provider: Provider, config: SaleConfig, observed: Observations
    ) -> None:
        self._checkout = checkout
        self._provider = provider
        self._config = config
        self._observed = observed
        self.orders_open = asyncio.Event()
        """whether buyers without early webhooks may order: the ids of orders can be predicted until then"""
        self.late: list[tuple[Purchase, Sequence[Step]]] = []
        """purchases that wait for the end of the rush, with the steps after it"""
        self.without_unit: list[Buyer] = []
        """buyers who still want one"""

    async def hold(self, buyer: Buyer) -> Purchase | None:
        """View the product and request a unit; None if the buyer did not get one.

        A buyer who comes before the start waits for it, by the database's clock.
        """
        purchase = None
        with self._checkout.recording_errors():
            product = await self._checkout.view()
            requested_at = self._checkout.now()
            response = await self._checkout.hold(buyer, 1)
            while response.code == "sale_not_started" and (left := _seconds_until_start(product)) is not None:
                await asyncio.sleep(max(left - (self._checkout.now() - requested_at), 0.01))
                product = await self._checkout.view()
                requested_at = self._checkout.now()
                response = await self._checkout.hold(buyer, 1)
            if response.ok:
                purchase = self.record_hold(buyer, 1, requested_at, response)
            elif response.code == "insufficient_stock":
                self.without_unit.append(buyer)
            else:
                self._checkout.record_refusal(Operation.HOLD, response)
        return purchase

    def record_hold(self, buyer: Buyer, qty: int, requested_at: float, response: Response) -> Purchase:
        purchase = Purchase(
            buyer,
            int(response.body["hold_id"]),
            requested_at,
            qty=qty,
            expires_at=datetime.fromisoformat(response.body["expires_at"]),
        )
        self._observed.purchases.append(purchase)
        return purchase

    async def proceed(self, purchase: Purchase, steps: Sequence[Step]) -> None:
        """Take the steps after the hold, up to one that waits for the end of the rush."""
        purchase.outcome = Outcome.ERROR
        with self._checkout.recording_errors():
            purchase.outcome = await self._take_steps(purchase, steps)

    async def _take_steps(self, purchase: Purchase, steps: Sequence[Step]) -> Outcome | None:
        """The outcome so far."""
        outcome: Outcome | None = Outcome.LEFT
        for number, step in enumerate(steps):
            if number < 2 and step not in _HURRIED:
                await asyncio.sleep(purchase.buyer.pauses[number])
            match step:
                case Step.ORDER:
                    await self.orders_open.wait()
                    if not await self.order(purchase):
                        return Outcome.EXPIRED
                case Step.RELEASE:
                    outcome = await self.release(purchase)
                case Step.SUCCESS:
                    outcome = await self.pay(purchase)
                case Step.SUCCESS_TWICE:
                    outcome = await self.pay_twice(purchase)
                case Step.DECLINED:
                    await self._decline(purchase)
                case Step.FAILED:
                    await self._provider.report(purchase, "failed")
                    outcome = Outcome.FAILED
                case Step.CANCELLED:
                    await self._provider.report(purchase, "cancelled")
                    outcome = Outcome.CANCELLED
                case Step.WAIT_FOR_END_OF_RUSH:
                    self.late.append((purchase, steps[number + 1 :]))
                    return outcome
                case Step.WAIT_UNTIL_OVERDUE:
                    # Holds and orders lapse at whole tenths of a second, rounded up.
                    await asyncio.sleep(self._config.payment_window + 0.2)
        return outcome

    async def order(self, purchase: Purchase) -> bool:
        """Order the held units; returns whether the hold was still valid."""
        purchase.ordered_at = self._checkout.now()
        body = {"hold_id": purchase.hold_id}
        response = await self._checkout.post(Operation.ORDER, "/api/orders", body, purchase.buyer)
        if response.ok:
            purchase.order_id = int(response.body["order_id"])
            purchase.amount = Decimal(response.body["amount"])
            purchase.payment_due_at = datetime.fromisoformat(response.body["payment_due_at"])
            return True
        if response.code == "hold_expired" and self._since(purchase.held_at) >= self._config.hold_time:
            if not purchase.buyer.is_bot:
                self.without_unit.append(purchase.buyer)
        else:
            self._checkout.record_refusal(Operation.ORDER, response)
        return False

    async def release(self, purchase: Purchase) -> Outcome:
        path = f"/api/holds/{purchase.hold_id}"
        calls = [
            self._checkout.request(Operation.RELEASE, "DELETE", path)
            for _ in range(1 + purchase.buyer.duplicated)
        ]
        responses = await asyncio.gather(*calls)
        self._checkout.compare(Operation.RELEASE, responses)
        has_expired = self._since(purchase.held_at) >= self._config.hold_time
        for response in responses:
            if not response.ok and not (response.code == "hold_expired" and has_expired):
                self._checkout.record_refusal(Operation.RELEASE, response)
        return Outcome.RELEASED

    async def pay(self, purchase: Purchase) -> Outcome:
        """Report a captured payment, and check the status of the order."""
        is_first = all(webhook.status == "declined" for webhook in purchase.webhooks)
        webhook = await self._provider.report(purchase, "success")
        if webhook is None:
            return Outcome.ERROR
        in_time = is_first and self._is_in_time(purchase)
        expected = [("applied", "paid")] if in_time else [("applied", "paid"), ("refund_due", "cancelled")]
        if (webhook.result, webhook.order_status) not in expected:
            self._checkout.record_error(
                f"webhook for order {webhook.order_id}: {webhook.result}, {webhook.order_status}"
            )
        await self.confirm(purchase, webhook.order_status)
        return Outcome.BOUGHT if webhook.order_status == "paid" else Outcome.REFUND_DUE

    async def pay_twice(self, purchase: Purchase) -> Outcome:
        """Report two captured payments concurrently: one of them pays the order, the other is due back."""
        reported = await asyncio.gather(*[self._provider.report(purchase, "success") for _ in range(2)])
        webhooks = [webhook for webhook in reported if webhook is not None]
        if len(webhooks) < 2:
            return Outcome.ERROR
        results = sorted(webhook.result for webhook in webhooks)
        if self._is_in_time(purchase) and results != ["applied", "refund_due"]:
            self._checkout.record_error(f"webhooks for order {purchase.order_id}: {' and '.join(results)}")
        status = "paid" if "applied" in results else "cancelled"
        await self.confirm(purchase, status)
        return Outcome.BOUGHT if status == "paid" else Outcome.REFUND_DUE

    async def _decline(self, purchase: Purchase) -> None:
        """Report a declined attempt: the order stays as it is."""
        in_time = self._since(purchase.ordered_at) < self._config.payment_window
        webhook = await self._provider.report(purchase, "declined")
        if webhook is not None and (
            webhook.result != "no_change" or (in_time and webhook.order_status != "pending_payment")
        ):
            self._checkout.record_error(
                f"declined payment for order {webhook.order_id}: {webhook.result}, {webhook.order_status}"
            )

    async def confirm(self, purchase: Purchase, status: str | None) -> None:
        """Check that the order has this status."""
        path = f"/api/orders/{purchase.order_id}?hold_id={purchase.hold_id}"
        order = await self._checkout.request(Operation.CONFIRM, "GET", path)
        if order.ok and order.body.get("status") != status:
            self._checkout.record_error(
                f"order {purchase.order_id} is {order.body.get('status')}, and should be {status}"
            )

    def _is_in_time(self, purchase: Purchase) -> bool:
        """Whether the order is not overdue yet, so that all responses so far were about one that was not."""
        return self._since(purchase.ordered_at) < self._config.payment_window

    def _since(self, at: float) -> float:
        return self._checkout.now() - at


def _seconds_until_start(product: Response) -> float | None:
    """Seconds from a response to GET /api/products/{id} to the start of the sale.

    None if it has no start, or one that came so long ago that it is not waited for.
    """
    starts_at, now = product.body.get("starts_at"), product.body.get("now")
    if not starts_at or not now:
        return None
    left = (datetime.fromisoformat(starts_at) - datetime.fromisoformat(now)).total_seconds()
    return None if left < -OPENING_TIMEOUT_SECONDS else left
