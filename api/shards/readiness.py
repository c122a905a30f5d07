"""GET /readyz with several shards: ready as long as one of them can serve what it owns."""

import asyncio
from collections.abc import Callable
from typing import Any

from falcon.asgi import Request, Response

from api.problems import NOT_READY, respond_problem
from api.resources.health import NotReady, examine
from api.schemas.responses import Ready, encode
from api.shards.client import ShardClient, ShardedClient
from api.shards.slots import slot_ranges

RESPONSE_SECONDS = 0.8
"""for which a response waits for a shard: a health check waits hardly longer than a second"""


class ShardedReadiness:
    """Every shard with its state. The members of a single database are those of the shards that are ready.

    :param expected_schema: the expected values, by the names of readiness()'s columns; may block
    """

    def __init__(self, client: ShardedClient, expected_schema: Callable[[], dict[str, str]]) -> None:
        self._client = client
        self._expected_schema = expected_schema

    async def on_get(self, req: Request, resp: Response) -> None:
        shards = self._client.shards
        found = await asyncio.gather(*map(self._examine, shards))
        named = [self._describe(shard, state) for shard, state in zip(shards, found, strict=True)]
        ready = [
            state
            for shard, state in zip(shards, found, strict=True)
            if isinstance(state, Ready) and self._client.ownership.owned(shard)
        ]
        if not ready:
            details = [f"{each['shard']}: {each.get('detail') or 'owns no slot.'}" for each in named]
            return respond_problem(resp, NOT_READY, " ".join(details), shards=named)
        # The worst scheduler of those that are ready.
        state = min(ready, key=lambda each: each.scheduler == "alive")
        resp.data = encode({**_members(state), "shards": named})

    async def _examine(self, shard: ShardClient) -> Ready | NotReady:
        task = asyncio.create_task(examine(shard, self._expected_schema))
        done, _ = await asyncio.wait([task], timeout=RESPONSE_SECONDS)
        if done:
            return task.result()
        return NotReady("The database does not respond.", {"database": "unreachable"})

    def _describe(self, shard: ShardClient, state: Ready | NotReady) -> dict[str, Any]:
        owned = self._client.ownership.owned(shard)
        named: dict[str, Any] = {"shard": shard.name, "slots": slot_ranges(owned)}
        if isinstance(state, Ready):
            return named | _members(state)
        return named | {"status": "not_ready", "detail": state.detail} | state.members


def _members(state: Ready) -> dict[str, Any]:
    return {name: getattr(state, name) for name in state.__struct_fields__}
