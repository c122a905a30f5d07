"""The tests of this folder share one database, which is emptied before each test."""

from collections.abc import Iterator

import psycopg
import pytest

from tests.support.database import emptied_database
from tests.support.sale_steps import audit

shared, postgresql = emptied_database("flashsale_operators")


@pytest.fixture
def books_balance(db: psycopg.Connection) -> Iterator[None]:
    """The audit finds nothing after the test."""
    yield
    assert audit(db) == []
