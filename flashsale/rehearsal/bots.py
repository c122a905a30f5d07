"""Bots: they request holds in parallel for a few accounts, from before the start to the end of the rush."""

import asyncio
import itertools
from collections.abc import Sequence
from random import Random

from flashsale.rehearsal.buyers import Buyer
from flashsale.rehearsal.checkout import Checkout
from flashsale.rehearsal.config import SaleConfig
from flashsale.rehearsal.observations import Observations, Operation, Outcome, Purchase
from flashsale.rehearsal.purchasing import Purchasing

MIN_VOLLEYS = 3
"""that each connection's worth of bots sends on sale, however short the rush is"""
MAX_PAUSE_SECONDS = 0.02
"""between two volleys"""
RELEASED_SHARE = 0.5
"""of the holds; the others are bought"""


class Bots:
    """Sends volleys of parallel requests, each volley for one account.

    The units that a bot releases count towards its limit no more, and it requests them again at once.

    :param max_errors: of all buyers, after which no further requests are sent
    """

    def __init__(
        self,
        bots: Sequence[Buyer],
        checkout: Checkout,
        purchasing: Purchasing,
        config: SaleConfig,
        observed: Observations,
        random: Random,
        max_errors: int,
    ) -> None:
        self._bots = bots
        self._checkout = checkout
        self._purchasing = purchasing
        self._observed = observed
        self._random = random
        self._max_errors = max_errors
        self._stopped = False
        limit = config.limit or 3
        self._quantities = (1, 1, limit, limit + 1)
        self._senders = min(len(bots), max(1, config.concurrency // len(self._quantities)))
        self._refusals = {"insufficient_stock"}
        if config.limit is not None:
            self._refusals.add("limit_reached")
        if config.starts_at is not None:
            self._refusals.add("sale_not_started")

    def stop(self) -> None:
        """Let no further volleys be sent."""
        self._stopped = True

    async def run(self, starts_at: float = 0) -> None:
        """Send volleys until stop(), and finish the purchases.

        :param starts_at: when the sale starts, by the client's clock
        """
        queue = itertools.cycle(self._bots)
        async with asyncio.TaskGroup() as group:

            async def send_volleys() -> None:
                on_sale = 0
                while on_sale < MIN_VOLLEYS or not self._stopped:
                    if len(self._observed.errors) >= self._max_errors:
                        return
                    bot = next(queue)
                    on_sale += self._checkout.now() >= starts_at
                    purchases = await asyncio.gather(*[self._hold(bot, qty) for qty in self._quantities])
                    for purchase in purchases:
                        if purchase is not None:
                            group.create_task(self._finish(purchase))
                    await asyncio.sleep(self._random.uniform(0, MAX_PAUSE_SECONDS))

            for _ in range(self._senders):
                group.create_task(send_volleys())

    async def _hold(self, bot: Buyer, qty: int) -> Purchase | None:
        with self._checkout.recording_errors():
            requested_at = self._checkout.now()
            response = await self._checkout.hold(bot, qty)
            if response.ok:
                return self._purchasing.record_hold(bot, qty, requested_at, response)
            if response.code not in self._refusals:
                self._checkout.record_refusal(Operation.BOT, response)
        return None

    async def _finish(self, purchase: Purchase) -> None:
        """Release the hold, or order and pay."""
        purchase.outcome = Outcome.ERROR
        with self._checkout.recording_errors():
            await asyncio.sleep(purchase.buyer.pauses[0] / 4)
            if self._random.random() < RELEASED_SHARE:
                purchase.outcome = await self._purchasing.release(purchase)
                return
            await self._purchasing.orders_open.wait()
            if await self._purchasing.order(purchase):
                purchase.outcome = await self._purchasing.pay(purchase)
            else:
                purchase.outcome = Outcome.EXPIRED
