"""Makes the refunds that are due at their provider, and records what it says.

A refund is asked for under its key in the database, which stays the same until an outcome is recorded: a
worker may die at any point, and the next one repeats the request.
"""

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple, Protocol

from psycopg.rows import args_row
from psycopg.types.json import Jsonb

from flashsale.database.connection import Connection


class Request(NamedTuple):
    """A refund to make.

    :param requested_at: when its key was first handed out
    """

    refund_key: str
    payment_key: str
    order_id: int
    amount: Decimal
    currency: str
    requested_at: datetime


class Outcome(NamedTuple):
    """What the provider says.

    :param status: done, failed, or unknown: nothing is recorded, and the request is repeated later
    """

    status: str
    payload: dict[str, object]


class RefundProvider(Protocol):
    """A payment provider that refunds."""

    name: str
    """before the colon of its payments' keys"""

    def refund(self, request: Request) -> Outcome:
        """Ask for a refund, with its key as the provider's idempotency key.

        :raises UserError: the provider accepts no request of this account
        """


def pay(conn: Connection, provider: RefundProvider, limit: int) -> Iterator[tuple[Request, Outcome]]:
    """Make at most `limit` of a provider's refunds that are due, one after the other."""
    for _ in range(limit):
        request = _begin(conn, provider.name)
        if request is None:
            return
        outcome = provider.refund(request)
        if outcome.status != "unknown":
            conn.execute(
                "select from flashsale.record_refund(%s, %s, %s, %s, 'refund', %s)",
                (
                    request.refund_key,
                    request.payment_key,
                    request.amount,
                    outcome.status,
                    Jsonb(outcome.payload),
                ),
            )
        yield request, outcome


def _begin(conn: Connection, provider: str) -> Request | None:
    """The next refund of this provider, taken for this worker; None if none is due that is not taken."""
    begun = conn.execute(
        """
        select refund_key
        from flashsale.begin_refunds(1, array(
               select d.idempotency_key
               from flashsale.refunds_due d
               -- In a shop of several slots a key has its slot in front, as in 5/stripe:…
               where starts_with(
                 case when (select s.slots from flashsale.get_shard() s) = 1 then d.idempotency_key
                      else regexp_replace(d.idempotency_key, '^[0-9]+/', '') end, %s)))
        """,
        (f"{provider}:",),
    ).fetchone()
    if begun is None:
        return None
    with conn.cursor(row_factory=args_row(Request)) as cursor:
        # A statement of its own: that of begin_refunds() does not see what it has written.
        cursor.execute(
            "select refund_key, payment_key, order_id, amount, currency, requested_at"
            " from flashsale.refunds where refund_key = %s",
            begun,
        )
        return cursor.fetchone()
