"""What shops use instead: the stock in Redis, one Lua script for each hold, on a connection of a pool.

In its best form: a unix socket, the hiredis parser, a cached script, one round trip. Like flashsale, the
script returns the units of expired holds and keeps a record of each hold. It has no ledger, orders or
idempotency keys.
"""

import os
import secrets
from datetime import UTC, datetime
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis, UnixDomainSocketConnection

from api.database.batching import Row
from api.schemas.requests import MAX_HOLD_ID
from bench.baselines import app_over
from bench.redis_store import HOLD_SECONDS, PLACE_HOLD, expiry_key, hold_key, stock_key


class RedisHolds:
    """Places holds in the Redis at BENCH_REDIS_SOCKET, over BENCH_POOL_SIZE connections."""

    def __init__(self) -> None:
        self.place_holds = self
        self.release_holds = self.create_orders = self.apply_payments = None
        self.get_products = self.get_holds = self.get_orders = None

    async def open(self) -> None:
        self._redis = Redis(
            connection_pool=BlockingConnectionPool(
                max_connections=int(os.environ["BENCH_POOL_SIZE"]),
                timeout=None,
                connection_class=UnixDomainSocketConnection,
                path=os.environ["BENCH_REDIS_SOCKET"],
            )
        )
        self._place_hold = self._redis.register_script(PLACE_HOLD)

    async def close(self) -> None:
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    async def ask(self, product_id: int, qty: int, key: str | None) -> Row:
        hold_id = secrets.randbelow(MAX_HOLD_ID) + 1
        expires_at = await self._place_hold(
            [stock_key(product_id), expiry_key(product_id), hold_key(hold_id)],
            [hold_id, product_id, qty, HOLD_SECONDS],
        )
        if expires_at <= 0:
            return (0, "SA002" if expires_at == 0 else "SA001", None)
        expiry = datetime.fromtimestamp(expires_at / 1000, UTC)
        return (0, None, None, False, hold_id, product_id, qty, "active", expiry, None, None)


def __getattr__(name: str) -> Any:
    if name != "application":
        raise AttributeError(name)
    return app_over(RedisHolds())
