"""Webhooks that arrive before their order, or concurrently.

They name the order by its id, so they can be sent only while no other buyer orders: then the ids of the
next orders can be predicted.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from random import Random
from typing import Any

from flashsale.rehearsal.buyers import Buyer
from flashsale.rehearsal.checkout import Checkout
from flashsale.rehearsal.config import SaleConfig
from flashsale.rehearsal.observations import Observations, Outcome, Purchase, Webhook
from flashsale.rehearsal.provider import Provider
from flashsale.rehearsal.purchasing import Purchasing
from flashsale.rehearsal.shop import Shop
from flashsale.rehearsal.tasks import run_all


class EarlyWebhooks:
    """Takes buyers with early webhooks through their purchases; afterwards others may order."""

    def __init__(
        self,
        checkout: Checkout,
        provider: Provider,
        purchasing: Purchasing,
        config: SaleConfig,
        observed: Observations,
        shop: Shop,
        random: Random,
    ) -> None:
        self._checkout = checkout
        self._provider = provider
        self._purchasing = purchasing
        self._observed = observed
        self._price = config.price
        self._shop = shop
        self._random = random

    async def serve(self, buyers: Sequence[Buyer]) -> None:
        try:
            await self._serve(buyers)
        finally:
            self._purchasing.orders_open.set()

    async def _serve(self, buyers: Sequence[Buyer]) -> None:
        """Create orders, and send the webhooks of their predicted ids concurrently."""
        held = await asyncio.gather(*map(self._purchasing.hold, buyers))
        purchases = [purchase for purchase in held if purchase is not None]
        if not purchases:
            return
        next_id = await self._shop.next_order_id()
        webhooks: dict[int, Webhook] = {}

        async def send(order_id: int, buyer: Buyer) -> None:
            with self._checkout.recording_errors():
                if webhook := await self._provider.send(order_id, "success", self._price, buyer):
                    webhooks[order_id] = webhook

        async def order(purchase: Purchase) -> None:
            with self._checkout.recording_errors():
                await self._purchasing.order(purchase)

        tasks: list[Coroutine[Any, Any, None]] = [
            send(next_id + number, purchase.buyer) for number, purchase in enumerate(purchases)
        ]
        tasks += [order(purchase) for purchase in purchases]
        self._random.shuffle(tasks)
        await run_all(tasks)
        await run_all(self._finish(purchase, webhooks) for purchase in purchases)
        self._observed.unmatched.extend(webhooks.values())

    async def _finish(self, purchase: Purchase, webhooks: dict[int, Webhook]) -> None:
        """Check that an order with an early webhook is paid; pay for one whose id was not predicted."""
        purchase.outcome = Outcome.ERROR
        if purchase.order_id is None:
            return
        with self._checkout.recording_errors():
            if webhook := webhooks.pop(purchase.order_id, None):
                purchase.webhooks.append(webhook)
                await self._purchasing.confirm(purchase, "paid")
                purchase.outcome = Outcome.BOUGHT
            else:
                purchase.outcome = await self._purchasing.pay(purchase)
