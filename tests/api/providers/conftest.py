"""A server with the secrets of both providers, whose database is emptied before each test."""

from collections.abc import Iterator

import httpx
import psycopg
import pytest

from tests.support.provider_events import ADYEN_KEY, STRIPE_SECRET
from tests.support.shared_server import shared_server
from tests.support.sql_calls import create_product, order_units

shared, postgresql, started, server = shared_server(
    "flashsale_providers",
    FLASHSALE_ALLOW_UNSIGNED_WEBHOOKS="",
    FLASHSALE_STRIPE_SECRETS=f"whsec_TheNextSecretOfThisEndpoint012,{STRIPE_SECRET}",
    FLASHSALE_ADYEN_HMAC_KEYS=ADYEN_KEY,
)


@pytest.fixture
def client(server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server, timeout=10) as client:
        yield client


@pytest.fixture
def order_id(db: psycopg.Connection) -> int:
    """An order of 99.00 USD that awaits payment."""
    return int(order_units(db, create_product(db), 1).order_id)
