"""What flashsale is measured against: the same server and the same application, over another checkout."""

from typing import Any

from api.app import App, create_app
from api.signatures import Signatures


def app_over(checkout: Any) -> App:
    """The application over something that stands in for api.checkout.Checkout."""
    return create_app(checkout, Signatures((), allow_unsigned=True), dict)
