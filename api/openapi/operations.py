"""All operations of the HTTP interface: the table that /openapi.json is made of.

Shapes are the Structs of api/schemas/, problems are those of api/problems.py. A test
(tests/api/test_openapi_examples.py) compares every example with the responses of a running server.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from api import problems
from api.openapi.operation import Operation, Parameter, ProblemExample, SuccessResponse
from api.schemas import fields, parameters, requests, responses, webhook_body
from api.schemas.fields import HoldId, OrderId, ProductId
from api.telemetry.request_id import PATTERN


def is_page(path: str) -> bool:
    """Whether a route serves people: the live page, the documentation, and their files."""
    return path in ("/", "/docs", "/openapi.json") or path.startswith(("/page/", "/docs/", "/problems/"))


ABOUT = f"""\
A checkout for a flash sale: reserve units (a **hold**), turn the hold into an **order**, and have the payment
provider report (a **webhook**). Nothing is oversold, and stock is exact at the instant of each response.

**Errors** are problem details ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)). Branch on `code`;
`detail` is for people and may change. No input causes a 500.

**Safe retries.** `Idempotency-Key` identifies the intent, not the attempt: a retry with the same key, after a
lost response or a 503, has no second effect. The response to a retry has the first status, the resource in
its current state, and `Idempotency-Replayed: true`. The same key with another body is refused without effect.
A refused request leaves its key unused. A 503 has `Retry-After`; only after `outcome_unknown` may the request
have taken effect.

**Buyers.** A product may have a limit for each buyer. The buyer is the `sub` of a token that the shop signs
for its customer (`Authorization: Bearer`); a token that is not valid is refused, whatever the product.

**Values.** Times are RFC 3339 in UTC and end in `Z`. Money is a decimal string with an ISO 4217 currency.
A body is strict JSON in UTF-8 of at most {requests.MAX_BODY_BYTES // 1024} KiB (a webhook:
{webhook_body.MAX_WEBHOOK_BYTES // 1024} KiB), without duplicate members;
`1.0` and `true` are not integers. Unknown members are refused, except in a webhook. Responses may gain
members.

**All paths.** `HEAD` is supported wherever `GET` is, and `OPTIONS` everywhere. Other methods are refused with
`method_not_allowed` (405) and `Allow`; unknown paths with `not_found` (404).

**Other origins.** Pages of the origins in the server's `FLASHSALE_CORS_ORIGINS` may call all but the webhook
from a browser (CORS), without credentials.
"""

TAGS = {
    "Products": "Products and their stock, exact at the instant of the response.",
    "Holds": "Units reserved for one buyer, by default for 2 minutes.",
    "Orders": "Ordered holds. An order awaits payment, by default for 15 minutes.",
    "Payments": "Events of the payment provider.",
    "Health": "For process supervisors and load balancers.",
}

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
EXPIRES_AT = "2025-01-12T10:45:20Z"
ORDERED_AT = "2025-01-12T10:44:02.187Z"
DUE_AT = "2025-01-12T10:59:02.200Z"

NO_HOLD = ProblemExample(problems.HOLD_NOT_FOUND, f"There is no hold {HOLD_ID}.")
HOLD_HAS_EXPIRED = ProblemExample(problems.HOLD_EXPIRED, f"Hold {HOLD_ID} expired at 2025-01-12 10:45:20+00.")
NO_PRODUCT = ProblemExample(problems.PRODUCT_NOT_FOUND, "There is no product 1.")

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
PRODUCT_ID = Parameter("product_id", "path", ProductId, 1, required=True)
HOLD = Parameter("hold_id", "path", HoldId, HOLD_ID, required=True)

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
ORDER = Parameter("order_id", "path", OrderId, ORDER_ID, required=True)
HOLD_OF_ORDER = Parameter("hold_id", "query", HoldId, HOLD_ID, required=True)

NOW = "2025-01-12T10:44:02.187Z"
SHOE = responses.Product(1, "Limited sneaker", "99.00", "USD", 50, 38, "open", None, None, None, NOW)
DROP = responses.Product(
    2, "Drop", "149.00", "EUR", 500, 500, "scheduled", "2025-01-12T11:00:00Z", "2025-01-12T23:00:00Z", 2, NOW
)
INVALID_TOKEN = ProblemExample(problems.INVALID_TOKEN, "The token has expired.")


class HoldAlreadyUsedMembers(Struct):
    """Members of hold_already_used in response to POST /api/orders: the existing order."""

    order_id: OrderId
    order_status: fields.OrderStatus


class SaleNotStartedMembers(Struct):
    """Members of sale_not_started."""

    starts_at: fields.Instant


class SaleEndedMembers(Struct):
    """Members of sale_ended."""

    ends_at: fields.Instant


class LimitReachedMembers(Struct):
    """Members of limit_reached: the limit of a buyer, or of one hold."""

    limit: fields.Quantity
    taken: fields.Units
    remaining: fields.Units


class ExtensionRefusedMembers(Struct):
    """Members of extension_refused: when the hold expires."""

    expires_at: fields.Instant


class OrderSettledMembers(Struct):
    """Members of order_settled."""

    order_status: fields.OrderStatus


class NotReadyMembers(Struct):
    """Members of not_ready."""

    database: Literal["reachable", "unreachable"]
    schema: Literal["outdated", "current"] | UnsetType = UNSET
    schema_version: str | UnsetType = UNSET
    schema_digest: str | UnsetType = UNSET
    scheduler: str | UnsetType = UNSET
    scheduler_detail: str | UnsetType = UNSET


MEMBERS: Mapping[str, type[Struct]] = {
    problems.EXTENSION_REFUSED.code: ExtensionRefusedMembers,
    problems.HOLD_ALREADY_USED.code: HoldAlreadyUsedMembers,
    problems.LIMIT_REACHED.code: LimitReachedMembers,
    problems.NOT_READY.code: NotReadyMembers,
    problems.ORDER_SETTLED.code: OrderSettledMembers,
    problems.SALE_ENDED.code: SaleEndedMembers,
    problems.SALE_NOT_STARTED.code: SaleNotStartedMembers,
}
"""Extension members of problems, by code."""

# fmt: off
OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("GET", "/api/products"): Operation(
        "list_products", "Products", "List the products",
        "By ascending id, in pages: follow `Link` until a response has none. Test products are not listed.",
        responses=(SuccessResponse(
            200, "A page of products.", list[responses.Product], {"one product": [SHOE]}, headers=("Link",),
        ),),
        problems=(
            ProblemExample(problems.INVALID_REQUEST, "Parameter limit must be an integer from 1 to 1000."),
            *READ_PROBLEMS,
        ),
        parameters=(
            Parameter(
                "after", "query",
                Annotated[
                    int,
                    Meta(
                        ge=0, le=fields.MAX_BIGINT,
                        description="The last id of the previous page; 0 for the first page.",
                        extra_json_schema={"default": 0},
                    ),
                ],
                0,
            ),
            Parameter(
                "limit", "query",
                Annotated[
                    int,
                    Meta(
                        ge=1, le=parameters.MAX_PAGE_SIZE, description="Products on a page.",
                        extra_json_schema={"default": parameters.DEFAULT_PAGE_SIZE},
                    ),
                ],
                1,
            ),
        ),
    ),
    ("GET", "/api/products/{product_id}"): Operation(
        "get_product", "Products", "Get a product", "Its available stock is never older than the request.",
        responses=(SuccessResponse(
            200, "The product.", responses.Product, {"on sale": SHOE, "scheduled": DROP},
        ),),
        problems=(NO_PRODUCT, *READ_PROBLEMS), parameters=(PRODUCT_ID,),
    ),
    ("GET", "/api/products/{product_id}/allowance"): Operation(
        "get_allowance", "Products", "Get a buyer's allowance",
        "How many units the buyer may still take, at the instant of the response. What a hold takes comes "
        "back when it lapses; what is paid counts for ever.",
        responses=(SuccessResponse(
            200, "The allowance.", responses.Allowance,
            {
                "limited": responses.Allowance(2, 1, 1),
                "without a limit": responses.Allowance(None, None, None),
            },
        ),),
        problems=(
            NO_PRODUCT,
            ProblemExample(
                problems.INVALID_REQUEST,
                "An allowance is of a product and a buyer, a text of 1 to 255 characters.",
            ),
            INVALID_TOKEN, *READ_PROBLEMS,
        ),
        parameters=(PRODUCT_ID, BUYER), has_buyer=True,
    ),
    ("GET", "/api/products/{product_id}/live"): Operation(
        "watch_product", "Products", "Watch a product's stock",
        "An endless stream of Server-Sent Events; `curl -N` shows it. First `history`, an array of "
        "samples: the changes of the last two minutes, or since `Last-Event-ID`. Then `stock`, a sample with "
        "the terms of the sale, whenever either differs from before. `unavailable`, with `code` and `title`, "
        "means that the database does not respond; a sample follows when it does again. A comment is sent "
        "every 5 seconds without an event.",
        responses=(SuccessResponse(
            200,
            "The stream. The `data` of its events is JSON made of samples, such as "
            '`{"at":"2025-01-12T10:44:02.187Z","available":38,"held":8,"awaiting":3,"paid":1}`; '
            "event `stock` has `sale_status`, `starts_at`, `ends_at` and `max_per_buyer` in addition.",
            str, {"first event": "event: history\nretry: 2000\ndata: []\n\n"}, media_type="text/event-stream",
        ),),
        problems=(NO_PRODUCT, *READ_PROBLEMS),
        parameters=(
            PRODUCT_ID,
            Parameter(
                "Last-Event-ID", "header",
                Annotated[str, Meta(description="The id of the last event received, to resume after it.")],
                "1736678642187",
            ),
        ),
    ),
    ("POST", "/api/holds"): Operation(
        "place_hold", "Holds", "Reserve units",
        "All of `qty` or nothing. The units become available again when the hold expires or is released.",
        responses=(SuccessResponse(
            201, "The hold. For a replay, the existing hold in its current state.", responses.Hold,
            {"placed": responses.Hold(HOLD_ID, 1, 1, "active", EXPIRES_AT)},
            headers=("Location", "Idempotency-Replayed"),
            links={
                "get_hold": {"hold_id": "$response.body#/hold_id"},
                "release_hold": {"hold_id": "$response.body#/hold_id"},
                "create_order": {"body": {"hold_id": "$response.body#/hold_id"}},
            },
        ),),
        problems=(
            NO_PRODUCT, ProblemExample(problems.INSUFFICIENT_STOCK, "Product 1 has 38 available, not 39."),
            ProblemExample(
                problems.SALE_NOT_STARTED, "The sale of product 1 starts at 2025-01-12 11:00:00+00.",
                {"starts_at": "2025-01-12T11:00:00Z"},
            ),
            ProblemExample(
                problems.SALE_ENDED, "The sale of product 1 ended at 2025-01-12 10:00:00+00.",
                {"ends_at": "2025-01-12T10:00:00Z"},
            ),
            ProblemExample(problems.SALE_PAUSED, "The sale of product 1 is paused."),
            ProblemExample(problems.SALE_CANCELLED, "The sale of product 1 was cancelled."),
            ProblemExample(
                problems.BUYER_REQUIRED,
                "Product 1 has a limit for each buyer, and the request names none.",
            ),
            ProblemExample(
                problems.LIMIT_REACHED,
                "A buyer gets at most 2 of product 1; this one has 1 and wants 2 more.",
                {"limit": 2, "taken": 1, "remaining": 1},
            ),
            ProblemExample(
                problems.IDEMPOTENCY_KEY_REUSED,
                "This idempotency key came with another product, quantity or buyer.",
            ),
            ProblemExample(problems.INVALID_REQUEST, "Object missing required field `qty`."), INVALID_TOKEN,
            *BODY_PROBLEMS, *WRITE_PROBLEMS,
        ),
        parameters=(IDEMPOTENCY_KEY,), body=requests.NewHold,
        requests={
            "one unit": requests.NewHold(1, 1),
            "for a buyer": requests.NewHold(1, 1, "customer-4711"),
        },
        has_buyer=True,
    ),
    ("GET", "/api/holds/{hold_id}"): Operation(
        "get_hold", "Holds", "Get a hold", "The id is the proof of ownership.",
        responses=(SuccessResponse(
            200, "The hold, with its order if it has been ordered.", responses.Hold,
            {
                "active": responses.Hold(HOLD_ID, 1, 1, "active", EXPIRES_AT),
                "ordered": responses.Hold(
                    HOLD_ID, 1, 1, "ordered", EXPIRES_AT, responses.OrderOfHold(ORDER_ID, "pending_payment"),
                ),
            },
        ),),
        problems=(NO_HOLD, *READ_PROBLEMS), parameters=(HOLD,),
    ),
    ("DELETE", "/api/holds/{hold_id}"): Operation(
        "release_hold", "Holds", "Release a hold",
        "The units become available again. Releasing a released hold has no effect.",
        responses=(SuccessResponse(204, "The hold is released."),),
        problems=(
            NO_HOLD,
            ProblemExample(problems.HOLD_ALREADY_USED, f"Hold {HOLD_ID} has become order {ORDER_ID}."),
            HOLD_HAS_EXPIRED, *WRITE_PROBLEMS,
        ),
        parameters=(HOLD,),
    ),
    ("POST", "/api/holds/{hold_id}/extension"): Operation(
        "extend_hold", "Holds", "Extend a hold",
        "By default by a minute, once. `expires_at` is the end that the caller has seen: a hold that ends "
        "later has been extended already, and is not extended again.",
        responses=(SuccessResponse(
            200, "The hold, which ends later, now or since an earlier request.", responses.Hold,
            {"extended": responses.Hold(HOLD_ID, 1, 1, "active", "2025-01-12T10:46:20Z")},
            headers=("Idempotency-Replayed",),
        ),),
        problems=(
            NO_HOLD,
            ProblemExample(problems.HOLD_ALREADY_USED, f"Hold {HOLD_ID} has become an order."),
            ProblemExample(
                problems.EXTENSION_REFUSED,
                f"Hold {HOLD_ID} has been extended as often as it may, and expires at "
                "2025-01-12 10:46:20+00.",
                {"expires_at": "2025-01-12T10:46:20Z"},
            ),
            ProblemExample(problems.HOLD_RELEASED, f"Hold {HOLD_ID} was released."), HOLD_HAS_EXPIRED,
            ProblemExample(problems.INVALID_REQUEST, "Object missing required field `expires_at`."),
            *BODY_PROBLEMS, *WRITE_PROBLEMS,
        ),
        parameters=(HOLD,), body=requests.Extension,
        requests={"the end that was seen": requests.Extension(EXPIRES_AT)},
    ),
    ("POST", "/api/orders"): Operation(
        "create_order", "Orders", "Order a hold",
        "If the payment's webhook arrived before, the order is `paid` or `cancelled` at once.",
        responses=(SuccessResponse(
            201, "The order. For a replay, the existing order in its current state.", responses.CreatedOrder,
            {
                "awaiting payment": responses.CreatedOrder(
                    ORDER_ID, "pending_payment", "99.00", "USD", DUE_AT,
                ),
                "paid before": responses.CreatedOrder(ORDER_ID, "paid", "99.00", "USD", DUE_AT),
            },
            headers=("Idempotency-Replayed",),
            links={
                "get_order": {"order_id": "$response.body#/order_id", "hold_id": "$request.body#/hold_id"},
                "apply_payment": {"body": {
                    "idempotency_key": "pay_{$response.body#/order_id}:success",
                    "order_id": "$response.body#/order_id",
                    "status": "success",
                }},
            },
        ),),
        problems=(
            NO_HOLD,
            ProblemExample(
                problems.HOLD_ALREADY_USED,
                f"Hold {HOLD_ID} has become order {ORDER_ID}, which is pending_payment.",
                {"order_id": ORDER_ID, "order_status": "pending_payment"},
            ),
            ProblemExample(problems.HOLD_RELEASED, f"Hold {HOLD_ID} was released."), HOLD_HAS_EXPIRED,
            ProblemExample(problems.IDEMPOTENCY_KEY_REUSED, "This idempotency key came with another hold."),
            ProblemExample(problems.INVALID_REQUEST, "Expected `int`, got `str` - at `$.hold_id`."),
            *BODY_PROBLEMS, *WRITE_PROBLEMS,
        ),
        parameters=(IDEMPOTENCY_KEY,), body=requests.NewOrder,
        requests={"a hold": requests.NewOrder(HOLD_ID)},
    ),
    ("GET", "/api/orders/{order_id}"): Operation(
        "get_order", "Orders", "Get an order",
        "Order ids are sequential, so `hold_id` is required as the proof of ownership.",
        responses=(SuccessResponse(
            200, "The order.", responses.Order,
            {
                "awaiting payment": responses.Order(
                    ORDER_ID, 1, 1, "pending_payment", "99.00", "USD", ORDERED_AT, DUE_AT,
                ),
                "cancelled": responses.Order(
                    ORDER_ID, 1, 1, "cancelled", "99.00", "USD", ORDERED_AT, DUE_AT, "payment_failed",
                ),
            },
        ),),
        problems=(
            ProblemExample(problems.ORDER_NOT_FOUND, f"There is no order {ORDER_ID} with this hold_id."),
            *READ_PROBLEMS,
        ),
        parameters=(ORDER, HOLD_OF_ORDER),
    ),
    ("DELETE", "/api/orders/{order_id}"): Operation(
        "abandon_order", "Orders", "Abandon an order",
        "The buyer gives a pending order back: it is cancelled, and its units become available again. "
        "Abandoning a cancelled order has no effect. A payment that comes later is due back.",
        responses=(SuccessResponse(204, "The order is abandoned."),),
        problems=(
            ProblemExample(problems.ORDER_NOT_FOUND, f"There is no order {ORDER_ID} with this hold_id."),
            ProblemExample(
                problems.ORDER_SETTLED, f"Order {ORDER_ID} is paid.", {"order_status": "paid"},
            ),
            *WRITE_PROBLEMS,
        ),
        parameters=(ORDER, HOLD_OF_ORDER),
    ),
    ("POST", "/api/payments/webhook"): Operation(
        "apply_payment", "Payments", "Report a payment",
        "For the payment provider; deliveries may be repeated and in any order. A replay with the same "
        "`idempotency_key` has no second effect and gets the recorded result. A webhook that arrives before "
        "its order is stored until then. Replays are compared by `order_id`, `status`, `amount` and "
        "`currency`; other members are stored with the event. A signed webhook that is refused is kept for "
        "the operators, and removed when it is served under the same `webhook-id`.",
        responses=(
            SuccessResponse(
                200, "The webhook was applied, now or before.", responses.Payment,
                {
                    "paid": responses.Payment(ORDER_ID, "paid", "applied"),
                    "cancelled": responses.Payment(ORDER_ID, "cancelled", "applied"),
                    "failed after success": responses.Payment(ORDER_ID, "paid", "no_change"),
                    "declined": responses.Payment(ORDER_ID, "pending_payment", "no_change"),
                    "paid twice": responses.Payment(ORDER_ID, "paid", "refund_due"),
                    "another amount": responses.Payment(ORDER_ID, "pending_payment", "amount_mismatch"),
                },
                headers=("Idempotency-Replayed",),
            ),
            SuccessResponse(
                202,
                "The order does not exist yet: the webhook is stored, by default for 24 hours. A replay "
                "returns what has become of it.",
                responses.StoredPayment, {"stored": responses.StoredPayment(ORDER_ID, None, "stored")},
                headers=("Idempotency-Replayed",),
            ),
        ),
        problems=(
            ProblemExample(
                problems.INVALID_SIGNATURE,
                "Missing signature headers: webhook-timestamp, webhook-signature.",
            ),
            ProblemExample(
                problems.IDEMPOTENCY_KEY_REUSED,
                "This idempotency key came with another order, status, amount or currency.",
            ),
            ProblemExample(problems.INVALID_REQUEST, "Invalid enum value 'refunded' - at `$.status`."),
            ProblemExample(problems.INBOX_FULL, "Too many webhooks wait for orders that do not exist."),
            *BODY_PROBLEMS, *WRITE_PROBLEMS,
        ),
        body=requests.PaymentEvent,
        requests={
            "success": requests.PaymentEvent("pay_abc_123:success", ORDER_ID, "success"),
            "success, with the amount": requests.PaymentEvent(
                "pay_abc_123:success", ORDER_ID, "success", "99.00", "USD",
            ),
            "failed": requests.PaymentEvent("pay_abc_124:failed", ORDER_ID, "failed"),
            "declined": requests.PaymentEvent("pay_abc_125:declined", ORDER_ID, "declined"),
        },
        signed=True,
    ),
    ("POST", "/api/payments/webhook/{provider}"): Operation(
        "take_provider_webhook", "Payments", "Report a payment, in a provider's own words",
        "For Stripe and Adyen, as they send it. Its effect is that of `POST /api/payments/webhook` with the "
        "key `stripe:` or `adyen:`, the payment, and the status. Events that concern no order of this shop "
        "are ignored. What a further delivery cannot mend is answered 200 and kept for the operators.",
        responses=(SuccessResponse(200, "Taken, in the words that the provider expects."),),
        problems=(
            ProblemExample(
                problems.INVALID_SIGNATURE, "The request is not signed: it has no header Stripe-Signature."
            ),
            ProblemExample(
                problems.NOT_FOUND, "No secret of a payment provider 'adyen' is configured.",
            ),
            ProblemExample(problems.INBOX_FULL, "Too many webhooks wait for orders that do not exist."),
            problems.PAYLOAD_TOO_LARGE, *WRITE_PROBLEMS,
        ),
        parameters=(
            Parameter(
                "provider", "path", Annotated[str, Meta(description="`stripe` or `adyen`.")], "stripe",
                required=True,
            ),
        ),
    ),
    ("GET", "/healthz"): Operation(
        "alive", "Health", "Is the process alive?", "The database is not checked.",
        responses=(SuccessResponse(200, "Yes.", responses.Alive, {"alive": responses.Alive("alive")}),),
    ),
    ("GET", "/readyz"): Operation(
        "ready", "Health", "Can requests be served?",
        "Whether the database responds, has this server's schema, and can serve the sale: it is the primary, "
        "writable, and gives out no id twice. The scheduler's state is reported, but "
        "responses are exact without it.",
        responses=(SuccessResponse(
            200, "Yes.", responses.Ready,
            {"not scheduled": responses.Ready(
                "ready", "reachable", "current", "0013.refunds", "3f0c2a", "not_scheduled",
                "No job sweeps this database; run flashsale migrate.",
            )},
        ),),
        problems=(ProblemExample(
            problems.NOT_READY, "The schema in the database is not the one on disk: run `flashsale migrate`.",
            {
                "database": "reachable",
                "schema": "outdated",
                "schema_version": "0013.refunds",
                "schema_digest": "3f0c2a",
                "scheduler": "not_scheduled",
                "scheduler_detail": "No job sweeps this database; run flashsale migrate.",
            },
        ),),
    ),
}
# fmt: on
"""By method and path, without HEAD and OPTIONS."""

SHAPES: tuple[Any, ...] = (responses.StockSample, responses.StockEvent)
"""described although they are not bodies: the data of events is made of samples"""
