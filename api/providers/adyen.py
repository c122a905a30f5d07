"""Adyen's webhooks: https://docs.adyen.com/development-resources/webhooks.

The order is the `merchantReference` of the payment. Amounts are in Adyen's minor units
(https://docs.adyen.com/development-resources/currency-codes).
"""

import base64
import hmac
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Annotated, Literal

import msgspec
from falcon.asgi import Request, Response
from msgspec import Meta

from api.problems import INVALID_SIGNATURE, Problem
from api.providers import Refund, Statement, major_units, order_id_of, payment_event, refund
from api.schemas.requests import ParsedPaymentEvent

_NO_DECIMALS = "CVE DJF GNF IDR JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF"
_THREE_DECIMALS = "BHD IQD JOD KWD LYD OMR TND"
_DECIMALS = dict.fromkeys(_NO_DECIMALS.split(), 0) | dict.fromkeys(_THREE_DECIMALS.split(), 3)
"""where there are not two. CLP and ISK have two here, CVE and IDR none, unlike in ISO 4217."""


def minor_units(amount: Decimal, currency: str) -> Decimal:
    """An amount in Adyen's minor units."""
    return amount.scaleb(_DECIMALS.get(currency, 2))


class _Amount(msgspec.Struct):
    value: Annotated[int, Meta(ge=0, le=10**18)]
    currency: Annotated[str, Meta(pattern="^[A-Za-z]{3}$")]


class _Item(msgspec.Struct, rename="camel"):
    """NotificationRequestItem. `success` is a text."""

    psp_reference: Annotated[str, Meta(pattern=r"^[!-~]{1,200}$")]
    merchant_account_code: str
    event_code: str
    success: str | bool
    amount: _Amount
    original_reference: str | None = None
    merchant_reference: str | None = None
    additional_data: dict[str, object] | None = None


class _Wrapped(msgspec.Struct):
    NotificationRequestItem: msgspec.Raw


class _Body(msgspec.Struct, rename="camel"):
    notification_items: Annotated[list[_Wrapped], Meta(min_length=1, max_length=100)]
    live: str | bool | None = None


class _Signed(msgspec.Struct, rename="camel"):
    """The members of an item that are signed, whatever else is wrong with it."""

    psp_reference: str | None = None
    original_reference: str | None = None
    merchant_account_code: str | None = None
    merchant_reference: str | None = None
    amount: dict[str, str | int | None] | None = None
    event_code: str | None = None
    success: str | bool | None = None
    additional_data: dict[str, object] | None = None


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_item = msgspec.json.Decoder(_Item).decode
_decode_signed = msgspec.json.Decoder(_Signed).decode


class Adyen:
    """Adyen.

    :param keys: HMAC keys in hexadecimal, all of them valid, so that they can be rotated
    """

    name = "adyen"

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys = [bytes.fromhex(key) for key in keys]

    def read(self, request: Request, body: bytes) -> Sequence[Statement]:
        try:
            items = [wrapped.NotificationRequestItem for wrapped in _decode_body(body).notification_items]
            for item in items:  # guard: every-item
                self._verify(_decode_signed(item))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            # Where an item cannot be read, neither can its signature.
            detail = f"The body has no signed notification items: {error}."
            raise Problem(INVALID_SIGNATURE, detail) from error
        return [_statement(item) for item in items]

    def reply(self, resp: Response) -> None:
        resp.content_type = "text/plain; charset=utf-8"
        resp.data = b"[accepted]"

    def _verify(self, item: _Signed) -> None:
        """The signature of one item is HMAC-SHA256 over eight of its members, in base64."""
        given = (item.additional_data or {}).get("hmacSignature")
        if not isinstance(given, str) or not given:
            raise Problem(INVALID_SIGNATURE, "A notification item has no additionalData.hmacSignature.")
        amount = item.amount or {}
        values = (
            item.psp_reference,
            item.original_reference,
            item.merchant_account_code,
            item.merchant_reference,
            amount.get("value"),
            amount.get("currency"),
            item.event_code,
            item.success,
        )
        message = ":".join(_text(value) for value in values).encode(errors="surrogatepass")
        for key in self._keys:
            expected = base64.b64encode(hmac.digest(key, message, "sha256"))
            if hmac.compare_digest(expected, given.encode(errors="replace")):  # guard: adyen-signature
                return
        raise Problem(
            INVALID_SIGNATURE,
            "No key in FLASHSALE_ADYEN_HMAC_KEYS matches the signature of a notification item.",
        )


def _text(value: str | int | bool | None) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _statement(data: msgspec.Raw) -> Statement:
    """What one item says. It is known by its payment and its kind, in whatever body it is delivered."""
    signed = _decode_signed(data)
    webhook_id = f"adyen:{signed.psp_reference}:{signed.event_code}:{_text(signed.success)}"
    if signed.event_code not in _KINDS:  # guard: adyen-other-kinds
        return Statement(webhook_id, ignored="kind")
    try:
        translated = _translate(_decode_item(data))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return Statement(webhook_id, error=f"{error}.")
    if isinstance(translated, str):
        return Statement(webhook_id, ignored=translated)
    return Statement(webhook_id, translated)


_BACK: dict[str, tuple[Literal["refund", "void", "chargeback"], Literal["done", "failed"]]] = {
    "REFUND": ("refund", "done"),
    "REFUND_FAILED": ("refund", "failed"),
    "REFUNDED_REVERSED": ("refund", "failed"),
    "CANCELLATION": ("void", "done"),
    "TECHNICAL_CANCEL": ("void", "done"),
    "CHARGEBACK": ("chargeback", "done"),
    "SECOND_CHARGEBACK": ("chargeback", "done"),
    "CHARGEBACK_REVERSED": ("chargeback", "failed"),
}
"""By event code: money that goes back, or comes back. Without `success`, it did not."""

_KINDS = {None, "AUTHORISATION", "CAPTURE", *_BACK}
"""event codes that are read. Items of others may have no amount, or a report's name for a reference."""


def _money_back(item: _Item) -> Refund | str:
    kind, status = _BACK[item.event_code]
    if not item.original_reference:
        return "payment"
    if _text(item.success) != "true":
        if status == "failed":
            return "kind"
        status = "failed"
    # The reference of a modification is the one that it was asked for with: of our refunds, their key.
    reference = item.merchant_reference or ""
    key = reference if reference.startswith("rf_") else item.psp_reference
    if item.event_code == "SECOND_CHARGEBACK":
        key += ":second"
    decimals = _DECIMALS.get(item.amount.currency.upper(), 2)
    # The amount of a cancellation is 0, or that of the authorisation: all that is left goes back.
    amount = None if kind == "void" else major_units(item.amount.value, decimals)
    return refund(
        key, f"adyen:{item.original_reference}:success", amount, item.amount.currency.upper(), status, kind,
        provider="adyen", psp_reference=item.psp_reference, event_code=item.event_code,
        merchant_account=item.merchant_account_code,
    )  # fmt: skip


def _translate(item: _Item) -> ParsedPaymentEvent | Refund | str:
    if item.event_code in _BACK:
        return _money_back(item)
    succeeded = _text(item.success) == "true"
    if item.event_code == "AUTHORISATION":
        payment, status = item.psp_reference, "success" if succeeded else "declined"
    elif item.event_code == "CAPTURE" and succeeded and item.original_reference:
        payment, status = item.original_reference, "success"
    else:
        return "kind"
    order_id = order_id_of(item.merchant_reference)
    if order_id is None:
        return "order"
    code = item.amount.currency.upper()
    amount = major_units(item.amount.value, _DECIMALS.get(code, 2)) if status == "success" else None
    return payment_event(
        f"adyen:{payment}:{status}",
        order_id,
        status,
        amount,
        code,
        provider="adyen",
        payment=payment,
        psp_reference=item.psp_reference,
        event_code=item.event_code,
        merchant_account=item.merchant_account_code,
    )
