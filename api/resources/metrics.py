"""GET /metrics, for Prometheus."""

import asyncio

from falcon.asgi import Request, Response

from api.telemetry import metrics
from api.telemetry.reporter import Reporter
from api.telemetry.sale_metrics import SaleMetrics


class Metrics:
    """All metrics, in Prometheus' text format or, by content negotiation, in OpenMetrics.

    :param reporter: updates the gauges of this worker
    :param sale_metrics: the metrics that SQL provides
    """

    def __init__(self, reporter: Reporter, sale_metrics: SaleMetrics) -> None:
        self._reporter = reporter
        self._sale_metrics = sale_metrics

    async def on_get(self, req: Request, resp: Response) -> None:
        await self._sale_metrics.read()
        self._reporter.update()
        # In a thread: with several workers it reads their files, which takes longer than a request may.
        resp.data, resp.content_type = await asyncio.to_thread(
            metrics.exposition, req.accept, self._sale_metrics
        )
