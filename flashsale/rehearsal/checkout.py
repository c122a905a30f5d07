"""Requests as the buyers and the payment provider send them.

Some send every request twice concurrently; the responses are compared.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec

from flashsale.rehearsal.buyers import Buyer
from flashsale.rehearsal.client import JSON, Client, NoResponse
from flashsale.rehearsal.config import SaleConfig
from flashsale.rehearsal.identity import Identity
from flashsale.rehearsal.observations import Observations, Operation, Response

STABLE_MEMBERS = ("hold_id", "order_id", "result")
"""members that are equal in all responses to the same request, whatever has happened since"""


class Checkout:
    """Sends requests with idempotency keys, and records what should not happen.

    :param identity: names the buyers of holds; None if the product has no limit
    :param bots: the client of the bots, so that they do not take the connections of the other buyers
    """

    def __init__(
        self,
        client: Client,
        bots: Client,
        identity: Identity | None,
        config: SaleConfig,
        observed: Observations,
    ) -> None:
        self._client = client
        self._bots = bots
        self._identity = identity
        self._config = config
        self._observed = observed
        self._keys = (f"{config.token}-{number}" for number in range(2**63))

    def new_key(self) -> str:
        return next(self._keys)

    def now(self) -> float:
        """Seconds since the sale began."""
        return self._client.now()

    async def view(self) -> Response:
        return await self.request(Operation.VIEW, "GET", f"/api/products/{self._config.product_id}")

    async def hold(self, buyer: Buyer, qty: int) -> Response:
        body: dict[str, object] = {"product_id": self._config.product_id, "qty": qty}
        headers: dict[str, str] = {}
        if self._identity is not None:
            body |= self._identity.members(buyer.account)
            headers = self._identity.headers(buyer.account)
        operation = Operation.BOT if buyer.is_bot else Operation.HOLD
        return await self.post(operation, "/api/holds", body, buyer, headers)

    async def post(
        self,
        operation: Operation,
        path: str,
        content: Mapping[str, object],
        buyer: Buyer,
        headers: Mapping[str, str] = {},
    ) -> Response:
        """POST with an idempotency key, twice concurrently for some buyers."""
        headers = JSON | {"Idempotency-Key": self.new_key()} | dict(headers)
        body = msgspec.json.encode(content)
        calls = [self.request(operation, "POST", path, body, headers) for _ in range(1 + buyer.duplicated)]
        responses = await asyncio.gather(*calls)
        self.compare(operation, responses)
        # The second may succeed after the first was refused, if a unit was released in between.
        return next((response for response in responses if response.ok), responses[0])

    async def request(
        self,
        operation: Operation,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        client = self._bots if operation is Operation.BOT else self._client
        response = await client.request(operation, method, path, body, headers)
        if method == "GET" and not response.ok:
            self.record_refusal(operation, response)
        return response

    def compare(self, operation: Operation, responses: Sequence[Response]) -> None:
        """Record a difference between responses to the same request."""
        if len(responses) > 1:
            self._observed.duplicates += 1
            if mismatch := find_mismatch(responses):
                self._observed.mismatches.append(f"{operation}: {mismatch}")

    def record_refusal(self, operation: Operation, response: Response) -> None:
        """Record a response that no caller should get."""
        self.record_error(f"{operation}: {response} (X-Request-ID {response.request_id})")

    def record_error(self, message: str) -> None:
        self._observed.errors.append(message)

    @contextmanager
    def recording_errors(self) -> Iterator[None]:
        """Record a request without response; what would have followed is left out."""
        try:
            yield
        except NoResponse as error:
            self.record_error(str(error))


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
