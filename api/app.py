"""The application: its routes on one screen, and how gunicorn comes by it."""

import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import falcon.asgi

from api import problems
from api.database.client import Checkout
from api.database.schema_version import digest, migration_ids
from api.openapi.document import OpenApi, kinds
from api.openapi.pages import docs_routes, problem_routes
from api.resources import metrics as exposition
from api.resources.health import Liveness, Readiness
from api.resources.holds import Hold, Holds
from api.resources.orders import Order, Orders
from api.resources.payment_webhook import PaymentWebhook
from api.resources.products import Product, Products
from api.settings import Settings
from api.static_files import page_routes
from api.stock_feed import Live, ProductLive
from api.telemetry import metrics
from api.telemetry.access_log import Access
from api.telemetry.reporter import Pulse
from api.telemetry.request_id import RequestIds
from api.telemetry.sale_metrics import Figures
from api.webhook_signatures import Signatures

if TYPE_CHECKING:
    from api.telemetry.tracing import Traces

log = logging.getLogger("flashsale.api")

App = falcon.asgi.App[Any, Any]


def create_app(
    checkout: Checkout,
    signatures: Signatures,
    current_version: Callable[[], dict[str, str]],
    pulse: Pulse | None = None,
    traces: "Traces | None" = None,
) -> App:
    """The HTTP layer over a checkout.

    :param checkout: opened and closed with the application (ASGI lifespan)
    :param signatures: decides which webhooks to believe
    :param current_version: what the database should hold, for /readyz
    :param pulse: starts and stops with the application; one of its own if there is no other use for it
    :param traces: the one that the checkout has
    """
    live = Live(checkout)
    lifespan = _Lifespan(checkout, live, pulse or Pulse(checkout))
    middleware = [RequestIds(), Access(), lifespan]
    app: App = falcon.asgi.App(middleware=[*middleware, traces] if traces else middleware)
    problems.install(app)
    for kind in kinds():
        metrics.refusals.of[(kind.code,)] += 0  # a rate is only told of what was there before it rose
    routes: dict[str, Any] = {
        "/api/products": Products(checkout),
        "/api/products/{product_id}": Product(checkout),
        "/api/products/{product_id}/live": ProductLive(checkout, live),
        "/api/holds": Holds(checkout),
        "/api/holds/{hold_id}": Hold(checkout),
        "/api/orders": Orders(checkout),
        "/api/orders/{order_id}": Order(checkout),
        "/api/payments/webhook": PaymentWebhook(checkout, signatures),
        "/healthz": Liveness(),
        "/readyz": Readiness(checkout, current_version),
        "/openapi.json": OpenApi(app, allow_unsigned=signatures.allow_unsigned),
        **page_routes(),
        **docs_routes(),
        **problem_routes(),
    }
    for path, resource in routes.items():
        if hasattr(resource, "on_get"):
            resource.on_head = resource.on_get  # Falcon leaves the body out (RFC 9110, 9.3.2)
        app.add_route(path, resource)
    return app


class _Lifespan:
    """Middleware that opens and closes the checkout with the process."""

    def __init__(self, checkout: Checkout, live: Live, pulse: Pulse) -> None:
        self._checkout = checkout
        self._live = live
        self._pulse = pulse

    async def process_startup(self, scope: Any, event: Any) -> None:
        await self._checkout.open()
        self._pulse.start()

    async def process_shutdown(self, scope: Any, event: Any) -> None:
        self._live.close()
        await self._pulse.stop()
        await self._checkout.close()


def from_environment() -> exposition.Application:
    """The application that the environment describes, with its metrics beside it if they have a port.

    :raises InvalidSettings:
    """
    settings = Settings.from_environment(os.environ)
    newest = migration_ids()[-1]
    traces = _traces(os.environ)
    checkout = Checkout(settings.database_url, traces)
    pulse = Pulse(checkout)
    shop = create_app(
        checkout,
        Signatures(settings.webhook_secrets, allow_unsigned=settings.allow_unsigned_webhooks),
        lambda: {"schema_version": newest, "schema_digest": digest()},
        pulse,
        traces,
    )
    if settings.metrics_port is None:
        return shop
    watch = exposition.metrics_app(pulse, Figures(settings.database_url))
    return exposition.beside(shop, watch, settings.metrics_port)


def _traces(environment: Mapping[str, str]) -> "Traces | None":
    """Traces, if the environment says where to send them (OpenTelemetry's own variables)."""
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if not any(map(environment.get, names)) or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from api.telemetry import tracing
    except ModuleNotFoundError:
        log.warning("there are no traces, although OTEL_ variables are set: pip install 'flashsale[otel]'")
        return None
    return tracing.from_environment()


def __getattr__(name: str) -> exposition.Application:
    """`api.app:application`, made when a server asks for it and not when somebody imports this module."""
    if name != "application":
        raise AttributeError(name)
    return from_environment()
