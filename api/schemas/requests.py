"""Request bodies: their shapes, and how they are read and parsed."""

from datetime import datetime
from typing import Annotated, Literal, NamedTuple, NoReturn, TypeVar

import msgspec
from falcon.asgi import Request
from msgspec import UNSET, Meta, UnsetType

from api.context import BODY_TRUNCATED
from api.problems import BAD_REQUEST, INVALID_REQUEST, PAYLOAD_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, Problem
from api.schemas.fields import MAX_BIGINT, Buyer, HoldId, Instant, OrderId, ProductId, Quantity
from api.schemas.strict_json import check_well_formed, replace_unstorable

MAX_BODY_BYTES = 16 * 1024  # guard: body-limit


class NewHold(msgspec.Struct, forbid_unknown_fields=True):
    """Units to reserve."""

    product_id: ProductId
    qty: Quantity
    buyer: Buyer | UnsetType = UNSET


class Extension(msgspec.Struct, forbid_unknown_fields=True):
    """The end of the hold, as the caller knows it: a hold that ends later has been extended already."""

    expires_at: Instant


class NewOrder(msgspec.Struct, forbid_unknown_fields=True):
    """The hold to order."""

    hold_id: HoldId


class PaymentEvent(msgspec.Struct):
    """A payment provider's event. Further members are stored with it; in their text, U+FFFD replaces what
    PostgreSQL cannot store: the character NUL and lone surrogates. Their numbers must be in the range of a
    double."""

    # A pattern in extra_json_schema is documentation only; the comment beside it names what enforces it.
    idempotency_key: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=255,
            description="Names the payment and its outcome, such as `pay_abc_123:success`: the same in each "
            "delivery and in each event that reports this payment.",
            extra_json_schema={"pattern": r"^[^\u0000\ufffd]+$"},  # parse_payment_event
        ),
    ]
    order_id: (
        OrderId
        | Annotated[
            str,
            Meta(
                description="An order, as a string of digits.",
                extra_json_schema={"pattern": "^[1-9][0-9]{0,17}$"},  # _order_id
            ),
        ]
    )
    status: Annotated[
        Literal["success", "failed", "cancelled", "declined"],
        Meta(
            description="The outcome of the payment. declined: one attempt was refused, the next may succeed."
        ),
    ]
    amount: (
        Annotated[
            str,
            Meta(
                description="A decimal number. If given, it must equal the order's amount.",
                extra_json_schema={"pattern": r"^[0-9]{1,22}(\.[0-9]{1,6})?$"},  # webhook_error.sql
            ),
        ]
        | Annotated[
            float,
            Meta(ge=0, description="The same as a number; its digits are taken as they are written."),
        ]
        | UnsetType
        | None
    ) = UNSET
    currency: (
        Annotated[
            str,
            Meta(
                description="An ISO 4217 code in either case. If given, it must equal the order's currency.",
                extra_json_schema={"pattern": "^[A-Za-z]{3}$"},  # webhook_error.sql
            ),
        ]
        | UnsetType
        | None
    ) = UNSET


class ParsedPaymentEvent(NamedTuple):
    """A payment event as SQL takes it.

    :param payload: the further members, `amount` and `currency` included, as the text of a JSON object
    :param has_replacements: a character that PostgreSQL cannot store has been replaced in the payload
    """

    idempotency_key: str
    order_id: int
    status: str
    payload: str
    has_replacements: bool


Body = TypeVar("Body", NewHold, Extension, NewOrder)

_new_hold = msgspec.json.Decoder(NewHold)
_extension = msgspec.json.Decoder(Extension)
_new_order = msgspec.json.Decoder(NewOrder)
_payment_event = msgspec.json.Decoder(PaymentEvent)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode


async def read_body(req: Request) -> bytes:
    """The body of a JSON request.

    :raises Problem: unsupported_media_type, payload_too_large; bad_request if the body is incomplete
        (RFC 9112, 8), even if what was received is valid JSON
    """
    if req.content_type != "application/json":
        check_media_type(req.content_type)
    if (req.content_length or 0) > MAX_BODY_BYTES:
        raise Problem(PAYLOAD_TOO_LARGE)
    data = await req.stream.read(MAX_BODY_BYTES + 1)
    if BODY_TRUNCATED in req.scope.get("state", ()):
        raise Problem(BAD_REQUEST)
    if len(data) > MAX_BODY_BYTES:
        raise Problem(PAYLOAD_TOO_LARGE)
    return data


def check_media_type(content_type: str | None) -> None:
    """:raises Problem: unsupported_media_type unless it is JSON in UTF-8"""
    media_type, *parameters = (content_type or "").split(";")
    if media_type.strip().lower() == "application/json":
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in (
                "utf-8",
                "utf8",
            ):
                break
        else:
            return
    raise Problem(UNSUPPORTED_MEDIA_TYPE)


def parse_new_hold(data: bytes) -> NewHold:
    """:raises Problem: malformed_json, invalid_request"""
    hold = _decode(_new_hold, data)
    if hold.buyer is UNSET:
        _check_members(data, names=2)
    else:
        _check_members(data, names=3, texts=1)
    return hold


def parse_extension(data: bytes) -> Extension:
    """:raises Problem: malformed_json, invalid_request"""
    extension = _decode(_extension, data)
    _check_members(data, names=1, texts=1)
    try:
        datetime.fromisoformat(extension.expires_at)
    except ValueError:
        raise Problem(INVALID_REQUEST, f"expires_at is not a time: {extension.expires_at}.") from None
    return extension


def parse_new_order(data: bytes) -> NewOrder:
    """:raises Problem: malformed_json, invalid_request"""
    order = _decode(_new_order, data)
    _check_members(data, names=1)
    return order


def _decode(decoder: msgspec.json.Decoder[Body], data: bytes) -> Body:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        _raise_problem(data, error)


def _check_members(data: bytes, *, names: int, texts: int = 0) -> None:
    """Parse again, strictly, unless an object that was decoded can have no duplicate member, and no text that
    PostgreSQL is unable to store.

    :param names: how many members were found
    :param texts: how many of them are strings
    """
    # More quotes mean a duplicate member; a backslash may write NUL, a lone surrogate or a quote.
    if data.count(b'"') != 2 * (names + texts) or (texts and b"\\" in data):  # guard: text-with-escape
        check_well_formed(data)


def _raise_problem(data: bytes, error: Exception) -> NoReturn:
    """Raise the problem behind a decoding error. Malformed JSON takes precedence over a wrong type."""
    check_well_formed(data)
    raise Problem(INVALID_REQUEST, f"{error}.") from None


def parse_payment_event(data: bytes) -> ParsedPaymentEvent:
    """A webhook's event.

    The payload contains nothing that jsonb rejects (NUL, lone surrogates, numbers out of range), because one
    such payload would fail the whole batch. Numbers keep their digits.

    :raises Problem: malformed_json, invalid_request
    """
    storable = replace_unstorable(data)
    has_replacements = storable is not data
    try:
        event = _payment_event.decode(storable)
        members = _members.decode(storable)
    except msgspec.ValidationError as error:
        raise Problem(INVALID_REQUEST, f"{error}.") from None
    # Two keys that differ in such a character must not become one.
    if has_replacements and "\ufffd" in event.idempotency_key:  # guard: key-not-replaced
        raise Problem(INVALID_REQUEST, "idempotency_key contains NUL or a lone surrogate.")
    for name in ("idempotency_key", "order_id", "status"):
        del members[name]
    return ParsedPaymentEvent(
        event.idempotency_key,
        _order_id(event.order_id),
        event.status,
        _encode(members).decode(),
        has_replacements,
    )


def _order_id(value: int | str) -> int:
    if isinstance(value, int):
        return value
    if value.isascii() and value.isdigit() and len(value) <= 19 and 1 <= int(value) <= MAX_BIGINT:
        return int(value)
    raise Problem(INVALID_REQUEST, f"{value[:40]!r} is not a valid order_id.")
