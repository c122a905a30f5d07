"""GET /healthz and /readyz, for process supervisors and load balancers."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import msgspec
from falcon.asgi import Request, Response

from api.database.client import CheckoutClient
from api.database.errors import RolledBack, Unavailable
from api.problems import NOT_READY, respond_problem
from api.schemas.responses import Alive, Ready, encode

_ALIVE = encode(Alive("alive"))


class Liveness:
    """The process responds. The database is not checked."""

    async def on_get(self, req: Request, resp: Response) -> None:
        resp.data = _ALIVE


class NotReady(NamedTuple):
    """Why the sale cannot be served.

    :param members: of the problem
    """

    detail: str
    members: dict[str, str]


class Readiness:
    """The database responds, has the schema that this server expects, and can serve the sale.

    A dead scheduler is reported but does not make the server unready: stock is exact without the sweep.

    :param expected_schema: the expected values, by the names of readiness()'s columns; may block
    """

    def __init__(self, client: CheckoutClient, expected_schema: Callable[[], dict[str, str]]) -> None:
        self._client = client
        self._expected_schema = expected_schema

    async def on_get(self, req: Request, resp: Response) -> None:
        state = await examine(self._client, self._expected_schema)
        if isinstance(state, NotReady):
            return respond_problem(resp, NOT_READY, state.detail, **state.members)
        resp.data = encode(state)


async def examine(client: CheckoutClient, expected_schema: Callable[[], dict[str, str]]) -> Ready | NotReady:
    """Whether a database can serve the sale."""
    try:
        found = await client.readiness()
    except Unavailable as error:
        return NotReady(str(error), {"database": "unreachable"})
    except RolledBack as error:
        return NotReady(f"The schema cannot be used: {error}", {"database": "reachable"})
    problem = found.pop("problem", None)
    try:
        expected = await asyncio.to_thread(expected_schema)
    except OSError as error:
        detail = f"The files of the schema cannot be read: {error.strerror}"
        return NotReady(detail, {"database": "reachable"})
    if any(found[name] != expected[name] for name in expected.keys() & found.keys()):
        detail = "The schema in the database is not the one on disk: run `flashsale migrate`."
        return NotReady(detail, {"database": "reachable", "schema": "outdated", **found})
    if problem is not None:
        return NotReady(problem, {"database": "reachable", "schema": "current", **found})
    ready = {"status": "ready", "database": "reachable", "schema": "current", **found}
    return msgspec.convert(ready, Ready)
