"""The common way: lock the product's row, sum its active holds, insert if there is room.

In its best form: an index-only scan gives the sum, all statements are prepared, and the four of a
transaction are sent in one round trip (psycopg's pipeline), so that the lock is not held over round trips.
What remains is the sum, which grows with the sale.
"""

from typing import Any

import psycopg

from bench.baselines import App, app_over
from bench.baselines.call_each import Pool, refusal


class LockAndSum(Pool):
    """The same pool, with the SQL in the application. bench/tables.sql makes the tables."""

    async def hold(
        self, connection: psycopg.AsyncConnection[Any], product_id: int, qty: int, key: str | None
    ) -> tuple[Any, ...]:
        async with connection.pipeline():
            await connection.execute("begin")
            await connection.execute(
                "select from bench.summed_products where product_id = %s::bigint for update", (product_id,)
            )
            placed = await connection.execute(
                """
                insert into bench.summed_holds (product_id, qty, expires_at)
                select p.product_id, %(qty)s::int, now() + interval '1 day'
                from bench.summed_products p
                where p.product_id = %(product_id)s::bigint
                  and p.total_stock - %(qty)s::int >= (
                    select coalesce(sum(h.qty), 0) from bench.summed_holds h
                    where h.product_id = %(product_id)s::bigint
                      and h.status = 'active' and h.expires_at > now())
                returning 0, null, null, false, hold_id, product_id, qty, status, expires_at, null, null
                """,
                {"product_id": product_id, "qty": qty},
            )
            await connection.execute("commit")
        row = await placed.fetchone()
        return row or refusal("SA002")


def application() -> App:
    return app_over(LockAndSum())
