"""OpenTelemetry traces: a span for each request, and one for each call, linked to its requests."""

import asyncio
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from api.context import REQUEST
from api.database.batching import Batcher
from api.database.errors import RolledBack
from api.database.functions import ReleaseHoldsRow
from api.telemetry.batch_metrics import BatchMetrics
from api.telemetry.tracing import Tracing
from flashsale.database.seed import APP_ROLE
from flashsale.local.cluster import Cluster
from tests.support.metrics_scrape import watched_server
from tests.support.waiting import wait_until


@pytest.fixture
def finished() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(finished: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(finished))
    return provider


async def succeed(requests: Any) -> list[Any]:
    return [ReleaseHoldsRow(number, None, None, 1, "released") for number in range(len(requests))]


async def fail(requests: Any) -> list[Any]:
    raise RolledBack("XX000", "no")


async def submit(batcher: Batcher[Any], provider: TracerProvider, count: int) -> list[Any]:
    """Submit concurrent requests, each with a span of its own; returns the spans."""

    async def one(number: int) -> Any:
        span = provider.get_tracer("test").start_span(f"request {number}")
        REQUEST.set(SimpleNamespace(span=span))
        await asyncio.gather(batcher.submit(number), return_exceptions=True)
        span.end()
        return span

    return await asyncio.gather(*(one(number) for number in range(count)))


def test_a_call_is_the_child_of_its_first_request_and_linked_to_the_others(
    provider: TracerProvider, finished: InMemorySpanExporter
) -> None:
    batcher = Batcher(succeed, metrics=BatchMetrics("get_holds", Tracing(provider)))
    first, *others = asyncio.run(submit(batcher, provider, 3))
    (call,) = [span for span in finished.get_finished_spans() if span.name == "flashsale.get_holds"]
    assert call.attributes["db.operation.batch.size"] == 3
    assert call.parent.span_id == first.get_span_context().span_id
    assert [link.context.span_id for link in call.links] == [s.get_span_context().span_id for s in others]
    assert call.status.is_ok


def test_a_failed_call_has_the_error(provider: TracerProvider, finished: InMemorySpanExporter) -> None:
    batcher = Batcher(fail, metrics=BatchMetrics("get_holds", Tracing(provider)))
    asyncio.run(submit(batcher, provider, 1))
    call = finished.get_finished_spans()[0]
    assert (call.attributes["error.type"], call.status.is_ok) == ("XX000", False)


def test_unsampled_requests_make_no_span(finished: InMemorySpanExporter) -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(finished))
    batcher = Batcher(succeed, metrics=BatchMetrics("get_holds", Tracing(provider)))
    asyncio.run(submit(batcher, provider, 2))
    assert finished.get_finished_spans() == ()


class Collector:
    """An OpenTelemetry collector that keeps the spans it receives."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def take(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            names = {a.key: a.value.string_value for a in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [(names["service.name"], span) for span in scope.spans]

    def named(self, name: str) -> list[Any]:
        return [span for _, span in self.spans if span.name == name]


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    thread = Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.mark.slow
def test_a_server_exports_its_traces(
    db: psycopg.Connection, cluster: Cluster, collector: Collector, tmp_path: Path
) -> None:
    db.execute("select flashsale.create_product('Shoe', 50, 99, 'USD')")
    url = cluster.url(APP_ROLE, db.info.dbname)
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with watched_server(url, tmp_path / "gunicorn.log", **environment) as (client, _):
        client.get(
            "/api/products/1", headers={"traceparent": f"00-{trace}-{parent}-01", "X-Request-ID": "traced"}
        )
        name = "GET /api/products/{product_id}"
        wait_until(lambda: collector.named(name), "the request's span comes")
        wait_until(lambda: collector.named("flashsale.get_products"), "the call's span comes")
    (span,), (call,) = collector.named(name), collector.named("flashsale.get_products")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (trace, parent)
    assert (call.trace_id, call.parent_span_id) == (span.trace_id, span.span_id)
    attributes = {a.key: a.value for a in span.attributes}
    assert attributes["http.response.status_code"].int_value == 200
    assert attributes["flashsale.request_id"].string_value == "traced"
    assert {service for service, _ in collector.spans} == {"flashsale"}
