"""The parts of the application that differ with several databases."""

from collections.abc import Callable
from typing import Any, NamedTuple

from api.database.client import CheckoutClient
from api.settings import Settings
from api.shards.client import ShardedClient
from api.shards.missing_products import MissingProducts
from api.shards.readiness import ShardedReadiness
from api.shards.sale_metrics import ShardedSaleMetrics
from api.shards.stock_feed import ShardedStockFeed
from api.stock_feed import StockFeed
from api.telemetry import metrics
from api.telemetry.batch_metrics import Tracer
from api.telemetry.sale_metrics import SaleMetrics


class Parts(NamedTuple):
    """Arguments of create_app() and create_metrics_app()."""

    client: CheckoutClient
    feed: StockFeed
    readiness: Any
    middleware: Any
    sale_metrics: SaleMetrics


def compose(
    settings: Settings, tracer: Tracer | None, expected_schema: Callable[[], dict[str, str]]
) -> Parts:
    """The parts for settings.database_urls; once in a process."""
    metrics.label_calls("shard")
    client = ShardedClient(settings.database_urls, tracer)
    return Parts(
        client,
        ShardedStockFeed(client, with_taken_units=settings.page),
        ShardedReadiness(client, expected_schema),
        MissingProducts(),
        ShardedSaleMetrics(client.shards),
    )
