"""The application: its routes, and the parts that it is composed of."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import falcon.asgi

from api import problems
from api.buyer_identity import BuyerIdentity, TokenVerifier
from api.context import CROSS_ORIGIN
from api.cross_origin import CrossOrigin
from api.database.client import CheckoutClient
from api.database.schema_version import digest, migration_ids
from api.openapi.components import problem_types
from api.openapi.document import OpenApi
from api.openapi.pages import docs_routes, problem_routes
from api.payment_events import PaymentEvents
from api.providers import Provider
from api.providers.adyen import Adyen
from api.providers.stripe import Stripe
from api.resources.allowance import Allowance
from api.resources.health import Liveness, Readiness
from api.resources.holds import Extension, Hold, Holds
from api.resources.metrics import Metrics
from api.resources.orders import Order, Orders
from api.resources.payment_webhook import PaymentWebhook
from api.resources.products import Product, Products
from api.resources.provider_webhook import ProviderWebhook
from api.resources.stock_feed import StockEvents
from api.schemas.webhook_body import BodyMemory
from api.server.port_dispatch import Application, dispatch_by_port
from api.settings import Settings
from api.shards.composition import compose
from api.static_files import page_routes
from api.stock_feed import StockFeed
from api.telemetry import metrics
from api.telemetry.access_log import AccessLog
from api.telemetry.reporter import Reporter
from api.telemetry.request_id import RequestIds
from api.telemetry.sale_metrics import SaleMetrics
from api.webhook_signatures import SignatureVerifier

if TYPE_CHECKING:
    from api.telemetry.tracing import Tracing

log = logging.getLogger("flashsale.api")

App = falcon.asgi.App[Any, Any]

WEBHOOK_PATH = "/api/payments/webhook"
PROVIDER_WEBHOOK_PATH = "/api/payments/webhook/{provider}"


def create_app(
    client: CheckoutClient,
    signatures: SignatureVerifier,
    expected_schema: Callable[[], dict[str, str]],
    reporter: Reporter | None = None,
    tracing: "Tracing | None" = None,
    cors_origins: Sequence[str] = (),
    buyers: BuyerIdentity | None = None,
    *,
    page: bool = True,
    providers: Sequence[Provider] = (),
    feed: StockFeed | None = None,
    readiness: Any = None,
    middleware: Sequence[Any] = (),
) -> App:
    """The application on the checkout's port.

    :param client: opened and closed with the application (ASGI lifespan)
    :param signatures: of webhooks
    :param expected_schema: returns the migration and digest that /readyz requires of the database
    :param reporter: started and stopped with the application
    :param tracing: the tracer of `client`, if it has one
    :param cors_origins: of front ends that use the API from another origin
    :param buyers: identifies the buyers of requests; without it, no request has one
    :param page: whether to serve the live page and /docs, and in the stock feed what the page shows beside
        the available stock
    :param providers: payment providers whose own webhooks are taken
    :param feed: the stock feed, unless it is that of one database
    :param readiness: the resource of /readyz, likewise
    :param middleware: further middleware, which sees responses last
    """
    buyers = buyers or BuyerIdentity(TokenVerifier([]), trusts_callers=False)
    feed = feed or StockFeed(client, with_taken_units=page)
    # Webhooks come from the payment provider's servers, never from a browser.
    closed = {WEBHOOK_PATH, PROVIDER_WEBHOOK_PATH}
    cross_origin = CrossOrigin(cors_origins, closed) if cors_origins else None
    lifespan = _Lifespan(client, feed, reporter or Reporter(client.pool_stats), cross_origin)
    always: list[Any] = [RequestIds(), AccessLog(), lifespan]
    if tracing is not None:
        always.append(tracing)
    if cross_origin is not None:
        always.append(cross_origin)
    app: App = falcon.asgi.App(middleware=[*middleware, *always])
    problems.install(app)
    for type_ in problem_types():
        metrics.problems.by_labels[(type_.code,)] += 0  # or rate() would miss the first increase
        if type_.status < 500:
            metrics.webhooks_refused.by_labels[(type_.code,)] += 0
    events, body_memory = PaymentEvents(client), BodyMemory()
    routes: dict[str, Any] = {
        "/api/products": Products(client),
        "/api/products/{product_id}": Product(client),
        "/api/products/{product_id}/live": StockEvents(client, feed),
        "/api/products/{product_id}/allowance": Allowance(client, buyers),
        "/api/holds": Holds(client, buyers),
        "/api/holds/{hold_id}": Hold(client),
        "/api/holds/{hold_id}/extension": Extension(client),
        "/api/orders": Orders(client),
        "/api/orders/{order_id}": Order(client),
        WEBHOOK_PATH: PaymentWebhook(events, signatures, body_memory),
        PROVIDER_WEBHOOK_PATH: ProviderWebhook(events, providers, body_memory),
        "/healthz": Liveness(),
        "/readyz": readiness or Readiness(client, expected_schema),
        "/openapi.json": OpenApi(
            app, allow_unsigned=signatures.allow_unsigned, trusts_callers=buyers.trusts_callers
        ),
        **problem_routes(with_docs=page),
    }
    if page:  # guard: page-left-out
        routes |= page_routes() | docs_routes()
    for path, resource in routes.items():
        if hasattr(resource, "on_get"):
            resource.on_head = resource.on_get  # Falcon omits the body (RFC 9110, 9.3.2)
        app.add_route(path, resource)
    return app


def create_metrics_app(reporter: Reporter, sale_metrics: SaleMetrics) -> App:
    """The application on the metrics' port."""
    app: App = falcon.asgi.App(middleware=[RequestIds()])
    problems.install(app)
    app.add_route("/metrics", Metrics(reporter, sale_metrics))
    return app


class _Lifespan:
    """Opens the client and starts the reporter with the application; stops both, and the feed, with it."""

    def __init__(
        self, client: CheckoutClient, feed: StockFeed, reporter: Reporter, cross_origin: CrossOrigin | None
    ) -> None:
        self._client = client
        self._feed = feed
        self._reporter = reporter
        self._cross_origin = cross_origin

    async def process_startup(self, scope: Any, event: Any) -> None:
        if self._cross_origin is not None and "state" in scope:
            scope["state"][CROSS_ORIGIN] = self._cross_origin
        await self._client.open()
        self._reporter.start()

    async def process_shutdown(self, scope: Any, event: Any) -> None:
        self._feed.close()
        await self._reporter.stop()
        await self._client.close()


def from_environment() -> Application:
    """The application that environment variables configure, with metrics on a second port if one is set.

    :raises InvalidSettings:
    """
    settings = Settings.from_environment(os.environ)
    newest_migration = migration_ids()[-1]
    tracing = _tracing(os.environ)

    def expected_schema() -> dict[str, str]:
        return {"schema_version": newest_migration, "schema_digest": digest()}

    more: dict[str, Any] = {}
    if settings.database_urls:
        parts = compose(settings, tracing, expected_schema)
        client, sale_metrics = parts.client, parts.sale_metrics
        more = {"feed": parts.feed, "readiness": parts.readiness, "middleware": [parts.middleware]}
    else:
        client = CheckoutClient(settings.database_url, tracing)
        sale_metrics = SaleMetrics(client.get_sale_metrics)
    reporter = Reporter(client.pool_stats)
    app = create_app(
        client,
        SignatureVerifier(settings.webhook_secrets, allow_unsigned=settings.allow_unsigned_webhooks),
        expected_schema,
        reporter,
        tracing,
        settings.cors_origins,
        BuyerIdentity(TokenVerifier(settings.buyer_keys), trusts_callers=settings.trust_buyer),
        page=settings.page,
        providers=_providers(settings),
        **more,
    )
    if settings.metrics_port is None:
        return app
    metrics_app = create_metrics_app(reporter, sale_metrics)
    return dispatch_by_port(app, {settings.metrics_port: metrics_app})


def _providers(settings: Settings) -> list[Provider]:
    """The payment providers whose secrets are set."""
    providers: list[Provider] = []
    if settings.stripe_secrets:
        providers.append(Stripe(settings.stripe_secrets))
    if settings.adyen_hmac_keys:
        providers.append(Adyen(settings.adyen_hmac_keys))
    return providers


def _tracing(environment: Mapping[str, str]) -> "Tracing | None":
    """Tracing, if OpenTelemetry's variables configure an endpoint."""
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if not any(map(environment.get, names)) or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from api.telemetry import tracing
    except ModuleNotFoundError:
        log.warning("OTEL_ variables are set, but tracing is not installed: pip install 'flashsale[otel]'")
        return None
    return tracing.from_environment()
