"""GET /metrics, for Prometheus, on a port of its own.

The shop's port is what a proxy shows to the world. What is not on it cannot be shown by mistake.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import falcon.asgi
from falcon.asgi import Request, Response

from api import problems
from api.telemetry import metrics
from api.telemetry.reporter import Pulse
from api.telemetry.request_id import RequestIds
from api.telemetry.sale_metrics import Figures

Application = Callable[[Any, Any, Any], Awaitable[None]]


class Metrics:
    """Everything that is counted, in Prometheus' own format or, if asked for, OpenMetrics.

    :param pulse: brings what this worker counts up to date
    :param figures: what SQL tells
    """

    def __init__(self, pulse: Pulse, figures: Figures) -> None:
        self._pulse = pulse
        self._figures = figures

    async def on_get(self, req: Request, resp: Response) -> None:
        await self._figures.read()
        self._pulse.look()
        # In a thread: with several workers it reads their files, and takes longer than a request may.
        resp.data, resp.content_type = await asyncio.to_thread(metrics.exposition, req.accept, self._figures)


def metrics_app(pulse: Pulse, figures: Figures) -> falcon.asgi.App[Any, Any]:
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App(middleware=[RequestIds()])
    problems.install(app)
    app.add_route("/metrics", Metrics(pulse, figures))
    return app


def beside(shop: Application, watch: Application, port: int) -> Application:
    """One application: `watch` for requests that came in on `port`, `shop` for all others.

    gunicorn listens on both ports in every worker.
    """

    def application(scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        if scope["type"] == "http" and scope["server"][1] == port:
            return watch(scope, receive, send)
        return shop(scope, receive, send)

    return application
