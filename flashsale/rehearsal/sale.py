"""The sequence of the sale.

The buyers with early webhooks come first. Then comes the rush: every buyer views the product and requests
one unit, with limited concurrency. Buyers with a hold order and pay after a pause, while the rush continues.
After it late payments are captured. Then buyers without a unit try again for units that were released, until
none is left or no buyer wants one. Finally the provider sends some of its webhooks again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from random import Random

from flashsale.rehearsal.buyers import Buyer, Buyers
from flashsale.rehearsal.checkout import Checkout
from flashsale.rehearsal.client import Client
from flashsale.rehearsal.config import SaleConfig
from flashsale.rehearsal.early_webhooks import EarlyWebhooks
from flashsale.rehearsal.observations import Observations, Operation, Phase, StockLevels
from flashsale.rehearsal.provider import Provider
from flashsale.rehearsal.purchasing import Purchasing
from flashsale.rehearsal.tasks import run_all

RETURN_TIMEOUT_SECONDS = 10
"""seconds beyond the hold time for which buyers wait for held units to be released"""
MAX_ERRORS = 100
"""after which no further buyers come: the result is clear, and requests to a dead server take long"""


class Sale:
    """One sale, from the first buyer to the last webhook.

    :param sample: reads the current stock levels from the database
    :param next_order_id: predicts the id of the next order
    """

    def __init__(
        self,
        client: Client,
        buyers: Buyers,
        config: SaleConfig,
        observed: Observations,
        sample: Callable[[], Awaitable[StockLevels]],
        next_order_id: Callable[[], Awaitable[int]],
    ) -> None:
        self._client = client
        self._buyers = buyers
        self._config = config
        self._observed = observed
        self._sample = sample
        random = Random(config.seed)  # noqa: S311
        self._checkout = Checkout(client, observed, config.token)
        self._provider = Provider(self._checkout, config, observed)
        self._purchasing = Purchasing(self._checkout, self._provider, config, observed)
        self._early = EarlyWebhooks(
            self._checkout, self._provider, self._purchasing, observed, next_order_id, random
        )
        self.phase = ""
        self.served = 0
        """buyers whose request for a unit has been answered"""

    async def run(self) -> None:
        with self._phase("early webhooks"):
            await self._early.serve(self._buyers.early)
            self.served += len(self._buyers.early)
        with self._phase("rush"):
            await self._serve(self._buyers.crowd)
        with self._phase("late payments"):
            await run_all(self._purchasing.proceed(*late) for late in self._purchasing.late)
        with self._phase("second chance"):
            await self._serve_again()
        with self._phase("repeated webhooks"):
            await run_all(
                self._provider.resend(webhook)
                for purchase in self._observed.purchases
                if purchase.buyer.duplicated
                for webhook in purchase.webhooks
            )
        self._observed.sold_out = len(self._purchasing.without_unit)
        with self._checkout.recording_errors():
            product = await self._checkout.request(
                Operation.VIEW, "GET", f"/api/products/{self._config.product_id}"
            )
            self._observed.available_at_end = product.body.get("available_stock")

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        self.phase, begin = name, self._client.now()
        yield
        self._observed.phases.append(Phase(name, begin, self._client.now()))

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
