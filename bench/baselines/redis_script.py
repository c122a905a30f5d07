"""What shops use instead: the stock in Redis, one Lua script for each hold, on a connection of a pool.

The client is redis-py's for asyncio, set up for speed: the hiredis parser, a unix socket, a connection for
each concurrent request, no timeouts, a cached script called by its digest. Like flashsale, the script returns
the units of expired holds and keeps a record of each hold. It has no ledger, orders or idempotency keys.
"""

import os
import secrets
from datetime import UTC, datetime

from redis.asyncio import Redis

from api.database.functions import PlaceHoldsRow
from api.schemas.fields import MAX_HOLD_ID
from bench.baselines import App, app_over
from bench.baselines.call_each import refusal
from bench.redis_store import HOLD_SECONDS, PLACE_HOLD, expiry_key, hold_key, stock_key

MAX_CONNECTIONS = 2000
"""as many as requests that the HTTP server processes at once (api/server/admission.py)"""


class RedisHolds:
    """Places holds in the Redis at BENCH_REDIS_SOCKET."""

    def __init__(self) -> None:
        self.place_holds = self
        self.release_holds = self.extend_holds = self.create_orders = self.apply_payments = None
        self.abandon_orders = self.get_products = self.get_allowances = self.get_holds = self.get_orders = (
            None
        )

    async def open(self) -> None:
        self._redis = Redis(
            unix_socket_path=os.environ["BENCH_REDIS_SOCKET"],
            max_connections=MAX_CONNECTIONS,
            socket_timeout=None,
        )
        self._digest = await self._redis.script_load(PLACE_HOLD)

    async def close(self) -> None:
        await self._redis.aclose()

    async def submit(self, product_id: int, qty: int, key: str | None, buyer: str | None) -> PlaceHoldsRow:
        hold_id = secrets.randbelow(MAX_HOLD_ID) + 1
        keys = stock_key(product_id), expiry_key(product_id), hold_key(hold_id)
        expires_at = await self._redis.evalsha(
            self._digest, len(keys), *keys, hold_id, product_id, qty, HOLD_SECONDS
        )
        if expires_at <= 0:
            return refusal("SA002" if expires_at == 0 else "SA001")
        expiry = datetime.fromtimestamp(expires_at / 1000, UTC)
        return PlaceHoldsRow(
            0, None, None, False, hold_id, product_id, qty, "active", expiry, None, None, None
        )


def application() -> App:
    return app_over(RedisHolds())
