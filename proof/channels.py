"""Three ways to buy, in the same words: one call each, joined calls, and HTTP.

Each method takes a list of requests and gives as many answers: an id, a result, or the code of a refusal.
Whoever is told to come again does.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol
from uuid import uuid4

import httpx
import psycopg

from tests.support.sql_calls import (
    BUSY,
    apply_payment,
    apply_payments,
    create_order,
    create_orders,
    outcome,
    place_hold,
    place_holds,
    release_hold,
    release_holds,
)

CODES = {"insufficient_stock": "SA002", "hold_expired": "SA004"}


class Till(Protocol):
    def hold(self, wanted: Sequence[tuple[int, int]]) -> list[int | str]:
        """(product_id, qty) each; hold ids."""

    def order(self, holds: Sequence[int]) -> list[int | str]:
        """Order ids."""

    def release(self, holds: Sequence[int]) -> list[str]:
        """What has become of the holds."""

    def pay(self, words: Sequence[tuple[str, int, str]]) -> list[str]:
        """(key, order_id, word) each; results."""


class Scalar:
    def __init__(self, conn: psycopg.Connection) -> None:
        self.conn = conn

    def hold(self, wanted: Sequence[tuple[int, int]]) -> list[int | str]:
        return [self._ask("hold_id", place_hold, *each) for each in wanted]

    def order(self, holds: Sequence[int]) -> list[int | str]:
        return [self._ask("order_id", create_order, each) for each in holds]

    def release(self, holds: Sequence[int]) -> list[str]:
        return [self._ask("status", release_hold, each) for each in holds]

    def pay(self, words: Sequence[tuple[str, int, str]]) -> list[str]:
        return [self._ask("result", apply_payment, *each) for each in words]

    def _ask(self, name: str, call: Callable, *args: object) -> Any:
        told = outcome(call, self.conn, *args)
        return told if isinstance(told, str) else getattr(told, name)


class Joined:
    def __init__(self, conn: psycopg.Connection) -> None:
        self.conn = conn

    def hold(self, wanted: Sequence[tuple[int, int]]) -> list[int | str]:
        return self._ask("hold_id", place_holds, wanted)

    def order(self, holds: Sequence[int]) -> list[int | str]:
        return self._ask("order_id", create_orders, [(each,) for each in holds])

    def release(self, holds: Sequence[int]) -> list[str]:
        return self._ask("status", release_holds, holds)

    def pay(self, words: Sequence[tuple[str, int, str]]) -> list[str]:
        return self._ask("result", apply_payments, words)

    def _ask(self, name: str, call: Callable, requests: Sequence) -> list[Any]:
        answers: list[Any] = [BUSY] * len(requests)
        while BUSY in answers:
            busy = [i for i, answer in enumerate(answers) if answer == BUSY]
            for i, told in zip(busy, call(self.conn, *(requests[i] for i in busy)), strict=True):
                answers[i] = told.sqlstate or getattr(told, name)
        return answers


class Http:
    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def hold(self, wanted: Sequence[tuple[int, int]]) -> list[int | str]:
        return [self._post("hold_id", "holds", product_id=product, qty=qty) for product, qty in wanted]

    def order(self, holds: Sequence[int]) -> list[int | str]:
        return [self._post("order_id", "orders", hold_id=hold) for hold in holds]

    def release(self, holds: Sequence[int]) -> list[str]:
        return [self._ask("DELETE", f"/api/holds/{hold}", None, "status") for hold in holds]

    def pay(self, words: Sequence[tuple[str, int, str]]) -> list[str]:
        return [
            self._post("result", "payments/webhook", idempotency_key=key, order_id=order, status=word)
            for key, order, word in words
        ]

    def _post(self, name: str, path: str, **body: object) -> Any:
        return self._ask("POST", f"/api/{path}", body, name)

    def _ask(self, method: str, path: str, body: object, name: str) -> Any:
        key = {"Idempotency-Key": uuid4().hex}
        while (answer := self.client.request(method, path, json=body, headers=key)).status_code == 503:
            time.sleep(0.02)
        return answered(answer, name)


def answered(answer: httpx.Response, name: str) -> Any:
    """The member of an answer that matters, or the refusal's SQLSTATE."""
    assert answer.status_code in (200, 201, 204, 409, 410), (answer.status_code, answer.text)
    if answer.status_code == 204:
        return "released"
    return answer.json()[name] if answer.is_success else CODES[answer.json()["code"]]
