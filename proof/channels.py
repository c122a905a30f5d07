"""Three channels with one interface: scalar calls, set-based calls, and HTTP.

Each method takes a list of requests and returns as many outcomes: an id, a status or result, or the SQLSTATE
of a refusal. What is locked is retried.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol
from uuid import uuid4

import httpx
import psycopg

from tests.support import sql_calls as calls
from tests.support.sql_calls import LOCKED, outcome

SQLSTATES = {"insufficient_stock": "SA002", "hold_expired": "SA004"}


class Channel(Protocol):
    def hold(self, requests: Sequence[tuple[int, int]]) -> list[int | str]:
        """(product_id, qty) each; hold ids."""

    def order(self, holds: Sequence[int]) -> list[int | str]:
        """Order ids."""

    def release(self, holds: Sequence[int]) -> list[str]:
        """Statuses of the holds."""

    def pay(self, webhooks: Sequence[tuple[str, int, str]]) -> list[str]:
        """(key, order_id, status) each; results."""


class ScalarCalls:
    def __init__(self, conn: psycopg.Connection) -> None:
        self.conn = conn

    def hold(self, requests: Sequence[tuple[int, int]]) -> list[int | str]:
        return [self._call("hold_id", calls.place_hold, *each) for each in requests]

    def order(self, holds: Sequence[int]) -> list[int | str]:
        return [self._call("order_id", calls.create_order, each) for each in holds]

    def release(self, holds: Sequence[int]) -> list[str]:
        return [self._call("status", calls.release_hold, each) for each in holds]

    def pay(self, webhooks: Sequence[tuple[str, int, str]]) -> list[str]:
        return [self._call("result", calls.apply_payment, *each) for each in webhooks]

    def _call(self, column: str, function: Callable, *args: object) -> Any:
        row = outcome(function, self.conn, *args)
        return row if isinstance(row, str) else getattr(row, column)


class SetBasedCalls:
    def __init__(self, conn: psycopg.Connection) -> None:
        self.conn = conn

    def hold(self, requests: Sequence[tuple[int, int]]) -> list[int | str]:
        return self._call("hold_id", calls.place_holds, requests)

    def order(self, holds: Sequence[int]) -> list[int | str]:
        return self._call("order_id", calls.create_orders, [(each,) for each in holds])

    def release(self, holds: Sequence[int]) -> list[str]:
        return self._call("status", calls.release_holds, holds)

    def pay(self, webhooks: Sequence[tuple[str, int, str]]) -> list[str]:
        return self._call("result", calls.apply_payments, webhooks)

    def _call(self, column: str, function: Callable, requests: Sequence) -> list[Any]:
        outcomes: list[Any] = [LOCKED] * len(requests)
        while LOCKED in outcomes:
            locked = [i for i, each in enumerate(outcomes) if each == LOCKED]
            for i, row in zip(locked, function(self.conn, *(requests[i] for i in locked)), strict=True):
                outcomes[i] = row.sqlstate or getattr(row, column)
        return outcomes


class HttpRequests:
    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def hold(self, requests: Sequence[tuple[int, int]]) -> list[int | str]:
        return [self._post("hold_id", "holds", product_id=product, qty=qty) for product, qty in requests]

    def order(self, holds: Sequence[int]) -> list[int | str]:
        return [self._post("order_id", "orders", hold_id=hold) for hold in holds]

    def release(self, holds: Sequence[int]) -> list[str]:
        return [self._request("DELETE", f"/api/holds/{hold}", None, "status") for hold in holds]

    def pay(self, webhooks: Sequence[tuple[str, int, str]]) -> list[str]:
        return [
            self._post("result", "payments/webhook", idempotency_key=key, order_id=order, status=status)
            for key, order, status in webhooks
        ]

    def _post(self, member: str, path: str, **body: object) -> Any:
        return self._request("POST", f"/api/{path}", body, member)

    def _request(self, method: str, path: str, body: object, member: str) -> Any:
        key = {"Idempotency-Key": uuid4().hex}
        while (response := self.client.request(method, path, json=body, headers=key)).status_code == 503:
            time.sleep(0.02)
        return http_outcome(response, member)


def http_outcome(response: httpx.Response, member: str) -> Any:
    """A member of a response, or the refusal's SQLSTATE."""
    assert response.status_code in (200, 201, 204, 409, 410), (response.status_code, response.text)
    if response.status_code == 204:
        return "released"
    return response.json()[member] if response.is_success else SQLSTATES[response.json()["code"]]
