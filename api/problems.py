"""All errors of the HTTP interface as problem details (RFC 9457), and the mapping from SQLSTATE to status.

`type` is a stable URI reference, /problems/ and the code. Programs branch on `code`.
"""

import http
import logging
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol

import falcon
import msgspec
from falcon.asgi import Request, Response

from api.database.errors import Busy, OutcomeUnknown, Overloaded, RolledBack, Unavailable
from api.telemetry import metrics

log = logging.getLogger("flashsale.api")

MEDIA_TYPE = "application/problem+json"


class ProblemType(NamedTuple):
    """A problem type: what all problems with one `code` have in common.

    :param detail: the default for problems without a detail of their own, and the text in /openapi.json
    :param retry_after: seconds (RFC 9110, 10.2.3); set where a retry may succeed
    :param retry_varies: a response may have fewer seconds than retry_after
    :param challenge: the header WWW-Authenticate (RFC 9110, 11.6.1)
    """

    status: int
    code: str
    title: str
    detail: str
    retry_after: int | None = None
    retry_varies: bool = False
    challenge: str | None = None

    @property
    def retry_text(self) -> str:
        """What Retry-After has, for people; empty without the header."""
        if self.retry_after is None:
            return ""
        return f"{'at most ' if self.retry_varies else ''}{self.retry_after} s"


# fmt: off
REFUSALS = {
    "SA001": ProblemType(404, "product_not_found", "Product not found", "The product does not exist."),
    # guard: problem-status
    "SA002": ProblemType(409, "insufficient_stock", "Insufficient stock", "Fewer units are available."),
    "SA003": ProblemType(404, "hold_not_found", "Hold not found", "The hold does not exist."),
    "SA004": ProblemType(410, "hold_expired", "Hold expired",
        "The hold has expired; its units are available again."),
    "SA005": ProblemType(409, "hold_released", "Hold released",
        "The hold was released; its units are available again."),
    "SA006": ProblemType(409, "hold_already_used", "Hold already used", "The hold has become an order."),
    "SA007": ProblemType(404, "order_not_found", "Order not found",
        "The order does not exist, or belongs to another hold."),
    "SA008": ProblemType(422, "idempotency_key_reused", "Idempotency key reused",
        "An earlier request used this idempotency key with other parameters. Nothing was done."),
    "SA009": ProblemType(422, "invalid_request", "Invalid request",
        "A value is missing, unknown, of the wrong type or out of range. Nothing was done."),
    "SA010": ProblemType(409, "stock_in_use", "Stock in use",
        "The new total would be less than the units that are held or ordered."),
    "SA011": ProblemType(503, "inbox_full", "Too many unmatched webhooks",
        "Too many webhooks for unknown orders are stored. Nothing was done; deliver the webhook again.",
        retry_after=30),
    "SA012": ProblemType(409, "sale_not_started", "Sale not started",
        "The sale starts at starts_at, by the clock of the database.",
        retry_after=60, retry_varies=True),
    "SA013": ProblemType(409, "sale_ended", "Sale ended", "The sale ended at ends_at."),
    "SA014": ProblemType(409, "sale_paused", "Sale paused", "The sale is paused; it may go on."),
    "SA015": ProblemType(410, "sale_cancelled", "Sale cancelled", "The sale was cancelled."),
    "SA016": ProblemType(422, "buyer_required", "Buyer required",
        "The product has a limit for each buyer, and the request names none."),
    "SA017": ProblemType(409, "limit_reached", "Limit reached",
        "The units would be more than one hold may have, or than the buyer may have in holds, pending and"
        " paid orders: limit, taken and remaining."),
    "SA018": ProblemType(409, "extension_refused", "Extension refused",
        "The hold has been extended as often as it may, or ends at another time: expires_at."),
    "SA019": ProblemType(409, "order_settled", "Order settled", "The order is paid: order_status."),
    "SA020": ProblemType(404, "payment_not_found", "Payment not found", "No captured payment has this key."),
    "SA021": ProblemType(409, "refund_too_large", "Refund too large",
        "More than what was captured and not refunded: refundable."),
    "SA022": ProblemType(409, "preview_changed", "Preview changed",
        "What would be refunded has changed since the preview: refund_total."),
    "SA029": ProblemType(503, "wrong_shard", "Wrong shard",
        "The id is of a slot that another shard has. Nothing was done; send the request again.",
        retry_after=1),
    "SA030": ProblemType(503, "not_primary", "Not the primary",
        "The database is a standby or a copy. The HTTP server does not use one.", retry_after=1),
}
"""By SQLSTATE: the refusals of the SQL functions. Equal to view flashsale.refusals."""

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
SALE_NOT_STARTED = REFUSALS["SA012"]
SALE_ENDED = REFUSALS["SA013"]
SALE_PAUSED = REFUSALS["SA014"]
SALE_CANCELLED = REFUSALS["SA015"]
BUYER_REQUIRED = REFUSALS["SA016"]
LIMIT_REACHED = REFUSALS["SA017"]
EXTENSION_REFUSED = REFUSALS["SA018"]
ORDER_SETTLED = REFUSALS["SA019"]
PAYMENT_NOT_FOUND = REFUSALS["SA020"]
REFUND_TOO_LARGE = REFUSALS["SA021"]
PREVIEW_CHANGED = REFUSALS["SA022"]
WRONG_SHARD = REFUSALS["SA029"]
NOT_PRIMARY = REFUSALS["SA030"]

BAD_REQUEST = ProblemType(400, "bad_request", "Bad request", "Invalid HTTP request received.")
MALFORMED_JSON = ProblemType(
    400, "malformed_json", "Malformed JSON", "The body is not valid JSON (RFC 8259).",
)
INVALID_SIGNATURE = ProblemType(
    401, "invalid_signature", "Invalid webhook signature",
    "The webhook's signature is missing, stale or wrong; the detail says which.",
)
INVALID_TOKEN = ProblemType(
    401, "invalid_token", "Invalid buyer token",
    "The bearer token is expired, is for another audience or matches no key; the detail says which.",
    challenge='Bearer error="invalid_token"',
)
NOT_FOUND = ProblemType(404, "not_found", "Not found", "No resource has this path.")
METHOD_NOT_ALLOWED = ProblemType(
    405, "method_not_allowed", "Method not allowed",
    "The resource does not support this method; the Allow header lists the supported ones.",
)
REQUEST_TIMEOUT = ProblemType(
    408, "request_timeout", "Request timeout", "The request was not received completely within 10 seconds.",
)
PAYLOAD_TOO_LARGE = ProblemType(
    413, "payload_too_large", "Payload too large",
    "The request body exceeds 16384 bytes; that of a webhook, 262144.",
)
UNSUPPORTED_MEDIA_TYPE = ProblemType(
    415, "unsupported_media_type", "Unsupported media type", "The body must be application/json in UTF-8.",
)
HEADERS_TOO_LARGE = ProblemType(
    431, "headers_too_large", "Request header fields too large",
    "The request line and the headers exceed 65536 bytes.",
)
INTERNAL_ERROR = ProblemType(
    500, "internal_error", "Internal error",
    "The request failed unexpectedly. The server's log has the cause under this response's X-Request-ID.",
)
OVERLOADED = ProblemType(
    503, "overloaded", "Overloaded", "Too many requests are waiting. Nothing was done; try again.",
    retry_after=1,
)
BUSY = ProblemType(
    503, "busy", "Resource locked",
    "A row that this request needs stayed locked. Nothing was done; try again.", retry_after=1,
)
NOT_READY = ProblemType(
    503, "not_ready", "Not ready",
    "The database cannot be reached, has another version of the schema, or cannot serve the sale.",
    retry_after=1,
)
UNAVAILABLE = ProblemType(
    503, "unavailable", "Database unavailable",
    "The database cannot be reached. Nothing was done; try again.", retry_after=1,
)
OUTCOME_UNKNOWN = ProblemType(
    503, "outcome_unknown", "Outcome unknown",
    "The request may or may not have taken effect. A retry with the same idempotency key is safe.",
    retry_after=1,
)
# fmt: on

BY_STATUS = {
    type_.status: type_
    for type_ in (
        BAD_REQUEST,
        NOT_FOUND,
        METHOD_NOT_ALLOWED,
        PAYLOAD_TOO_LARGE,
        UNSUPPORTED_MEDIA_TYPE,
        INTERNAL_ERROR,
        UNAVAILABLE,
    )
}
"""By status: problem types for errors that Falcon raises."""


class Problem(Exception):
    """Raised wherever a request cannot go on; an error handler below responds with it."""

    def __init__(self, type_: ProblemType, detail: str = "") -> None:
        super().__init__(detail)
        self.type = type_
        self.detail = detail or type_.detail


class RefusedRow(Protocol):
    """A row of a set-based function whose request was refused."""

    @property
    def sqlstate(self) -> str | None: ...
    @property
    def detail(self) -> str | None: ...


_encode = msgspec.json.Encoder().encode
_STATUS_LINE = {status.value: f"{status.value} {status.phrase}" for status in http.HTTPStatus}


def type_uri(type_: ProblemType) -> str:
    """The URI reference that identifies a problem type; it leads to the type's documentation."""
    return f"/problems/{type_.code}"


def encode_problem(type_: ProblemType, detail: str, **members: Any) -> bytes:
    """A problem details object.

    :param members: extension members (RFC 9457, 3.2)
    """
    return _encode(
        {
            "type": type_uri(type_),
            "title": type_.title,
            "status": type_.status,
            "detail": detail,
            "code": type_.code,
            **members,
        }
    )


def respond_problem(resp: Response, type_: ProblemType, detail: str, **members: Any) -> None:
    """Respond with a problem."""
    metrics.problems.by_labels[(type_.code,)] += 1
    resp.status = _STATUS_LINE[type_.status]
    resp.content_type = MEDIA_TYPE
    if type_.retry_after is not None:
        resp.set_header("Retry-After", str(type_.retry_after))
    if type_.challenge is not None:
        resp.set_header("WWW-Authenticate", type_.challenge)
    resp.data = encode_problem(type_, detail, **members)


def problem_of_refusal(row: RefusedRow) -> Problem:
    """The problem of the refusal in a row; unavailable if this server does not know it."""
    if row.sqlstate not in REFUSALS:
        log.error("unknown refusal %s: the database has a newer schema than this server", row.sqlstate)
    return Problem(REFUSALS.get(row.sqlstate or "", UNAVAILABLE), row.detail or "")


def respond_refusal(resp: Response, row: RefusedRow, **members: Any) -> None:
    """Respond with the refusal in a row."""
    problem = problem_of_refusal(row)
    respond_problem(resp, problem.type, problem.detail, **members)


def problem_of_rollback(error: RolledBack) -> Problem:
    """The problem of a request whose call, alone in its batch, was rolled back."""
    type_ = REFUSALS.get(error.sqlstate, UNAVAILABLE)
    if type_ not in (UNAVAILABLE, WRONG_SHARD):  # the latter is never shown: not all databases are configured
        return Problem(type_, str(error))
    if error.sqlstate.startswith("22"):
        return Problem(INVALID_REQUEST, "A value in the request is outside the database's range.")
    return Problem(UNAVAILABLE, "The database rejected the call. Nothing was done.")


def install(app: falcon.asgi.App[Any, Any]) -> None:
    """Have the application respond to every error, its own and Falcon's, with problem details."""
    app.add_error_handler(Exception, _unexpected)
    app.add_error_handler(falcon.HTTPError, _falcon_error)
    app.add_error_handler(Problem, _problem)
    app.add_error_handler(Overloaded, _always(OVERLOADED))
    app.add_error_handler(Busy, _always(BUSY))
    app.add_error_handler(Unavailable, _always(UNAVAILABLE))
    app.add_error_handler(OutcomeUnknown, _always(OUTCOME_UNKNOWN))
    app.add_error_handler(RolledBack, _rolled_back)


async def _problem(req: Request, resp: Response, error: Problem, params: Any) -> None:
    respond_problem(resp, error.type, error.detail)


async def _falcon_error(req: Request, resp: Response, error: falcon.HTTPError, params: Any) -> None:
    status = error.status_code
    type_ = BY_STATUS.get(status)
    if type_ is None:
        phrase = http.HTTPStatus(status).phrase
        type_ = ProblemType(status, f"http_{status}", phrase, phrase)
    resp.set_headers(error.headers or {})
    respond_problem(resp, type_, error.description or type_.detail)


def _always(type_: ProblemType) -> Callable[[Request, Response, Exception, Any], Awaitable[None]]:
    async def handle(req: Request, resp: Response, error: Exception, params: Any) -> None:
        respond_problem(resp, type_, type_.detail)

    return handle


async def _rolled_back(req: Request, resp: Response, error: RolledBack, params: Any) -> None:
    """The request's call, alone in its batch, was rolled back: a data exception (class 22), or a defect."""
    if error.sqlstate not in REFUSALS:
        log.error("a request failed: %s", error, extra={"request_id": resp.get_header("X-Request-ID")})
    problem = problem_of_rollback(error)
    respond_problem(resp, problem.type, problem.detail)


async def _unexpected(req: Request, resp: Response, error: Exception, params: Any) -> None:
    log.error("a request failed", exc_info=error, extra={"request_id": resp.get_header("X-Request-ID")})
    respond_problem(resp, INTERNAL_ERROR, INTERNAL_ERROR.detail)
