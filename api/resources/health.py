"""GET /healthz and /readyz, for whoever watches over the process."""

import asyncio
from collections.abc import Callable

import msgspec
from falcon.asgi import Request, Response

from api.database.batching import NotSent, RolledBack
from api.database.client import Checkout
from api.problems import NOT_READY, answer
from api.schemas.responses import Alive, Ready, encode

_ALIVE = encode(Alive("alive"))


class Liveness:
    """The process answers. It asks nobody else."""

    async def on_get(self, req: Request, resp: Response) -> None:
        resp.data = _ALIVE


class Readiness:
    """The database answers and holds the schema that goes with this server.

    A dead scheduler is told, and is no reason to stay away: lapsed holds give their units back without it.

    :param current_version: what the files on disk say, by the names of readiness()'s columns; may block
    """

    def __init__(self, checkout: Checkout, current_version: Callable[[], dict[str, str]]) -> None:
        self._checkout = checkout
        self._current_version = current_version

    async def on_get(self, req: Request, resp: Response) -> None:
        try:
            found = await self._checkout.readiness()
        except NotSent as error:
            return answer(resp, NOT_READY, str(error), database="unreachable")
        except RolledBack as error:
            return answer(resp, NOT_READY, f"There is no schema to use: {error}", database="reachable")
        wanted = await asyncio.to_thread(self._current_version)
        if any(found[name] != wanted[name] for name in wanted.keys() & found.keys()):
            detail = "The schema in the database is not the one on disk: run `flashsale migrate`."
            return answer(resp, NOT_READY, detail, database="reachable", schema="outdated", **found)
        ready = {"status": "ready", "database": "reachable", "schema": "current", **found}
        resp.data = encode(msgspec.convert(ready, Ready))
