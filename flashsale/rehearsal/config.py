"""The parameters of a sale."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal


@dataclass(frozen=True)
class SaleConfig:
    """The parameters of the sale; times are in seconds."""

    product_id: int
    price: Decimal
    currency: str
    limit: int | None
    """units that one buyer can have"""
    starts_at: datetime | None
    """by the database's clock"""
    hold_time: float
    payment_window: float
    lapsing: bool
    """some buyers wait until their hold or order has lapsed"""
    concurrency: int
    cancelled: float
    """percentage of the paid orders that the shop cancels"""
    seed: int
    token: str
    """part of every idempotency key of this rehearsal"""
    secrets: Sequence[str]
    """the first signs the webhooks, if there is one"""
