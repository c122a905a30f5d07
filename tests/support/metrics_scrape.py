"""Scraping a server's metrics."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.http import free_port, running_server


class Metrics:
    """The metrics of a server, scraped anew for each question."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/metrics"

    def text(self) -> str:
        answer = httpx.get(self.url, timeout=10)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        return answer.text

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of all samples of this name that have these labels."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.text())
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def documented(self) -> dict[str, tuple[str, frozenset[str]]]:
        """Type and labels of each metric, by the name that its samples or their beginning have."""
        return {
            family.name + ("_total" if family.type == "counter" else ""): (
                family.type,
                frozenset(label for sample in family.samples for label in sample.labels) - {"le"},
            )
            for family in text_string_to_metric_families(self.text())
        }

    def sample_names(self) -> set[str]:
        """What a query may ask for."""
        suffixes = {"histogram": ("_bucket", "_sum", "_count")}
        return {
            name + suffix
            for name, (kind, _) in self.documented().items()
            for suffix in suffixes.get(kind, ("",))
        }


@contextmanager
def watched_server(
    database_url: str, log: Path, **environment: str
) -> Iterator[tuple[httpx.Client, Metrics]]:
    """A server with metrics on a port of their own; yields a client of the shop, and the metrics."""
    port = free_port()
    settings = {"FLASHSALE_METRICS_PORT": str(port), **environment}
    with (
        running_server(database_url, log, **settings) as base,
        httpx.Client(base_url=base, timeout=10) as client,
    ):
        yield client, Metrics(port)
