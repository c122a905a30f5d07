"""OpenTelemetry traces, with the extra `otel` and an OTLP endpoint in the environment.

A request is a server span, a call of a function a client span. A call serves many requests: its span is the
child of the first sampled one, and linked to the others.

Imported only if the environment configures traces (api/app.py).
"""

from collections.abc import Sequence
from typing import Any

from falcon.asgi import Request, Response
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from api.telemetry.batch_metrics import PendingRequest
from api.telemetry.request_id import HEADER

_caller = TraceContextTextMapPropagator()


class Tracing:
    """Middleware for requests, and the tracer of calls (api/telemetry/batch_metrics.py).

    :param provider: of spans; shut down with the application
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("flashsale")

    async def process_request(self, req: Request, resp: Response) -> None:
        span = self._tracer.start_span(
            req.method, _caller.extract({"traceparent": req.get_header("traceparent") or ""}), SpanKind.SERVER
        )
        if span.is_recording():
            span.set_attribute("http.request.method", req.method)
            span.set_attribute("flashsale.request_id", resp.get_header(HEADER))
        req.context.span = span

    async def process_response(self, req: Request, resp: Response, resource: Any, succeeded: bool) -> None:
        span: OtelSpan = req.context.span
        if span.is_recording():
            if req.uri_template:
                span.update_name(f"{req.method} {req.uri_template}")
                span.set_attribute("http.route", req.uri_template)
            status = str(resp.status)
            span.set_attribute("http.response.status_code", int(status[:3]))
            if status >= "5":
                span.set_status(Status(StatusCode.ERROR))
        span.end()

    async def process_shutdown(self, scope: Any, event: Any) -> None:
        self._provider.shutdown()

    def start_call(self, function: str, path: str, batch: Sequence[PendingRequest]) -> "_CallSpan | None":
        """The span of a call; None if none of its requests is sampled."""
        spans = [request.context.span for request in batch if hasattr(request.context, "span")]
        sampled = [span for span in spans if span.get_span_context().trace_flags.sampled]
        if not sampled:
            return None
        first, *others = sampled
        return _CallSpan(
            self._tracer.start_span(
                f"flashsale.{function}",
                set_span_in_context(first),
                SpanKind.CLIENT,
                {
                    "db.system.name": "postgresql",
                    "db.stored_procedure.name": f"flashsale.{function}",
                    "db.operation.batch.size": len(batch),
                    "flashsale.path": path,
                },
                [Link(span.get_span_context()) for span in others],
            )
        )


class _CallSpan:
    def __init__(self, span: OtelSpan) -> None:
        self._span = span

    def end(self, error: BaseException | None) -> None:
        if error is not None:
            self._span.set_attribute("error.type", getattr(error, "reason", type(error).__name__))
            self._span.set_status(Status(StatusCode.ERROR, str(error)))
        self._span.end()


def from_environment() -> Tracing:
    """Traces exported by OTLP over HTTP, configured by the standard's OTEL_ variables.

    Must be called in the worker: the exporter's thread does not survive a fork.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "flashsale"}))
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)
