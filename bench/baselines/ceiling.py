"""The ceiling: everything but the database. Each request is parsed and validated; its row is in memory.

The distance from here to flashsale is the cost of PostgreSQL and of calling it.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from typing import Any

from api.database.functions import ApplyPaymentsRow, CreateOrdersRow, GetProductsRow, PlaceHoldsRow
from bench.baselines import App, app_over

PRICE = Decimal("99.00")
SOON = datetime(2030, 1, 1, 12, 0, 0, 300000, UTC)


class _AtOnce:
    """Replaces a Batcher. The row is ready, so that awaiting it suspends no task."""

    def __init__(self, row: Callable[..., Any]) -> None:
        self._row = row

    async def submit(self, *arguments: Any) -> Any:
        return self._row(*arguments)


class Memory:
    """Accepts every request."""

    def __init__(self) -> None:
        ids = count(1)
        self.place_holds = _AtOnce(
            lambda product_id, qty, key, buyer: PlaceHoldsRow(
                0, None, None, False, next(ids) << 20, product_id, qty, "active", SOON, None, None, None,
            )
        )  # fmt: skip
        self.create_orders = _AtOnce(
            lambda hold_id, key: CreateOrdersRow(
                0, None, None, False, next(ids), "pending_payment", PRICE, "USD", SOON
            )
        )
        self.apply_payments = _AtOnce(
            lambda key, order_id, status, payload, webhook_id: ApplyPaymentsRow(
                0, None, None, False, order_id, "paid", "applied"
            )
        )
        self.get_products = _AtOnce(
            lambda product_id: GetProductsRow(
                0,
                None,
                None,
                product_id,
                "Limited sneaker",
                PRICE,
                "USD",
                50,
                38,
                "open",
                None,
                None,
                None,
                SOON,
            )
        )
        self.release_holds = self.extend_holds = self.abandon_orders = None
        self.get_allowances = self.get_holds = self.get_orders = None

    async def open(self) -> None: ...

    async def close(self) -> None: ...


def application() -> App:
    return app_over(Memory())
