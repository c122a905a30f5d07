"""The application: its routes on one screen, and how gunicorn comes by it."""

import os
from collections.abc import Callable
from typing import Any

import falcon.asgi

from api import problems
from api.assets import page_routes
from api.checkout import Checkout
from api.docs import docs_routes
from api.health import Liveness, Readiness
from api.holds import Hold, Holds
from api.live import Live, ProductLive
from api.openapi import OpenApi
from api.orders import Order, Orders
from api.payments import PaymentWebhook
from api.products import Product, Products
from api.request_ids import RequestIds
from api.settings import Settings
from api.signatures import Signatures

App = falcon.asgi.App[Any, Any]


def create_app(
    checkout: Checkout, signatures: Signatures, current_version: Callable[[], dict[str, str]]
) -> App:
    """The HTTP layer over a checkout.

    :param checkout: opened and closed with the application (ASGI lifespan)
    :param signatures: decides which webhooks to believe
    :param current_version: what the database should hold, for /readyz
    """
    live = Live(checkout)
    app: App = falcon.asgi.App(middleware=[RequestIds(), _Lifespan(checkout, live)])
    problems.install(app)
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
    }
    for path, resource in routes.items():
        if hasattr(resource, "on_get"):
            resource.on_head = resource.on_get  # Falcon leaves the body out (RFC 9110, 9.3.2)
        app.add_route(path, resource)
    return app


class _Lifespan:
    """Middleware that opens and closes the checkout with the process."""

    def __init__(self, checkout: Checkout, live: Live) -> None:
        self._checkout = checkout
        self._live = live

    async def process_startup(self, scope: Any, event: Any) -> None:
        await self._checkout.open()

    async def process_shutdown(self, scope: Any, event: Any) -> None:
        self._live.close()
        await self._checkout.close()


def from_environment() -> App:
    """The application that the environment describes.

    :raises InvalidSettings:
    """
    from flashsale.load import digest
    from flashsale.migrate import SQL, migration_ids

    settings = Settings.from_environment(os.environ)
    newest = migration_ids()[-1]
    return create_app(
        Checkout(settings.database_url),
        Signatures(settings.webhook_secrets, allow_unsigned=settings.allow_unsigned_webhooks),
        lambda: {"schema_version": newest, "schema_digest": digest(SQL)},
    )


def __getattr__(name: str) -> App:
    """`api.app:application`, made when a server asks for it and not when somebody imports this module."""
    if name != "application":
        raise AttributeError(name)
    return from_environment()
