"""The baselines: the same server and application as flashsale's, with another client of another store."""

from typing import Any

from api.app import App, create_app
from api.webhook_signatures import Signatures


def app_over(checkout: Any) -> App:
    """The application over something that stands in for api.database.client.Checkout."""
    return create_app(checkout, Signatures((), allow_unsigned=True), dict)
