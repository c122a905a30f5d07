"""Every error that a client can meet, as RFC 9457 problem details, and the one table from refusal to status.

`type` is a URI reference that stays: /problems/ and the code. `code` is what programs branch on.
"""

import http
import logging
from typing import Any, NamedTuple

import falcon
import msgspec
from falcon.asgi import Request, Response

from api.database.batching import Busy, NotSent, OutcomeUnknown, Overloaded, RolledBack, Row
from api.telemetry import metrics

log = logging.getLogger("flashsale.api")

MEDIA_TYPE = "application/problem+json"


class Kind(NamedTuple):
    """What is the same in every problem of one kind.

    `detail` is what an answer says that knows nothing more precise, and what /openapi.json says of the code.
    `retry_after` is in seconds (RFC 9110, 10.2.3); where it is given, trying again makes sense.
    """

    status: int
    code: str
    title: str
    detail: str
    retry_after: int | None = None


REFUSALS = {
    "SA001": Kind(404, "product_not_found", "Product not found", "There is no such product."),
    # guard: problem-status
    "SA002": Kind(409, "insufficient_stock", "Insufficient stock", "Fewer units are available."),
    "SA003": Kind(404, "hold_not_found", "Hold not found", "There is no such hold."),
    "SA004": Kind(410, "hold_expired", "Hold expired", "The hold's time was up; its units went back."),
    "SA005": Kind(409, "hold_released", "Hold released", "The hold was released; its units went back."),
    "SA006": Kind(409, "hold_already_used", "Hold already used", "The hold has become an order."),
    "SA007": Kind(404, "order_not_found", "Order not found", "There is no such order, or not of this hold."),
    "SA008": Kind(
        422,
        "idempotency_key_reused",
        "Idempotency key reused",
        "An earlier request with this idempotency key asked for something else. Nothing was done.",
    ),
    "SA009": Kind(
        422,
        "invalid_request",
        "Invalid request",
        "A value is missing, unknown, of the wrong type or out of range. Nothing was done.",
    ),
    "SA010": Kind(409, "stock_in_use", "Stock in use", "More units are taken than would be left."),
    "SA011": Kind(
        503,
        "inbox_full",
        "Too many unmatched webhooks",
        "Too many webhooks wait for orders that do not exist. Nothing was done; deliver it again.",
        retry_after=30,
    ),
}
"""By SQLSTATE: the refusals of the SQL functions (view flashsale.refusals says the same)."""

PRODUCT_NOT_FOUND = REFUSALS["SA001"]
INSUFFICIENT_STOCK = REFUSALS["SA002"]
HOLD_NOT_FOUND = REFUSALS["SA003"]
HOLD_EXPIRED = REFUSALS["SA004"]
HOLD_RELEASED = REFUSALS["SA005"]
HOLD_ALREADY_USED = REFUSALS["SA006"]
ORDER_NOT_FOUND = REFUSALS["SA007"]
IDEMPOTENCY_KEY_REUSED = REFUSALS["SA008"]
INVALID_REQUEST = REFUSALS["SA009"]
STOCK_IN_USE = REFUSALS["SA010"]
INBOX_FULL = REFUSALS["SA011"]

BAD_REQUEST = Kind(400, "bad_request", "Bad request", "Invalid HTTP request received.")
MALFORMED_JSON = Kind(
    400, "malformed_json", "Malformed JSON", "The body is not one strict JSON text (RFC 8259)."
)
INVALID_SIGNATURE = Kind(
    401,
    "invalid_signature",
    "Invalid webhook signature",
    "The webhook's signature is missing, stale or wrong.",
)
NOT_FOUND = Kind(404, "not_found", "Not found", "There is nothing at this path.")
METHOD_NOT_ALLOWED = Kind(
    405,
    "method_not_allowed",
    "Method not allowed",
    "This path does not take that method; the Allow header lists those it takes.",
)
REQUEST_TIMEOUT = Kind(
    408, "request_timeout", "Request took too long", "A request arrives within 10 seconds."
)
PAYLOAD_TOO_LARGE = Kind(413, "payload_too_large", "Payload too large", "A body has at most 16384 bytes.")
UNSUPPORTED_MEDIA_TYPE = Kind(
    415, "unsupported_media_type", "Unsupported media type", "The body must be application/json in UTF-8."
)
HEADERS_TOO_LARGE = Kind(
    431,
    "headers_too_large",
    "Request header fields too large",
    "The head of a request has at most 65536 bytes.",
)
INTERNAL_ERROR = Kind(
    500,
    "internal_error",
    "Internal error",
    "The server failed. The log tells why, under this response's X-Request-ID.",
)
OVERLOADED = Kind(
    503, "overloaded", "Overloaded", "Too many requests wait. Nothing was done; try again.", retry_after=1
)
BUSY = Kind(
    503,
    "busy",
    "Somebody else holds the lock",
    "A row that this request needs stayed locked. Nothing was done; try again.",
    retry_after=1,
)
NOT_READY = Kind(
    503, "not_ready", "Not ready", "The database cannot be reached, or its schema is another.", retry_after=1
)
UNAVAILABLE = Kind(
    503,
    "unavailable",
    "Database unavailable",
    "The database could not be asked. Nothing was done; try again.",
    retry_after=1,
)
OUTCOME_UNKNOWN = Kind(
    503,
    "outcome_unknown",
    "Outcome unknown",
    "The request may or may not have taken effect. A retry with the same idempotency key is safe.",
    retry_after=1,
)

OF_HTTP = {
    kind.status: kind
    for kind in (
        BAD_REQUEST,
        NOT_FOUND,
        METHOD_NOT_ALLOWED,
        PAYLOAD_TOO_LARGE,
        UNSUPPORTED_MEDIA_TYPE,
        INTERNAL_ERROR,
        UNAVAILABLE,
    )
}
"""By status: what stands for errors that Falcon itself raises."""


class Problem(Exception):
    """Raised wherever a request cannot go on; answered by the handler below."""

    def __init__(self, kind: Kind, detail: str = "") -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail or kind.detail


_encode = msgspec.json.Encoder().encode
_STATUS_LINE = {status.value: f"{status.value} {status.phrase}" for status in http.HTTPStatus}


def type_of(kind: Kind) -> str:
    """A problem's `type`, a path of this server at which it is told to people (api/openapi/pages.py)."""
    return f"/problems/{kind.code}"


def body(kind: Kind, detail: str, **members: Any) -> bytes:
    """Problem details as JSON, with extension members (RFC 9457, 3.2)."""
    return _encode(
        {
            "type": type_of(kind),
            "title": kind.title,
            "status": kind.status,
            "detail": detail,
            "code": kind.code,
            **members,
        }
    )


def answer(resp: Response, kind: Kind, detail: str, **members: Any) -> None:
    """Answer with a problem."""
    metrics.refusals.of[(kind.code,)] += 1
    resp.status = _STATUS_LINE[kind.status]
    resp.content_type = MEDIA_TYPE
    if kind.retry_after is not None:
        resp.set_header("Retry-After", str(kind.retry_after))
    resp.data = body(kind, detail, **members)


def refuse(resp: Response, row: Row, **members: Any) -> None:
    """Answer with the refusal that a row `(request_no, sqlstate, detail, ...)` carries."""
    kind = REFUSALS.get(row[1])
    if kind is None:
        log.error("refusal %s is not in this server's table: it is older than the database", row[1])
        kind = UNAVAILABLE
    answer(resp, kind, row[2] or kind.detail, **members)


def install(app: falcon.asgi.App[Any, Any]) -> None:
    """Have the application answer every error, its own and Falcon's, with problem details."""
    app.add_error_handler(Exception, _uncaught)
    app.add_error_handler(falcon.HTTPError, _of_falcon)
    app.add_error_handler(Problem, _problem)
    app.add_error_handler(Overloaded, _of_joining(OVERLOADED))
    app.add_error_handler(Busy, _of_joining(BUSY))
    app.add_error_handler(NotSent, _of_joining(UNAVAILABLE))
    app.add_error_handler(OutcomeUnknown, _of_joining(OUTCOME_UNKNOWN))
    app.add_error_handler(RolledBack, _rolled_back)


async def _problem(req: Request, resp: Response, error: Problem, params: Any) -> None:
    answer(resp, error.kind, error.detail)


async def _of_falcon(req: Request, resp: Response, error: falcon.HTTPError, params: Any) -> None:
    status = error.status_code
    kind = OF_HTTP.get(status)
    if kind is None:
        phrase = http.HTTPStatus(status).phrase
        kind = Kind(status, f"http_{status}", phrase, phrase)
    resp.set_headers(error.headers or {})
    answer(resp, kind, error.description or kind.detail)


def _of_joining(kind: Kind) -> Any:
    async def handle(req: Request, resp: Response, error: Exception, params: Any) -> None:
        answer(resp, kind, kind.detail)

    return handle


async def _rolled_back(req: Request, resp: Response, error: RolledBack, params: Any) -> None:
    """This request's call failed, alone: by a value PostgreSQL cannot hold (class 22), or by our fault."""
    if error.sqlstate in REFUSALS:
        answer(resp, REFUSALS[error.sqlstate], str(error))
        return
    log.error("a request failed: %s", error, extra={"request_id": resp.get_header("X-Request-ID")})
    if error.sqlstate.startswith("22"):
        answer(resp, INVALID_REQUEST, "A value in the request is outside what the database can hold.")
    else:
        answer(resp, UNAVAILABLE, "The database refused the call. Nothing was done.")


async def _uncaught(req: Request, resp: Response, error: Exception, params: Any) -> None:
    log.error("a request failed", exc_info=error, extra={"request_id": resp.get_header("X-Request-ID")})
    answer(resp, INTERNAL_ERROR, INTERNAL_ERROR.detail)
