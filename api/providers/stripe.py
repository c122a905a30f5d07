"""Stripe's webhooks: https://docs.stripe.com/webhooks, https://docs.stripe.com/api/events/types.

The order is the member `order_id` of the metadata of the PaymentIntent or of the Checkout Session, or the
session's `client_reference_id`. Amounts are in the currency's minor unit
(https://docs.stripe.com/currencies).
"""

import hashlib
import hmac
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Annotated, Literal

import msgspec
from falcon.asgi import Request, Response
from msgspec import Meta

from api.problems import INVALID_SIGNATURE, Problem
from api.providers import Refund, Statement, major_units, order_id_of, payment_event, refund
from api.schemas.requests import ParsedPaymentEvent
from api.webhook_signatures import check_timestamp

_NO_DECIMALS = "BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF"
_THREE_DECIMALS = "BHD JOD KWD OMR TND"
_DECIMALS = dict.fromkeys(_NO_DECIMALS.split(), 0) | dict.fromkeys(_THREE_DECIMALS.split(), 3)
"""where there are not two. ISK and UGX have two here, though they have no minor unit."""

Id = Annotated[str, Meta(pattern=r"^[!-~]{1,200}$")]
Amount = Annotated[int, Meta(ge=0, le=10**18)]
Currency = Annotated[str, Meta(pattern="^[A-Za-z]{3}$")]


def minor_units(amount: Decimal, currency: str) -> Decimal:
    """An amount in Stripe's minor units."""
    return amount.scaleb(_DECIMALS.get(currency, 2))


class _Data(msgspec.Struct):
    object: msgspec.Raw


class _Event(msgspec.Struct):
    id: Id
    type: str
    # Events of other kinds may have none; nothing can be read from an empty one.
    data: _Data = msgspec.field(default_factory=lambda: _Data(msgspec.Raw()))
    livemode: bool | None = None


class _PaymentIntent(msgspec.Struct):
    id: Id
    currency: Currency
    amount_received: Amount = 0
    metadata: dict[str, str] | None = None


class _Session(msgspec.Struct):
    id: Id
    payment_status: str
    payment_intent: Id | None = None
    client_reference_id: str | None = None
    amount_total: Amount | None = None
    currency: Currency | None = None
    metadata: dict[str, str] | None = None


class _Refund(msgspec.Struct):
    id: Id
    amount: Amount
    currency: Currency
    status: str | None = None
    payment_intent: Id | None = None
    metadata: dict[str, str] | None = None


class _Dispute(msgspec.Struct):
    id: Id
    amount: Amount
    currency: Currency
    status: str
    payment_intent: Id | None = None


Said = ParsedPaymentEvent | Refund | str
"""what an event says, or why it is ignored"""

_decode_event = msgspec.json.Decoder(_Event).decode
_decode_intent = msgspec.json.Decoder(_PaymentIntent).decode
_decode_session = msgspec.json.Decoder(_Session).decode
_decode_refund = msgspec.json.Decoder(_Refund).decode
_decode_dispute = msgspec.json.Decoder(_Dispute).decode


class Stripe:
    """Stripe.

    :param secrets: of the webhook endpoint (`whsec_…`), all of them valid, so that they can be rotated
    """

    name = "stripe"

    def __init__(self, secrets: Iterable[str]) -> None:
        self._keys = [secret.encode() for secret in secrets]

    def read(self, request: Request, body: bytes) -> Sequence[Statement]:
        self._verify(request.get_header("Stripe-Signature"), body)
        webhook_id = f"stripe:sha256:{hashlib.sha256(body).hexdigest()}"
        try:
            event = _decode_event(body)
            webhook_id = f"stripe:{event.id}"
            translate = _TRANSLATIONS.get(event.type)
            translated = "kind" if translate is None else translate(event)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return [Statement(webhook_id, error=f"{error}.")]
        if isinstance(translated, str):
            return [Statement(webhook_id, ignored=translated)]
        return [Statement(webhook_id, translated)]

    def reply(self, resp: Response) -> None:
        resp.data = b'{"received":true}'

    def _verify(self, header: str | None, body: bytes) -> None:
        """Signatures are HMAC-SHA256 over the timestamp, a dot, and the body, in hexadecimal."""
        if not header:
            raise Problem(INVALID_SIGNATURE, "The request is not signed: it has no header Stripe-Signature.")
        items = [item.partition("=")[::2] for item in header.split(",")]
        timestamp = next((value for name, value in items if name.strip() == "t"), "")
        given = [value.strip().encode("latin-1") for name, value in items if name.strip() == "v1"]
        if not given:
            raise Problem(INVALID_SIGNATURE, "The header Stripe-Signature has no signature v1=.")
        check_timestamp(timestamp)
        message = timestamp.encode() + b"." + body
        for key in self._keys:
            expected = hmac.digest(key, message, "sha256").hex().encode()
            if any(hmac.compare_digest(expected, each) for each in given):  # guard: stripe-signature
                return
        raise Problem(INVALID_SIGNATURE, "No secret in FLASHSALE_STRIPE_SECRETS matches the signature.")


def _intent(status: str) -> Callable[[_Event], Said]:
    def translate(event: _Event) -> Said:
        intent = _decode_intent(event.data.object)
        order_id = order_id_of((intent.metadata or {}).get("order_id"))
        if order_id is None:
            return "order"
        received = intent.amount_received if status == "success" else None
        return _report(event, intent.id, order_id, status, received, intent.currency)

    return translate


def _session(status: str) -> Callable[[_Event], Said]:
    def translate(event: _Event) -> Said:
        session = _decode_session(event.data.object)
        if status == "success" and session.payment_status != "paid":  # guard: unpaid-session
            return "unpaid"
        reference = (session.metadata or {}).get("order_id") or session.client_reference_id
        order_id = order_id_of(reference)
        if order_id is None:
            return "order"
        if status != "success":
            return _report(event, session.payment_intent or session.id, order_id, status, None, None)
        if session.payment_intent is None or session.amount_total is None or session.currency is None:
            raise msgspec.ValidationError(
                "A paid Checkout Session needs payment_intent, amount_total and currency"
            )
        return _report(
            event, session.payment_intent, order_id, status, session.amount_total, session.currency
        )

    return translate


def _report(
    event: _Event, payment: str, order_id: int, status: str, received: int | None, currency: str | None
) -> ParsedPaymentEvent:
    code = (currency or "").upper()
    amount = None if received is None else major_units(received, _DECIMALS.get(code, 2))
    return payment_event(
        f"stripe:{payment}:{status}",
        order_id,
        status,
        amount,
        code,
        provider="stripe",
        payment=payment,
        event=event.id,
        event_type=event.type,
        livemode=event.livemode,
    )


def _refund(event: _Event) -> Said:
    """A refund under our key, if we asked for it, else under Stripe's id."""
    returned = _decode_refund(event.data.object)
    if returned.status in ("pending", "requires_action", None):
        return "pending"
    if returned.payment_intent is None:
        return "payment"
    status: Literal["done", "failed"] = "done" if returned.status == "succeeded" else "failed"
    key = (returned.metadata or {}).get("refund_key") or returned.id
    return _back(event, key, returned.payment_intent, returned.amount, returned.currency, status, "refund")


def _dispute(status: Literal["done", "failed"] | None = None) -> Callable[[_Event], Said]:
    def translate(event: _Event) -> Said:
        dispute = _decode_dispute(event.data.object)
        outcome = status or _CLOSED.get(dispute.status)
        if outcome is None:
            return "kind"
        if dispute.payment_intent is None:
            return "payment"
        return _back(
            event, dispute.id, dispute.payment_intent, dispute.amount, dispute.currency, outcome, "chargeback"
        )

    return translate


_CLOSED: dict[str, Literal["done", "failed"]] = {"lost": "done", "won": "failed"}
"""by status of a dispute that is closed. An inquiry that is closed has moved no money."""


def _back(
    event: _Event,
    key: str,
    payment: str,
    amount: int,
    currency: str,
    status: Literal["done", "failed"],
    kind: Literal["refund", "chargeback"],
) -> Refund:
    returned = major_units(amount, _DECIMALS.get(currency.upper(), 2))
    return refund(
        key, f"stripe:{payment}:success", returned, currency.upper(), status, kind,
        provider="stripe", event=event.id, event_type=event.type, livemode=event.livemode,
    )  # fmt: skip


_TRANSLATIONS: dict[str, Callable[[_Event], Said]] = {
    "payment_intent.succeeded": _intent("success"),
    # One attempt was refused; the buyer may try another card on the same PaymentIntent.
    "payment_intent.payment_failed": _intent("declined"),
    "payment_intent.canceled": _intent("failed"),
    "checkout.session.completed": _session("success"),
    "checkout.session.async_payment_succeeded": _session("success"),
    "checkout.session.async_payment_failed": _session("failed"),
    "checkout.session.expired": _session("failed"),
    "refund.created": _refund,
    "refund.updated": _refund,
    "refund.failed": _refund,
    "charge.dispute.funds_withdrawn": _dispute("done"),
    "charge.dispute.funds_reinstated": _dispute("failed"),
    "charge.dispute.closed": _dispute(),
}
"""By type of event. Events of other types are ignored."""
