"""Removes test products."""

import time
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.rows import dict_row

from flashsale.database.connection import Connection

TIMEOUT_SECONDS = 10
"""seconds; requests to the server take two at most"""
RETRY_DELAY_SECONDS = 0.1
"""seconds"""


def forget_tests(conn: Connection, product_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """Call forget_tests(), and again for products that are in use, for TIMEOUT_SECONDS at most.

    :param conn: an operator's; its isolation level is set
    :param product_ids: None for all test products
    :returns: the last row of each product, by ascending id; one that is not `forgotten` is still in use
    """
    conn.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    deadline = time.monotonic() + TIMEOUT_SECONDS
    found: dict[int, dict[str, Any]] = {}
    wanted = None if product_ids is None else list(product_ids)
    while True:
        # The level applies to transactions that start after it is set.
        with conn.transaction():
            rows = (
                conn.cursor(row_factory=dict_row)
                .execute("select * from flashsale.forget_tests(%s::bigint[])", (wanted,))
                .fetchall()
            )
        found |= {row["product_id"]: row for row in rows}
        wanted = [row["product_id"] for row in rows if not row["forgotten"]]
        if not wanted or time.monotonic() > deadline:
            return [found[product_id] for product_id in sorted(found)]
        time.sleep(RETRY_DELAY_SECONDS)
