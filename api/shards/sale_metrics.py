"""The metrics of the sale from several shards, each with the label `shard`."""

import asyncio
from collections.abc import Iterator, Sequence

from prometheus_client.metrics_core import Metric

from api.shards.client import ShardClient
from api.telemetry.sale_metrics import SaleMetrics


class ShardedSaleMetrics(SaleMetrics):
    """The newest metrics of all shards, as one collector."""

    def __init__(self, shards: Sequence[ShardClient]) -> None:
        self._shards = {shard.name: SaleMetrics(shard.get_sale_metrics) for shard in shards}

    async def read(self) -> None:
        await asyncio.gather(*(metrics.read() for metrics in self._shards.values()))

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for name, metrics in self._shards.items():
            for family in metrics.collect():
                merged = families.setdefault(family.name, family)
                labelled = [
                    sample._replace(labels={"shard": name, **sample.labels}) for sample in family.samples
                ]
                merged.samples = labelled if merged is family else merged.samples + labelled
        yield from families.values()
