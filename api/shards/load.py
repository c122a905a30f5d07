"""How many requests one shard may have in progress: what it cannot serve must not keep out the others'.

A server processes MAX_CONCURRENT_REQUESTS at once (api/server/admission.py), and each request to a shard that
does not respond is one of them until it times out.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from api.database.errors import Overloaded, RolledBack, Unavailable

MAX_REQUESTS = 1000
"""of one shard; further ones are Overloaded"""
MAX_STALLED_REQUESTS = 100
"""of a shard that has answered none for STALLED_SECONDS; further ones are Unavailable"""
STALLED_SECONDS = 0.3

T = TypeVar("T")


class ShardLoad:
    """The requests of one shard that are in progress."""

    def __init__(self) -> None:
        self._requests = 0
        self._answered_at = 0.0  # or, since then, when the first of those in progress came

    async def run(self, request: Awaitable[T]) -> T:
        """Wait for a request that was admitted."""
        loop = asyncio.get_running_loop()
        if not self._requests:
            self._answered_at = loop.time()
        self._requests += 1
        try:
            result = await request
        except RolledBack:
            self._answered_at = loop.time()
            raise
        else:
            self._answered_at = loop.time()
            return result
        finally:
            self._requests -= 1

    def admit(self) -> None:
        """:raises Overloaded, Unavailable: nothing may be sent to the shard now"""
        if self._requests >= MAX_REQUESTS:  # guard: shard-limit
            raise Overloaded(f"{MAX_REQUESTS} requests of one shard are in progress")
        if self._requests >= MAX_STALLED_REQUESTS and self._is_stalled():  # guard: stalled-limit
            raise Unavailable("the shard does not respond")

    def _is_stalled(self) -> bool:
        return asyncio.get_running_loop().time() - self._answered_at > STALLED_SECONDS
