"""The sequence of the sale.

The buyers with early webhooks come first. Then comes the rush: every buyer views the product and requests
one unit, with limited concurrency. Buyers with a hold order and pay after a pause, while the rush continues.
After it late payments are captured. Then buyers without a unit try again for units that were released, until
none is left or no buyer wants one. Finally the provider sends some of its webhooks again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

import msgspec

from flashsale.rehearsal.buyers import Buyer, Buyers, Step
from flashsale.rehearsal.client import JSON, Client, NoResponse
from flashsale.rehearsal.observations import (
    Observations,
    Operation,
    Outcome,
    Phase,
    Purchase,
    Response,
    StockLevels,
    Webhook,
)
from flashsale.webhooks import signature_headers

RETURN_TIMEOUT_SECONDS = 10
"""seconds beyond the hold time for which buyers wait for held units to be released"""
MAX_ERRORS = 100
"""after which no further buyers come: the result is clear, and requests to a dead server take long"""


@dataclass(frozen=True)
class SaleConfig:
    """The parameters of the sale; times are in seconds."""

    product_id: int
    price: str
    currency: str
    hold_time: float
    payment_window: float
    lapsing: bool
    """some buyers wait until their hold or order has lapsed"""
    concurrency: int
    seed: int
    token: str
    """part of every idempotency key of this rehearsal"""
    secrets: Sequence[str]
    """the first signs the webhooks, if there is one"""


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
        self._next_order_id = next_order_id
        self._random = Random(config.seed)  # noqa: S311
        self._keys = (f"{config.token}-{number}" for number in range(2**63))
        self._late: list[tuple[Purchase, Sequence[Step]]] = []
        self._without_unit: list[Buyer] = []
        self.phase = ""
        self.served = 0
        """buyers whose request for a unit has been answered"""

    async def run(self) -> None:
        with self._phase("early webhooks"):
            await self._serve_early()
        with self._phase("rush"):
            await self._serve(self._buyers.crowd)
        with self._phase("late payments"):
            await self._all(self._continue(purchase, steps) for purchase, steps in self._late)
        with self._phase("second chance"):
            await self._serve_again()
        with self._phase("repeated webhooks"):
            await self._all(
                self._resend(webhook)
                for purchase in self._observed.purchases
                if purchase.buyer.duplicated
                for webhook in purchase.webhooks
            )
        self._observed.sold_out = len(self._without_unit)
        with self._recording_errors():
            product = await self._request(Operation.VIEW, "GET", f"/api/products/{self._config.product_id}")
            self._observed.available_at_end = product.body.get("available_stock")

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        self.phase, begin = name, self._client.now()
        yield
        self._observed.phases.append(Phase(name, begin, self._client.now()))

    @contextmanager
    def _recording_errors(self) -> Iterator[None]:
        try:
            yield
        except NoResponse as error:
            self._observed.errors.append(str(error))

    async def _all(self, coroutines: Iterable[Coroutine[None, None, None]]) -> None:
        async with asyncio.TaskGroup() as group:
            for coroutine in coroutines:
                group.create_task(coroutine)

    # --- Requests for a unit -------------------------------------------------------------------------------

    async def _serve(self, buyers: Iterable[Buyer]) -> None:
        """Let buyers request a unit in turn, with limited concurrency, and finish their purchases."""
        queue = iter(buyers)
        async with asyncio.TaskGroup() as group:

            async def serve_queue() -> None:
                for buyer in queue:
                    if len(self._observed.errors) >= MAX_ERRORS:
                        return
                    if purchase := await self._hold(buyer):
                        group.create_task(self._continue(purchase, buyer.behaviour.steps))
                    self.served += 1

            for _ in range(self._config.concurrency):
                group.create_task(serve_queue())

    async def _serve_again(self) -> None:
        timeout = (self._config.hold_time if self._config.lapsing else 0) + RETURN_TIMEOUT_SECONDS
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while self._without_unit and len(self._observed.errors) < MAX_ERRORS:
            levels = await self._sample()
            if levels.available > 0:
                # A few more buyers than units, so that some requests meet an empty stock.
                count = levels.available + self._config.concurrency // 4 + 1
                buyers, self._without_unit = self._without_unit[:count], self._without_unit[count:]
                self.served -= len(buyers)
                await self._serve(buyers)
                deadline = loop.time() + timeout
            elif levels.held + levels.awaiting == 0 or loop.time() > deadline:
                return
            else:
                await asyncio.sleep(0.1)

    async def _hold(self, buyer: Buyer) -> Purchase | None:
        purchase = None
        with self._recording_errors():
            await self._request(Operation.VIEW, "GET", f"/api/products/{self._config.product_id}")
            body = {"product_id": self._config.product_id, "qty": 1}
            requested_at = self._client.now()
            response = await self._post(Operation.HOLD, "/api/holds", body, buyer)
            hold_id = response.body.get("hold_id")
            if response.ok and hold_id is not None:
                purchase = Purchase(buyer, hold_id, requested_at)
                self._observed.purchases.append(purchase)
            elif response.code == "insufficient_stock":
                self._without_unit.append(buyer)
            else:
                self._record_error(Operation.HOLD, response)
        return purchase

    # --- Buyers with a hold --------------------------------------------------------------------------------

    async def _continue(self, purchase: Purchase, steps: Sequence[Step]) -> None:
        purchase.outcome = Outcome.ERROR
        with self._recording_errors():
            purchase.outcome = await self._take_steps(purchase, steps)

    async def _take_steps(self, purchase: Purchase, steps: Sequence[Step]) -> Outcome | None:
        """Take the steps, up to one that waits for the end of the rush; returns the outcome so far."""
        outcome: Outcome | None = Outcome.LEFT
        for number, step in enumerate(steps):
            if step in (Step.ORDER, Step.RELEASE, Step.SUCCESS, Step.FAILED, Step.CANCELLED) and number < 2:
                await asyncio.sleep(purchase.buyer.pauses[number])
            match step:
                case Step.ORDER:
                    if not await self._order(purchase):
                        return Outcome.EXPIRED
                case Step.RELEASE:
                    outcome = await self._release(purchase)
                case Step.SUCCESS:
                    outcome = await self._pay(purchase)
                case Step.FAILED:
                    await self._report(purchase, "failed")
                    outcome = Outcome.FAILED
                case Step.CANCELLED:
                    await self._report(purchase, "cancelled")
                    outcome = Outcome.CANCELLED
                case Step.WAIT_FOR_END_OF_RUSH:
                    self._late.append((purchase, steps[number + 1 :]))
                    return outcome
                case Step.WAIT_UNTIL_OVERDUE:
                    # Holds and orders lapse at whole tenths of a second, rounded up.
                    await asyncio.sleep(self._config.payment_window + 0.2)
        return outcome

    async def _order(self, purchase: Purchase) -> bool:
        """Order the held unit; returns whether the hold was still valid."""
        purchase.ordered_at = self._client.now()
        body = {"hold_id": purchase.hold_id}
        response = await self._post(Operation.ORDER, "/api/orders", body, purchase.buyer)
        purchase.order_id = response.body.get("order_id") if response.ok else None
        if purchase.order_id is not None:
            return True
        if response.code == "hold_expired" and self._since(purchase.held_at) >= self._config.hold_time:
            self._without_unit.append(purchase.buyer)
        else:
            self._record_error(Operation.ORDER, response)
        return False

    async def _release(self, purchase: Purchase) -> Outcome:
        path = f"/api/holds/{purchase.hold_id}"
        calls = [
            self._request(Operation.RELEASE, "DELETE", path) for _ in range(1 + purchase.buyer.duplicated)
        ]
        responses = await asyncio.gather(*calls)
        self._compare(Operation.RELEASE, responses)
        has_expired = self._since(purchase.held_at) >= self._config.hold_time
        for response in responses:
            if not response.ok and not (response.code == "hold_expired" and has_expired):
                self._record_error(Operation.RELEASE, response)
        return Outcome.RELEASED

    async def _pay(self, purchase: Purchase) -> Outcome:
        """Report a captured payment, and check the status of the order."""
        is_first = not purchase.webhooks
        webhook = await self._report(purchase, "success")
        if webhook is None:
            return Outcome.ERROR
        in_time = is_first and self._since(purchase.ordered_at) < self._config.payment_window
        expected = [("applied", "paid")] if in_time else [("applied", "paid"), ("refund_due", "cancelled")]
        if (webhook.result, webhook.order_status) not in expected:
            self._observed.errors.append(
                f"webhook for order {webhook.order_id}: {webhook.result}, {webhook.order_status}"
            )
        await self._confirm(purchase, webhook.order_status)
        return Outcome.BOUGHT if webhook.order_status == "paid" else Outcome.REFUND_DUE

    async def _confirm(self, purchase: Purchase, status: str | None) -> None:
        path = f"/api/orders/{purchase.order_id}?hold_id={purchase.hold_id}"
        order = await self._request(Operation.CONFIRM, "GET", path)
        if order.ok and order.body.get("status") != status:
            self._observed.errors.append(
                f"order {purchase.order_id} is {order.body.get('status')}, its webhook returned {status}"
            )

    def _since(self, at: float) -> float:
        return self._client.now() - at

    # --- The payment provider ------------------------------------------------------------------------------

    async def _report(self, purchase: Purchase, status: str) -> Webhook | None:
        assert purchase.order_id is not None  # noqa: S101 - every behaviour orders before it pays
        webhook = await self._send_webhook(next(self._keys), purchase.order_id, status, purchase.buyer)
        if webhook is not None:
            purchase.webhooks.append(webhook)
        return webhook

    async def _send_webhook(self, key: str, order_id: int, status: str, buyer: Buyer) -> Webhook | None:
        """Send a webhook, twice concurrently for some buyers; None if the server did not acknowledge it."""
        responses = await asyncio.gather(
            *[self._post_webhook(key, order_id, status) for _ in range(1 + buyer.duplicated)]
        )
        self._compare(Operation.WEBHOOK, responses)
        if not responses[0].ok:
            self._record_error(Operation.WEBHOOK, responses[0])
            return None
        body = responses[0].body
        return Webhook(key, order_id, status, str(body.get("result")), body.get("status"))

    async def _post_webhook(self, key: str, order_id: int, status: str) -> Response:
        # With price and currency: if the order is a customer's, they do not match it.
        event = {
            "idempotency_key": key, "order_id": order_id, "status": status,
            "amount": self._config.price, "currency": self._config.currency,
        }  # fmt: skip
        body = msgspec.json.encode(event)
        headers = JSON | signature_headers(body, key, self._config.secrets)
        return await self._request(Operation.WEBHOOK, "POST", "/api/payments/webhook", body, headers)

    async def _resend(self, webhook: Webhook) -> None:
        with self._recording_errors():
            response = await self._post_webhook(webhook.key, webhook.order_id, webhook.status)
            self._observed.duplicates += 1
            result = (response.body.get("result"), response.body.get("status"))
            if result != (webhook.result, webhook.order_status) or not response.replayed:
                self._observed.mismatches.append(
                    f"webhook {webhook.key}: first {webhook.result}, {webhook.order_status};"
                    f" then {response} {result}"
                )

    # --- Early webhooks ------------------------------------------------------------------------------------

    async def _serve_early(self) -> None:
        """Create orders, and send the webhooks of their predicted ids concurrently."""
        purchases = [
            purchase
            for purchase in await asyncio.gather(*map(self._hold, self._buyers.early))
            if purchase is not None
        ]
        self.served += len(self._buyers.early)
        if not purchases:
            return
        next_id = await self._next_order_id()
        webhooks: dict[int, Webhook] = {}

        async def send(order_id: int, buyer: Buyer) -> None:
            with self._recording_errors():
                if webhook := await self._send_webhook(next(self._keys), order_id, "success", buyer):
                    webhooks[order_id] = webhook

        async def order(purchase: Purchase) -> None:
            with self._recording_errors():
                await self._order(purchase)

        tasks = [send(next_id + number, purchase.buyer) for number, purchase in enumerate(purchases)]
        tasks += [order(purchase) for purchase in purchases]
        self._random.shuffle(tasks)
        await self._all(tasks)
        await self._all(self._finish_early(purchase, webhooks) for purchase in purchases)
        self._observed.unmatched.extend(webhooks.values())

    async def _finish_early(self, purchase: Purchase, webhooks: dict[int, Webhook]) -> None:
        """Check that an order with an early webhook is paid; pay for one whose id was not predicted."""
        purchase.outcome = Outcome.ERROR
        if purchase.order_id is None:
            return
        with self._recording_errors():
            if webhook := webhooks.pop(purchase.order_id, None):
                purchase.webhooks.append(webhook)
                await self._confirm(purchase, "paid")
                purchase.outcome = Outcome.BOUGHT
            else:
                purchase.outcome = await self._pay(purchase)

    # --- Requests and responses ----------------------------------------------------------------------------

    async def _post(self, operation: Operation, path: str, content: dict[str, int], buyer: Buyer) -> Response:
        """POST with an idempotency key, twice concurrently for some buyers."""
        headers = JSON | {"Idempotency-Key": next(self._keys)}
        body = msgspec.json.encode(content)
        calls = [self._request(operation, "POST", path, body, headers) for _ in range(1 + buyer.duplicated)]
        responses = await asyncio.gather(*calls)
        self._compare(operation, responses)
        # The second may succeed after the first was refused, if a unit was released in between.
        return next((response for response in responses if response.ok), responses[0])

    async def _request(
        self,
        operation: Operation,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Response:
        response = await self._client.request(operation, method, path, body, headers)
        if method == "GET" and not response.ok:
            self._record_error(operation, response)
        return response

    def _compare(self, operation: Operation, responses: Sequence[Response]) -> None:
        if len(responses) > 1:
            self._observed.duplicates += 1
            if mismatch := find_mismatch(responses):
                self._observed.mismatches.append(f"{operation}: {mismatch}")

    def _record_error(self, operation: Operation, response: Response) -> None:
        self._observed.errors.append(f"{operation}: {response} (X-Request-ID {response.request_id})")


STABLE_MEMBERS = ("hold_id", "order_id", "result")
"""members that are equal in all responses to the same request, whatever has happened since"""


def find_mismatch(responses: Sequence[Response]) -> str:
    """The difference between responses to the same request; empty if they are consistent."""
    successes = [response for response in responses if response.ok]
    if len({tuple(response.body.get(name) for name in STABLE_MEMBERS) for response in successes}) > 1:
        return " and ".join(str(response.body) for response in successes)
    # One response is not a replay, or none if that response was lost.
    if any(response.body for response in successes):
        originals = sum(not response.replayed for response in successes)
        if originals > 1:
            return f"{originals} of {len(successes)} responses are not marked as a replay"
    return ""
