"""Strict JSON bodies (RFC 8259), and the other things that clients write: ids, keys, paging.

msgspec decodes and checks types in one go, but lets through two things that must be refused: a member given
twice, and in members it skips, bytes that are no UTF-8. Where a body could hold such a thing it is parsed
again, slowly.
"""

import json
import re
from typing import Annotated, Any, Literal, NoReturn, TypeVar

import msgspec
from falcon.asgi import Request

from api.problems import (
    BAD_REQUEST,
    INVALID_REQUEST,
    MALFORMED_JSON,
    PAYLOAD_TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
    Kind,
    Problem,
)
from api.server.http_protocol import CUT

MAX_BYTES = 16 * 1024  # guard: body-limit
MAX_DEPTH = 64
MAX_BIGINT = 2**63 - 1
MAX_HOLD_ID = 2**53 - 1

IDEMPOTENCY_KEY = r"[!-~]{1,255}"
"""what the header may hold: 1 to 255 visible ASCII characters"""

# Descriptions and examples here and in api/schemas/responses.py are what /openapi.json says.
ProductId = Annotated[int, msgspec.Meta(ge=1, le=MAX_BIGINT, description="A product.", examples=[1])]
HoldId = Annotated[
    int,
    msgspec.Meta(
        ge=1,
        le=MAX_HOLD_ID,
        description="A hold: a random number, and the buyer's only proof that it is theirs.",
    ),
]
OrderId = Annotated[int, msgspec.Meta(ge=1, le=MAX_BIGINT, description="An order.")]
Quantity = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1, description="Units of the product.")]


class NewHold(msgspec.Struct, forbid_unknown_fields=True):
    """Units to reserve."""

    product_id: ProductId
    qty: Quantity


class NewOrder(msgspec.Struct, forbid_unknown_fields=True):
    """The hold to make an order of."""

    hold_id: HoldId


class PaymentEvent(msgspec.Struct):
    """The payment provider's word. Any further members are kept with it, free of the character NUL and of
    numbers beyond a double's range."""

    # A pattern in extra_json_schema is documentation here: that it holds is seen to elsewhere.
    idempotency_key: Annotated[
        str,
        msgspec.Meta(
            min_length=1,
            max_length=255,
            description="The provider's name of this event: the same in each delivery of it.",
            extra_json_schema={"pattern": r"^[^\u0000]+$"},  # check_well_formed
        ),
    ]
    order_id: OrderId
    status: Annotated[
        Literal["success", "failed", "cancelled"], msgspec.Meta(description="What became of the payment.")
    ]
    amount: (
        Annotated[
            str,
            msgspec.Meta(
                description="A decimal number. Given, it must be the order's amount.",
                extra_json_schema={"pattern": r"^[0-9]{1,22}(\.[0-9]{1,6})?$"},  # webhook_error.sql
            ),
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET
    currency: (
        Annotated[
            str,
            msgspec.Meta(
                description="An ISO 4217 code. Given, it must be the order's currency.",
                extra_json_schema={"pattern": "^[A-Z]{3}$"},  # webhook_error.sql
            ),
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET


Body = TypeVar("Body", NewHold, NewOrder)

_new_hold = msgspec.json.Decoder(NewHold)
_new_order = msgspec.json.Decoder(NewOrder)
_payment_event = msgspec.json.Decoder(PaymentEvent)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode


async def read(req: Request) -> bytes:
    """The whole body of a JSON request, no more than MAX_BYTES of it.

    :raises Problem: unsupported_media_type, payload_too_large; bad_request if it was cut short (RFC 9112, 8),
        however whole its JSON looks
    """
    if req.content_type != "application/json":
        _check_media_type(req.content_type)
    if (req.content_length or 0) > MAX_BYTES:
        raise Problem(PAYLOAD_TOO_LARGE, f"A body has at most {MAX_BYTES} bytes.")
    data = await req.stream.read(MAX_BYTES + 1)
    if CUT in req.scope.get("state", ()):
        raise Problem(BAD_REQUEST)
    if len(data) > MAX_BYTES:
        raise Problem(PAYLOAD_TOO_LARGE, f"A body has at most {MAX_BYTES} bytes.")
    return data


def _check_media_type(content_type: str | None) -> None:
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


def new_hold(data: bytes) -> NewHold:
    """:raises Problem: malformed_json, invalid_request"""
    return _decode(_new_hold, data, members=2)


def new_order(data: bytes) -> NewOrder:
    """:raises Problem: malformed_json, invalid_request"""
    return _decode(_new_order, data, members=1)


def _decode(decoder: msgspec.json.Decoder[Body], data: bytes, *, members: int) -> Body:
    """Decode an object whose members are all required and all numbers."""
    try:
        decoded = decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        _explain(data, error)
    # No value here is a string, so each member brings two quotes: more of them is a member given twice.
    if data.count(b'"') != 2 * members:
        check_well_formed(data)
    return decoded


def _explain(data: bytes, error: Exception) -> NoReturn:
    """Raise the problem behind a failure to decode. What is malformed outweighs a wrong type before it."""
    check_well_formed(data)
    raise Problem(INVALID_REQUEST, f"{error}.") from None


def payment_event(data: bytes) -> tuple[PaymentEvent, str]:
    """A webhook's event, and the members that are kept with it as the text of a JSON object.

    The text is free of what PostgreSQL's jsonb refuses (NUL, numbers beyond numeric), because one such
    payload would spoil the call that it shares with others. Its numbers keep their digits.

    :raises Problem: malformed_json, invalid_request
    """
    check_well_formed(data)
    try:
        event = _payment_event.decode(data)
        members = _members.decode(data)
    except msgspec.ValidationError as error:
        raise Problem(INVALID_REQUEST, f"{error}.") from None
    for name in ("idempotency_key", "order_id", "status"):
        del members[name]
    return event, _encode(members).decode()


def check_well_formed(data: bytes) -> None:
    """Refuse what is not strict JSON, or what PostgreSQL could not keep.

    :raises Problem: malformed_json for anything that is not one JSON text in UTF-8 with every member once
        and at most MAX_DEPTH levels; invalid_request for a NUL character or a number beyond a double's range
    """
    try:
        text = data.decode()
        if text.startswith("\ufeff"):
            raise ValueError("it begins with a byte order mark")
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_fraction,
            parse_int=_integer,
        )
        if data.count(b"[") + data.count(b"{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
        if "\\u" in text:
            _check_escapes(value)
    except RecursionError:
        raise Problem(
            MALFORMED_JSON, f"The body is no JSON: it is nested deeper than {MAX_DEPTH} levels."
        ) from None
    except ValueError as error:
        raise Problem(MALFORMED_JSON, f"The body is no JSON: {error}.") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):  # guard: duplicate-members
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"member {twice!a} is there twice")
    return members


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _fraction(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")) or (value == 0 and digits.lower().split("e")[0].strip("-0.")):
        raise Problem(INVALID_REQUEST, f"Number {digits[:40]} is beyond what a double can hold.")
    return value


def _integer(digits: str) -> int:
    # Python refuses to convert long ones, and a body has no room for one that PostgreSQL could not keep.
    return int(digits) if len(digits) < 400 else _integer_beyond(digits)


def _integer_beyond(digits: str) -> NoReturn:
    raise Problem(INVALID_REQUEST, f"Number {digits[:40]}... is beyond what a double can hold.")


def _depth(value: Any) -> int:
    depth = 0
    level = [value]
    while level:
        depth += 1
        level = [
            child
            for parent in level
            if isinstance(parent, (dict, list))
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, (dict, list))
        ]
    return depth


def _check_escapes(value: Any) -> None:
    """Escapes can spell what UTF-8 cannot, half a surrogate pair; and NUL, which PostgreSQL never keeps."""
    level = [value]
    while level:
        item = level.pop()
        if isinstance(item, dict):
            level.extend(item)
            level.extend(item.values())
        elif isinstance(item, list):
            level.extend(item)
        elif isinstance(item, str):
            if not item.isascii() and any("\ud800" <= character <= "\udfff" for character in item):
                raise ValueError("half a surrogate pair is no character")
            if "\0" in item:
                raise Problem(INVALID_REQUEST, "A string holds the character NUL.")


def id_from_path(text: str, kind: Kind, limit: int = MAX_BIGINT) -> int:
    """An id as a path or a query writes it, in decimal. What is none names nothing that exists.

    :raises Problem: of the given kind
    """
    if text.isascii() and text.isdigit() and text[0] != "0" and len(text) <= 19 and int(text) <= limit:
        return int(text)
    raise Problem(kind, f"{text[:40]!r} names nothing that exists.")


_is_idempotency_key = re.compile(IDEMPOTENCY_KEY).fullmatch


def idempotency_key(req: Request) -> str | None:
    """The Idempotency-Key header.

    :raises Problem: invalid_request
    """
    key = req.get_header("Idempotency-Key")
    if key is None or _is_idempotency_key(key):
        return key
    raise Problem(INVALID_REQUEST, "Idempotency-Key must be 1 to 255 visible ASCII characters.")


def whole_number(req: Request, name: str, default: int, least: int, most: int) -> int:
    """A query parameter that is a whole number.

    :raises Problem: invalid_request
    """
    text = req.get_param(name)
    if text is None:
        return default
    if text.isascii() and text.isdigit() and len(text) <= 19 and least <= int(text) <= most:
        return int(text)
    raise Problem(INVALID_REQUEST, f"Parameter {name} must be a whole number from {least} to {most}.")
