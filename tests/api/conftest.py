"""What the HTTP tests share: a client of a server whose database has a product 1."""

from collections.abc import Iterator

import httpx
import psycopg
import pytest


@pytest.fixture
def client(server: str, db: psycopg.Connection) -> Iterator[httpx.Client]:
    db.execute("select flashsale.create_product('Shoe', 50, 99, 'USD')")
    with httpx.Client(base_url=server, timeout=10) as client:
        yield client
