"""What operations of several tags have in common: problems, parameters, and the ids of their examples."""

from typing import Annotated

from msgspec import Meta

from api import problems
from api.openapi.operation import Parameter, ProblemExample
from api.schemas import fields
from api.telemetry.request_id import PATTERN

COMMON_PROBLEMS = (
    problems.BAD_REQUEST,
    problems.REQUEST_TIMEOUT,
    problems.HEADERS_TOO_LARGE,
    problems.INTERNAL_ERROR,
)
"""of any request: malformed HTTP, and defects of the server"""
UNROUTED_PROBLEMS = (problems.NOT_FOUND, problems.METHOD_NOT_ALLOWED)
"""of unknown paths and methods"""
BODY_PROBLEMS = (
    ProblemExample(
        problems.MALFORMED_JSON, "The body is not valid JSON: Expecting value: line 1 column 1 (char 0)."
    ),
    problems.PAYLOAD_TOO_LARGE,
    problems.UNSUPPORTED_MEDIA_TYPE,
)
READ_PROBLEMS = (problems.OVERLOADED, problems.UNAVAILABLE)
WRITE_PROBLEMS = (problems.OVERLOADED, problems.BUSY, problems.UNAVAILABLE, problems.OUTCOME_UNKNOWN)

HOLD_ID = 4872316950284173
ORDER_ID = 99

NO_HOLD = ProblemExample(problems.HOLD_NOT_FOUND, f"There is no hold {HOLD_ID}.")
HOLD_HAS_EXPIRED = ProblemExample(problems.HOLD_EXPIRED, f"Hold {HOLD_ID} expired at 2025-01-12 10:45:20+00.")
NO_PRODUCT = ProblemExample(problems.PRODUCT_NOT_FOUND, "There is no product 1.")
INVALID_TOKEN = ProblemExample(problems.INVALID_TOKEN, "The token has expired.")

REQUEST_ID = Parameter(
    "X-Request-ID",
    "header",
    Annotated[
        str,
        Meta(
            description="Identifies the request in the log. The response has the same id if it matches "
            f"`{PATTERN}`, and otherwise a new one."
        ),
    ],
    "checkout-7f3a",
)
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    "header",
    Annotated[
        str,
        Meta(
            pattern=f"^{fields.IDEMPOTENCY_KEY}$",
            description="Identifies the intent: a retry with the same key has no second effect. "
            "1 to 255 visible ASCII characters, random (`crypto.randomUUID()`): the replay of a hold shows "
            "its `hold_id`, so a key must not be guessable.",
        ),
    ],
    "3f1b6c1e-5d0a-4b7e-9a43-0c8f2d6e71b5",
)
BUYER = Parameter(
    "buyer", "query",
    Annotated[
        str,
        Meta(
            min_length=1, max_length=fields.MAX_BUYER_LENGTH,
            description="The buyer, where the server trusts its callers (`FLASHSALE_TRUST_BUYER`).",
        ),
    ],
    "customer-4711",
)  # fmt: skip
"""absent from the document of a server that does not trust its callers"""
