"""Payment providers' own webhooks. A provider is one module: it verifies, translates, and replies.

The key of an event is the payment and the word (`stripe:pi_3Q…:success`), never the provider's event: a
payment that is reported by events of several kinds is one payment, and a declined attempt before a success
is no conflict.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import msgspec
from falcon.asgi import Request, Response

from api.schemas.fields import MAX_BIGINT
from api.schemas.requests import ParsedPaymentEvent


class Refund(NamedTuple):
    """What has become of a refund, as SQL takes it.

    :param refund_key: that of begin_refunds(), or the provider's own id
    :param payment_key: that of the captured payment
    :param amount: in major units; None: all that is left
    :param payload: the text of a JSON object, kept with it
    """

    refund_key: str
    payment_key: str
    amount: str | None
    status: Literal["done", "failed"]
    kind: Literal["refund", "void", "chargeback"]
    payload: str


class Statement(NamedTuple):
    """One thing that a verified webhook says.

    :param webhook_id: the same in each delivery; if the statement is refused, it is kept under it
    :param said: about the payment of an order, or about money that goes back; None if it is ignored or cannot
        be read
    :param ignored: why it does not concern an order of this shop: `kind`, `order`, `unpaid` or `pending`
    :param error: why it cannot be read
    """

    webhook_id: str
    said: ParsedPaymentEvent | Refund | None = None
    ignored: str | None = None
    error: str = ""


class Provider(Protocol):
    """A payment provider."""

    name: str
    """in the path of its webhook, and before the colon of its keys"""

    def read(self, request: Request, body: bytes) -> Sequence[Statement]:
        """Verify a webhook and translate it.

        :param request: with its headers
        :raises Problem: invalid_signature
        """

    def reply(self, resp: Response) -> None:
        """Confirm a webhook as the provider expects it, so that it is not delivered again."""


def payment_event(
    key: str, order_id: int, status: str, amount: str | None, currency: str | None, **payload: object
) -> ParsedPaymentEvent:
    """A payment event as SQL takes it.

    :param amount: what was received, in major units; None if nothing was
    :param payload: what is stored with the event
    """
    if amount is not None:
        payload |= {"amount": amount, "currency": currency}
    return ParsedPaymentEvent(key, order_id, status, msgspec.json.encode(payload).decode(), False)


def refund(
    refund_key: str,
    payment_key: str,
    amount: str | None,
    currency: str,
    status: Literal["done", "failed"],
    kind: Literal["refund", "void", "chargeback"],
    **payload: object,
) -> Refund:
    """What has become of a refund.

    :param amount: in major units; None: all that is left, in whatever currency
    :param payload: what is stored with it
    """
    if amount is not None:
        payload["currency"] = currency
    return Refund(refund_key, payment_key, amount, status, kind, msgspec.json.encode(payload).decode())


def order_id_of(reference: str | None) -> int | None:
    """The order that a shop has written into a payment as a string of digits; None if it is not one."""
    if reference and reference.isascii() and reference.isdigit() and len(reference) <= 19:
        order_id = int(reference)
        return order_id if 1 <= order_id <= MAX_BIGINT else None
    return None


def major_units(amount: int, decimals: int) -> str:
    """A decimal number for an amount in minor units, such as "99.00" for 9900 with 2 decimals."""
    digits = str(amount).rjust(decimals + 1, "0")
    return f"{digits[:-decimals]}.{digits[-decimals:]}" if decimals else digits
