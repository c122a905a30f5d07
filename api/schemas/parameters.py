"""Values that a request carries outside its body: ids in the path, headers, the query string."""

import re

from falcon.asgi import Request

from api.problems import INVALID_REQUEST, Problem, ProblemType
from api.schemas.fields import IDEMPOTENCY_KEY, MAX_BIGINT, MAX_BUYER_LENGTH

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000


def parse_id(text: str, not_found: ProblemType, maximum: int = MAX_BIGINT) -> int:
    """An id in a path or in a query, in decimal.

    :raises Problem: `not_found`, if the text is not a valid id
    """
    if text.isascii() and text.isdigit() and text[0] != "0" and len(text) <= 19 and int(text) <= maximum:
        return int(text)
    raise Problem(not_found, f"{text[:40]!r} is not a valid id.")


_is_idempotency_key = re.compile(IDEMPOTENCY_KEY).fullmatch


def idempotency_key(req: Request) -> str | None:
    """The Idempotency-Key header.

    :raises Problem: invalid_request
    """
    key = req.get_header("Idempotency-Key")
    if key is None or _is_idempotency_key(key):
        return key
    raise Problem(INVALID_REQUEST, "Idempotency-Key must be 1 to 255 visible ASCII characters.")


def integer_parameter(req: Request, name: str, default: int, minimum: int, maximum: int) -> int:
    """An integer in the query string.

    :raises Problem: invalid_request
    """
    text = req.get_param(name)
    if text is None:
        return default
    if text.isascii() and text.isdigit() and len(text) <= 19 and minimum <= int(text) <= maximum:
        return int(text)
    raise Problem(INVALID_REQUEST, f"Parameter {name} must be an integer from {minimum} to {maximum}.")


def buyer_parameter(req: Request) -> str | None:
    """The buyer in the query string.

    :raises Problem: invalid_request
    """
    buyer = req.get_param("buyer")
    if buyer is not None and (not 1 <= len(buyer) <= MAX_BUYER_LENGTH or "\0" in buyer):
        raise Problem(
            INVALID_REQUEST, f"Parameter buyer must be 1 to {MAX_BUYER_LENGTH} characters without NUL."
        )
    return buyer
