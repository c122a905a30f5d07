"""How the sale goes.

Those whose webhooks come early are first, then the doors open for the crowd: everybody looks at the
product and asks for one unit, so many requests at once. Who gets a unit takes a moment to order and another
to pay, while the crowd goes on. When the rush is over, late payments are captured. Then whoever went away
empty-handed comes back for the units that were given back, until none is left or nobody wants one. Last, the
provider sends some of its webhooks once more.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

import msgspec

from flashsale.rehearsal.buyers import Buyer, Cast, Step
from flashsale.rehearsal.client import JSON, Client, Unanswered
from flashsale.rehearsal.record import Answer, Kind, Outcome, Phase, Purchase, Seen, Units, Word
from flashsale.webhooks import signature_headers

WAIT_FOR_UNITS = 10
"""seconds beyond the hold time after which nobody waits any longer for units that somebody still holds"""

ENOUGH_FAULTS = 100
"""after which nobody is let in any more: the verdict is clear, and a server that is gone takes long"""


@dataclass(frozen=True)
class Terms:
    """What the sale is of, and on which terms.

    Times are in seconds.
    """

    product_id: int
    price: str
    currency: str
    hold_time: float
    payment_window: float
    lapsing: bool
    """somebody waits for holds and orders to lapse"""
    at_once: int
    seed: int
    token: str
    """in every idempotency key of this rehearsal"""
    secrets: Sequence[str]
    """the first signs the webhooks, if there is one"""


class Sale:
    """One sale, from the first buyer to the last webhook.

    :param look: where the units are now, as the database has it
    :param next_order_id: the id of the next order there will be
    """

    def __init__(
        self,
        client: Client,
        cast: Cast,
        terms: Terms,
        seen: Seen,
        look: Callable[[], Awaitable[Units]],
        next_order_id: Callable[[], Awaitable[int]],
    ) -> None:
        self._client = client
        self._cast = cast
        self._terms = terms
        self._seen = seen
        self._look = look
        self._next_order_id = next_order_id
        self._random = Random(terms.seed)  # noqa: S311
        self._keys = (f"{terms.token}-{number}" for number in range(2**63))
        self._late: list[tuple[Purchase, Sequence[Step]]] = []
        self._empty_handed: list[Buyer] = []
        self.phase = ""
        self.served = 0
        """buyers who have been told whether they get a unit"""

    async def run(self) -> None:
        with self._part("early webhooks"):
            await self._come_early()
        with self._part("the rush"):
            await self._come(self._cast.crowd)
        with self._part("late payments"):
            await self._all(self._go_on(purchase, steps) for purchase, steps in self._late)
        with self._part("second chance"):
            await self._come_back()
        with self._part("webhooks again"):
            await self._all(
                self._say_again(word)
                for purchase in self._seen.purchases
                if purchase.buyer.duplicated
                for word in purchase.words
            )
        self._seen.sold_out = len(self._empty_handed)
        with self._noting_faults():
            product = await self._ask(Kind.LOOK, "GET", f"/api/products/{self._terms.product_id}")
            self._seen.available_at_end = product.body.get("available_stock")

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        self.phase, begin = name, self._client.now()
        yield
        self._seen.phases.append(Phase(name, begin, self._client.now()))

    @contextmanager
    def _noting_faults(self) -> Iterator[None]:
        try:
            yield
        except Unanswered as error:
            self._seen.faults.append(str(error))

    async def _all(self, coroutines: Iterable[Coroutine[None, None, None]]) -> None:
        async with asyncio.TaskGroup() as group:
            for coroutine in coroutines:
                group.create_task(coroutine)

    # --- The crowd -----------------------------------------------------------------------------------------

    async def _come(self, buyers: Iterable[Buyer]) -> None:
        """Let them in one after the other, as many at once as may be, and see all of them off."""
        line = iter(buyers)
        async with asyncio.TaskGroup() as group:

            async def let_in() -> None:
                for buyer in line:
                    if len(self._seen.faults) >= ENOUGH_FAULTS:
                        return
                    if purchase := await self._hold(buyer):
                        group.create_task(self._go_on(purchase, buyer.behaviour.steps))
                    self.served += 1

            for _ in range(self._terms.at_once):
                group.create_task(let_in())

    async def _come_back(self) -> None:
        patience = (self._terms.hold_time if self._terms.lapsing else 0) + WAIT_FOR_UNITS
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        while self._empty_handed and len(self._seen.faults) < ENOUGH_FAULTS:
            units = await self._look()
            if units.available > 0:
                # A few more than there are units for: there is always somebody who comes in vain.
                count = units.available + self._terms.at_once // 4 + 1
                coming, self._empty_handed = self._empty_handed[:count], self._empty_handed[count:]
                self.served -= len(coming)
                await self._come(coming)
                deadline = loop.time() + patience
            elif units.held + units.awaiting == 0 or loop.time() > deadline:
                return
            else:
                await asyncio.sleep(0.1)

    async def _hold(self, buyer: Buyer) -> Purchase | None:
        purchase = None
        with self._noting_faults():
            await self._ask(Kind.LOOK, "GET", f"/api/products/{self._terms.product_id}")
            wanted = {"product_id": self._terms.product_id, "qty": 1}
            asked_at = self._client.now()
            answer = await self._send(Kind.HOLD, "/api/holds", wanted, buyer)
            hold_id = answer.body.get("hold_id")
            if answer.ok and hold_id is not None:
                purchase = Purchase(buyer, hold_id, asked_at)
                self._seen.purchases.append(purchase)
            elif answer.code == "insufficient_stock":
                self._empty_handed.append(buyer)
            else:
                self._fault(Kind.HOLD, answer)
        return purchase

    # --- Who has a hold ------------------------------------------------------------------------------------

    async def _go_on(self, purchase: Purchase, steps: Sequence[Step]) -> None:
        purchase.outcome = Outcome.UNANSWERED
        with self._noting_faults():
            purchase.outcome = await self._take(purchase, steps)

    async def _take(self, purchase: Purchase, steps: Sequence[Step]) -> Outcome | None:
        """Take the steps, up to one that waits for the end of the rush; what became of the purchase."""
        outcome: Outcome | None = Outcome.LEFT
        for number, step in enumerate(steps):
            if step in (Step.ORDER, Step.RELEASE, Step.SUCCESS, Step.FAILED, Step.CANCELLED) and number < 2:
                await asyncio.sleep(purchase.buyer.pauses[number])
            match step:
                case Step.ORDER:
                    if not await self._order(purchase):
                        return Outcome.LAPSED
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
                case Step.UNTIL_RUSH_IS_OVER:
                    self._late.append((purchase, steps[number + 1 :]))
                    return outcome
                case Step.UNTIL_OVERDUE:
                    # Holds and orders lapse on whole tenths of a second, rounded up.
                    await asyncio.sleep(self._terms.payment_window + 0.2)
        return outcome

    async def _order(self, purchase: Purchase) -> bool:
        """Whether the hold has become an order; if not, its time was up and the buyer gets in line again."""
        purchase.ordered_at = self._client.now()
        answer = await self._send(Kind.ORDER, "/api/orders", {"hold_id": purchase.hold_id}, purchase.buyer)
        purchase.order_id = answer.body.get("order_id") if answer.ok else None
        if purchase.order_id is not None:
            return True
        if answer.code == "hold_expired" and self._since(purchase.held_at) >= self._terms.hold_time:
            self._empty_handed.append(purchase.buyer)
        else:
            self._fault(Kind.ORDER, answer)
        return False

    async def _release(self, purchase: Purchase) -> Outcome:
        path = f"/api/holds/{purchase.hold_id}"
        calls = [self._ask(Kind.RELEASE, "DELETE", path) for _ in range(1 + purchase.buyer.duplicated)]
        answers = await asyncio.gather(*calls)
        self._compare(Kind.RELEASE, answers)
        lapsed = self._since(purchase.held_at) >= self._terms.hold_time
        for answer in answers:
            if not answer.ok and not (answer.code == "hold_expired" and lapsed):
                self._fault(Kind.RELEASE, answer)
        return Outcome.RELEASED

    async def _pay(self, purchase: Purchase) -> Outcome | None:
        """Report that the payment was captured, and see whether the order says so, too."""
        first = not purchase.words
        word = await self._report(purchase, "success")
        if word is None:
            return Outcome.UNANSWERED
        in_time = first and self._since(purchase.ordered_at) < self._terms.payment_window
        right = [("applied", "paid")] if in_time else [("applied", "paid"), ("refund_due", "cancelled")]
        if (word.result, word.order_status) not in right:
            self._seen.faults.append(f"webhook for order {word.order_id}: {word.result}, {word.order_status}")
        await self._confirm(purchase, word.order_status)
        return Outcome.BOUGHT if word.order_status == "paid" else Outcome.REFUND_DUE

    async def _confirm(self, purchase: Purchase, status: str | None) -> None:
        path = f"/api/orders/{purchase.order_id}?hold_id={purchase.hold_id}"
        order = await self._ask(Kind.CONFIRM, "GET", path)
        if order.ok and order.body.get("status") != status:
            self._seen.faults.append(
                f"order {purchase.order_id} is {order.body.get('status')}, its webhook was told {status}"
            )

    def _since(self, moment: float) -> float:
        return self._client.now() - moment

    # --- The payment provider ------------------------------------------------------------------------------

    async def _report(self, purchase: Purchase, status: str) -> Word | None:
        word = await self._say(next(self._keys), purchase.order_id, status, purchase.buyer)
        if word is not None:
            purchase.words.append(word)
        return word

    async def _say(self, key: str, order_id: int, status: str, buyer: Buyer) -> Word | None:
        answers = await asyncio.gather(
            *[self._webhook(key, order_id, status) for _ in range(1 + buyer.duplicated)]
        )
        self._compare(Kind.WEBHOOK, answers)
        if not answers[0].ok:
            self._fault(Kind.WEBHOOK, answers[0])
            return None
        body = answers[0].body
        return Word(key, order_id, status, str(body.get("result")), body.get("status"))

    async def _webhook(self, key: str, order_id: int, status: str) -> Answer:
        # The price and its currency go along: should the order be somebody else's, it will not match.
        event = {
            "idempotency_key": key, "order_id": order_id, "status": status,
            "amount": self._terms.price, "currency": self._terms.currency,
        }  # fmt: skip
        body = msgspec.json.encode(event)
        headers = JSON | signature_headers(body, key, self._terms.secrets)
        return await self._ask(Kind.WEBHOOK, "POST", "/api/payments/webhook", body, headers)

    async def _say_again(self, word: Word) -> None:
        with self._noting_faults():
            answer = await self._webhook(word.key, word.order_id, word.status)
            self._seen.repeated += 1
            said = (answer.body.get("result"), answer.body.get("status"))
            if said != (word.result, word.order_status) or not answer.replayed:
                self._seen.contradictions.append(
                    f"webhook {word.key}: at first {word.result}, {word.order_status}; again {answer} {said}"
                )

    # --- Webhooks that come before their orders ------------------------------------------------------------

    async def _come_early(self) -> None:
        """Report payments for the orders that are about to be made, while they are being made."""
        held = [
            purchase
            for purchase in await asyncio.gather(*map(self._hold, self._cast.early))
            if purchase is not None
        ]
        self.served += len(self._cast.early)
        if not held:
            return
        next_id = await self._next_order_id()
        words: dict[int, Word] = {}

        async def say(order_id: int, buyer: Buyer) -> None:
            with self._noting_faults():
                if word := await self._say(next(self._keys), order_id, "success", buyer):
                    words[order_id] = word

        async def order(purchase: Purchase) -> None:
            with self._noting_faults():
                await self._order(purchase)

        jobs = [say(next_id + number, purchase.buyer) for number, purchase in enumerate(held)]
        jobs += [order(purchase) for purchase in held]
        self._random.shuffle(jobs)
        await self._all(jobs)
        await self._all(self._settle(purchase, words) for purchase in held)
        self._seen.strays.extend(words.values())

    async def _settle(self, purchase: Purchase, words: dict[int, Word]) -> None:
        """The order of an early webhook must be paid by now; one that got none is paid as usual."""
        purchase.outcome = Outcome.UNANSWERED
        if purchase.order_id is None:
            return
        with self._noting_faults():
            if word := words.pop(purchase.order_id, None):
                purchase.words.append(word)
                await self._confirm(purchase, "paid")
                purchase.outcome = Outcome.BOUGHT
            else:
                purchase.outcome = await self._pay(purchase)

    # --- Requests and answers ------------------------------------------------------------------------------

    async def _send(self, kind: Kind, path: str, wanted: dict[str, int], buyer: Buyer) -> Answer:
        """POST with an idempotency key, twice at the same moment if that is the buyer's way."""
        headers = JSON | {"Idempotency-Key": next(self._keys)}
        body = msgspec.json.encode(wanted)
        calls = [self._ask(kind, "POST", path, body, headers) for _ in range(1 + buyer.duplicated)]
        answers = await asyncio.gather(*calls)
        self._compare(kind, answers)
        # The second may have been lucky where the first was refused: a unit came back in between.
        return next((answer for answer in answers if answer.ok), answers[0])

    async def _ask(
        self,
        kind: Kind,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        answer = await self._client.ask(kind, method, path, body, headers)
        if method == "GET" and not answer.ok:
            self._fault(kind, answer)
        return answer

    def _compare(self, kind: Kind, answers: Sequence[Answer]) -> None:
        if len(answers) > 1:
            self._seen.repeated += 1
            if contradiction := contradiction_of(answers):
                self._seen.contradictions.append(f"{kind}: {contradiction}")

    def _fault(self, kind: Kind, answer: Answer) -> None:
        self._seen.faults.append(f"{kind}: {answer} (X-Request-ID {answer.request_id})")


NAMING = ("hold_id", "order_id", "result")
"""members that are the same in every answer to the same request, whatever has happened since"""


def contradiction_of(answers: Sequence[Answer]) -> str:
    """What is wrong with the answers to one request that was sent several times; nothing if all is well."""
    good = [answer for answer in answers if answer.ok]
    if len({tuple(answer.body.get(name) for name in NAMING) for answer in good}) > 1:
        return " and ".join(str(answer.body) for answer in good)
    # The first is new. An answer that got lost was new, too: then all that are left are replays.
    if any(answer.body for answer in good) and sum(not answer.replayed for answer in good) > 1:
        return f"{len(good)} answers, and more than one of them says it is the first"
    return ""
