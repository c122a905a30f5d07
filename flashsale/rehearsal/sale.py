"""The sequence of the sale.

The buyers with early webhooks come first. Then comes the rush: every buyer views the product and requests
one unit, with limited concurrency. Buyers with a hold order and pay after a pause, while the rush continues,
and so do bots. If the sale starts at an instant, bots send their requests from the beginning on, and buyers
from shortly before the start; those with early webhooks are among them.

After the rush late payments are captured, and the shop cancels some of the paid orders. Then buyers without a
unit try again for units that were released, until none is left or no buyer wants one. Finally the provider
sends some of its webhooks again, and returns most of the money that is due.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from random import Random

from flashsale.rehearsal.bots import Bots
from flashsale.rehearsal.buyers import Buyer, Buyers
from flashsale.rehearsal.checkout import Checkout
from flashsale.rehearsal.client import Client
from flashsale.rehearsal.config import SaleConfig
from flashsale.rehearsal.early_webhooks import EarlyWebhooks
from flashsale.rehearsal.identity import Identity
from flashsale.rehearsal.observations import Observations, Outcome, Phase, Purchase, StockLevels
from flashsale.rehearsal.provider import LOCKED, Provider
from flashsale.rehearsal.purchasing import Purchasing
from flashsale.rehearsal.shop import BATCH_SIZE, Shop
from flashsale.rehearsal.tasks import run_all

LEAD_SECONDS = 0.5
"""seconds before the start at which the first buyers come"""
RETURN_TIMEOUT_SECONDS = 10
"""seconds beyond the hold time for which buyers wait for held units to be released"""
MAX_ERRORS = 100
"""after which no further buyers come: the result is clear, and requests to a dead server take long"""


class Sale:
    """One sale, from the first buyer to the last refund.

    :param identity: names the buyers of holds; None if the product has no limit
    :param sample: reads the current stock levels from the database
    """

    def __init__(
        self,
        client: Client,
        buyers: Buyers,
        config: SaleConfig,
        identity: Identity | None,
        observed: Observations,
        sample: Callable[[], Awaitable[StockLevels]],
        shop: Shop,
    ) -> None:
        self._buyers = buyers
        self._config = config
        self._observed = observed
        self._sample = sample
        self._shop = shop
        self._random = random = Random(config.seed)  # noqa: S311
        self._checkout = checkout = Checkout(
            client, client.with_concurrency(config.concurrency), identity, config, observed
        )
        self._provider = provider = Provider(checkout, config, observed, random)
        self._purchasing = purchasing = Purchasing(checkout, provider, config, observed)
        self._early = EarlyWebhooks(checkout, provider, purchasing, config, observed, shop, random)
        self._bots = Bots(buyers.bots, checkout, purchasing, config, observed, random, MAX_ERRORS)
        self.phase = ""
        self.served = 0
        """buyers whose request for a unit has been answered"""

    async def run(self) -> None:
        if self._config.starts_at is None:
            with self._phase("early webhooks"):
                await self._serve_early()
            with self._phase("rush"):
                await self._rush()
        else:
            await self._wait_and_rush(self._config.starts_at)
        with self._phase("late payments"):
            await run_all(self._purchasing.proceed(*late) for late in self._purchasing.late)
        with self._phase("cancelled orders"):
            await self._cancel_orders()
        with self._phase("second chance"):
            await self._serve_again()
        with self._phase("repeated webhooks"):
            await run_all(
                self._provider.resend(webhook)
                for purchase in self._observed.purchases
                if purchase.buyer.duplicated
                for webhook in purchase.webhooks
            )
        with self._phase("refunds"):
            await self._provider.refund(self._shop)
        self._observed.sold_out = len(self._purchasing.without_unit)
        with self._checkout.recording_errors():
            product = await self._checkout.view()
            self._observed.available_at_end = product.body.get("available_stock")

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        self.phase, begin = name, self._checkout.now()
        yield
        self._observed.phases.append(Phase(name, begin, self._checkout.now()))

    async def _rush(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._bots.run())
            await self._serve(self._buyers.crowd)
            self._bots.stop()

    async def _wait_and_rush(self, starts_at: datetime) -> None:
        """Let bots come at once, and the other buyers from shortly before the start."""
        start = self._checkout.now() + await self._shop.seconds_until(starts_at)
        async with asyncio.TaskGroup() as group:
            bots = group.create_task(self._bots.run(start))
            with self._phase("before the start"):
                await self._sleep_until(start - LEAD_SECONDS)
                early = group.create_task(self._serve_early())
                crowd = group.create_task(self._serve(self._buyers.crowd))
                await self._sleep_until(start)
            with self._phase("rush"):
                await early
                await crowd
                self._bots.stop()
                await bots

    async def _sleep_until(self, at: float) -> None:
        await asyncio.sleep(max(0, at - self._checkout.now()))

    async def _serve_early(self) -> None:
        await self._early.serve(self._buyers.early)
        self.served += len(self._buyers.early)

    async def _serve(self, buyers: Iterable[Buyer]) -> None:
        """Let buyers request a unit in turn, with limited concurrency, and finish their purchases."""
        queue = iter(buyers)
        async with asyncio.TaskGroup() as group:

            async def serve_queue() -> None:
                for buyer in queue:
                    if len(self._observed.errors) >= MAX_ERRORS:
                        return
                    if purchase := await self._purchasing.hold(buyer):
                        group.create_task(self._purchasing.proceed(purchase, buyer.behaviour.steps))
                    self.served += 1

            for _ in range(self._config.concurrency):
                group.create_task(serve_queue())

    async def _serve_again(self) -> None:
        timeout = (self._config.hold_time if self._config.lapsing else 0) + RETURN_TIMEOUT_SECONDS
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        waiting = self._purchasing.without_unit
        while waiting and len(self._observed.errors) < MAX_ERRORS:
            levels = await self._sample()
            if levels.available > 0:
                # A few more buyers than units, so that some requests meet an empty stock.
                buyers = waiting[: levels.available + self._config.concurrency // 4 + 1]
                del waiting[: len(buyers)]
                self.served -= len(buyers)
                await self._serve(buyers)
                deadline = loop.time() + timeout
            elif levels.held + levels.awaiting == 0 or loop.time() > deadline:
                return
            else:
                await asyncio.sleep(0.1)

    async def _cancel_orders(self) -> None:
        """Let the shop cancel some of the paid orders: their units are for sale again, the money is due."""
        paid = [purchase for purchase in self._observed.purchases if purchase.outcome is Outcome.BOUGHT]
        count = round(len(paid) * self._config.cancelled / 100)
        by_order = {purchase.order_id: purchase for purchase in self._random.sample(paid, count)}
        waiting = [order_id for order_id in by_order if order_id is not None]
        while waiting:
            outcomes = await self._shop.cancel_orders(waiting[:BATCH_SIZE])
            locked = [outcome.order_id for outcome in outcomes if outcome.sqlstate == LOCKED]
            waiting = locked + waiting[BATCH_SIZE:]
            for outcome in outcomes:
                if outcome.cancel_reason == "shop_cancelled":
                    by_order[outcome.order_id].outcome = Outcome.SHOP_CANCELLED
                elif outcome.sqlstate != LOCKED:
                    self._checkout.record_error(f"cancel_orders: {outcome}")
        await run_all(
            self._confirm_cancelled(purchase)
            for purchase in by_order.values()
            if purchase.outcome is Outcome.SHOP_CANCELLED
        )

    async def _confirm_cancelled(self, purchase: Purchase) -> None:
        with self._checkout.recording_errors():
            await self._purchasing.confirm(purchase, "cancelled")
