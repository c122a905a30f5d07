"""Purchases: what a buyer does from the first look at the product to the payment."""

import asyncio
from collections.abc import Sequence

from flashsale.rehearsal.buyers import Buyer, Step
from flashsale.rehearsal.checkout import Checkout
from flashsale.rehearsal.config import SaleConfig
from flashsale.rehearsal.observations import Observations, Operation, Outcome, Purchase
from flashsale.rehearsal.provider import Provider


class Purchasing:
    """Takes buyers through their purchases."""

    def __init__(
        self, checkout: Checkout, provider: Provider, config: SaleConfig, observed: Observations
    ) -> None:
        self._checkout = checkout
        self._provider = provider
        self._config = config
        self._observed = observed
        self.late: list[tuple[Purchase, Sequence[Step]]] = []
        """purchases that wait for the end of the rush, with the steps after it"""
        self.without_unit: list[Buyer] = []
        """buyers who still want one"""

    async def hold(self, buyer: Buyer) -> Purchase | None:
        """View the product and request a unit; None if the buyer did not get one."""
        purchase = None
        with self._checkout.recording_errors():
            await self._checkout.request(Operation.VIEW, "GET", f"/api/products/{self._config.product_id}")
            body = {"product_id": self._config.product_id, "qty": 1}
            requested_at = self._checkout.now()
            response = await self._checkout.post(Operation.HOLD, "/api/holds", body, buyer)
            hold_id = response.body.get("hold_id")
            if response.ok and hold_id is not None:
                purchase = Purchase(buyer, hold_id, requested_at)
                self._observed.purchases.append(purchase)
            elif response.code == "insufficient_stock":
                self.without_unit.append(buyer)
            else:
                self._checkout.record_refusal(Operation.HOLD, response)
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
            if step in (Step.ORDER, Step.RELEASE, Step.SUCCESS, Step.FAILED, Step.CANCELLED) and number < 2:
                await asyncio.sleep(purchase.buyer.pauses[number])
            match step:
                case Step.ORDER:
                    if not await self.order(purchase):
                        return Outcome.EXPIRED
                case Step.RELEASE:
                    outcome = await self.release(purchase)
                case Step.SUCCESS:
                    outcome = await self.pay(purchase)
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
        """Order the held unit; returns whether the hold was still valid."""
        purchase.ordered_at = self._checkout.now()
        body = {"hold_id": purchase.hold_id}
        response = await self._checkout.post(Operation.ORDER, "/api/orders", body, purchase.buyer)
        purchase.order_id = response.body.get("order_id") if response.ok else None
        if purchase.order_id is not None:
            return True
        if response.code == "hold_expired" and self._since(purchase.held_at) >= self._config.hold_time:
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
        is_first = not purchase.webhooks
        webhook = await self._provider.report(purchase, "success")
        if webhook is None:
            return Outcome.ERROR
        in_time = is_first and self._since(purchase.ordered_at) < self._config.payment_window
        expected = [("applied", "paid")] if in_time else [("applied", "paid"), ("refund_due", "cancelled")]
        if (webhook.result, webhook.order_status) not in expected:
            self._checkout.record_error(
                f"webhook for order {webhook.order_id}: {webhook.result}, {webhook.order_status}"
            )
        await self.confirm(purchase, webhook.order_status)
        return Outcome.BOUGHT if webhook.order_status == "paid" else Outcome.REFUND_DUE

    async def confirm(self, purchase: Purchase, status: str | None) -> None:
        """Check that the order has the status that a webhook returned."""
        path = f"/api/orders/{purchase.order_id}?hold_id={purchase.hold_id}"
        order = await self._checkout.request(Operation.CONFIRM, "GET", path)
        if order.ok and order.body.get("status") != status:
            self._checkout.record_error(
                f"order {purchase.order_id} is {order.body.get('status')}, its webhook returned {status}"
            )

    def _since(self, at: float) -> float:
        return self._checkout.now() - at
