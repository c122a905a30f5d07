"""The parameters of a sale."""

from collections.abc import Sequence
from dataclasses import dataclass


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
