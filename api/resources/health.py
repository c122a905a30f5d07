"""GET /healthz and /readyz, for process supervisors and load balancers."""

import asyncio
from collections.abc import Callable

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


class Readiness:
    """The database responds, has the schema that this server expects, and can serve the sale.

    A dead scheduler is reported but does not make the server unready: stock is exact without the sweep.

    :param expected_schema: the expected values, by the names of readiness()'s columns; may block
    """

    def __init__(self, client: CheckoutClient, expected_schema: Callable[[], dict[str, str]]) -> None:
        self._client = client
        self._expected_schema = expected_schema

    async def on_get(self, req: Request, resp: Response) -> None:
        try:
            found = await self._client.readiness()
        except Unavailable as error:
            return respond_problem(resp, NOT_READY, str(error), database="unreachable")
        except RolledBack as error:
            detail = f"The schema cannot be used: {error}"
            return respond_problem(resp, NOT_READY, detail, database="reachable")
        problem = found.pop("problem", None)
        try:
            expected = await asyncio.to_thread(self._expected_schema)
        except OSError as error:
            detail = f"The files of the schema cannot be read: {error.strerror}"
            return respond_problem(resp, NOT_READY, detail, database="reachable")
        if any(found[name] != expected[name] for name in expected.keys() & found.keys()):
            detail = "The schema in the database is not the one on disk: run `flashsale migrate`."
            return respond_problem(resp, NOT_READY, detail, database="reachable", schema="outdated", **found)
        if problem is not None:
            return respond_problem(resp, NOT_READY, problem, database="reachable", schema="current", **found)
        ready = {"status": "ready", "database": "reachable", "schema": "current", **found}
        resp.data = encode(msgspec.convert(ready, Ready))
