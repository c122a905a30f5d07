"""A server with the secrets of both providers, and an order to be paid."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from flashsale.database.seed import APP_ROLE
from flashsale.local.cluster import Cluster
from tests.support.http import running_server
from tests.support.provider_events import ADYEN_KEY, STRIPE_SECRET
from tests.support.sql_calls import create_product, order_units


@pytest.fixture
def client(db: psycopg.Connection, cluster: Cluster, tmp_path: Path) -> Iterator[httpx.Client]:
    with (
        running_server(
            cluster.url(APP_ROLE, db.info.dbname),
            tmp_path / "gunicorn.log",
            FLASHSALE_ALLOW_UNSIGNED_WEBHOOKS="",
            FLASHSALE_STRIPE_SECRETS=f"whsec_TheNextSecretOfThisEndpoint012,{STRIPE_SECRET}",
            FLASHSALE_ADYEN_HMAC_KEYS=ADYEN_KEY,
        ) as url,
        httpx.Client(base_url=url, timeout=10) as client,
    ):
        yield client


@pytest.fixture
def order_id(db: psycopg.Connection) -> int:
    """An order of 99.00 USD that awaits payment."""
    return int(order_units(db, create_product(db), 1).order_id)
