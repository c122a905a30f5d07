"""What each call of the HTTP interface takes and answers: the table that /openapi.json is made of.

The shapes are the Structs that the code reads and writes (api/schemas/), the problems its
table (api/problems.py). What is told here beside them is held against a running server by
tests/api/test_openapi.py: each example is sent, or brought about, and compared with what comes.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

from msgspec import UNSET, Meta, Struct, UnsetType

from api import problems
from api.problems import Kind
from api.resources import products
from api.schemas import requests as bodies
from api.schemas import responses as answers
from api.schemas.requests import HoldId, OrderId, ProductId
from api.stock_feed import Sample
from api.telemetry.request_id import SANE

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Parameter(NamedTuple):
    """What a request says outside its body.

    :param where: path, query or header
    :param shape: its type, with a description
    """

    name: str
    where: str
    shape: Any
    example: Any
    required: bool = False


class Answer(NamedTuple):
    """A success.

    :param shape: of the body; None if there is none
    :param examples: bodies by name
    :param headers: beyond those that every response has
    :param leads_to: what to ask next: by operation id, its parameters (or "body") as runtime expressions
    """

    status: int
    description: str
    shape: Any = None
    examples: Mapping[str, Any] = NOTHING
    headers: tuple[str, ...] = ()
    media_type: str = "application/json"
    leads_to: Mapping[str, Mapping[str, Any]] = NOTHING


class Refusal(NamedTuple):
    """A problem as one operation puts it.

    :param detail: an example
    :param members: extension members (RFC 9457, 3.2), by example
    """

    kind: Kind
    detail: str
    members: Mapping[str, Any] = NOTHING


class Operation(NamedTuple):
    """One method of one path.

    :param id: a name for generated clients, that of the SQL function where there is one
    :param problems: those special to it; a Kind where its own detail says it all
    :param body: shape of the request's body
    :param requests: bodies by name
    :param signed: takes a webhook signature
    """

    id: str
    tag: str
    summary: str
    description: str
    answers: tuple[Answer, ...]
    problems: tuple[Kind | Refusal, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    body: type[Struct] | None = None
    requests: Mapping[str, Struct] = NOTHING
    signed: bool = False


def is_page(path: str) -> bool:
    """Whether a route is for people: the live page, the documentation, and what they are made of."""
    return path in ("/", "/docs", "/openapi.json") or path.startswith(("/page/", "/docs/", "/problems/"))


ABOUT = f"""\
A checkout for a flash sale: reserve units (a **hold**), turn the hold into an **order**, and have the payment
provider report (a **webhook**). Nothing is oversold, and stock is exact at the instant of each answer.

**Errors** are problem details ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)). Branch on `code`;
`detail` is for people and may change. No input makes a 500.

**Try again safely.** `Idempotency-Key` names what you want, not the attempt: send the same key again after a
lost answer or a 503, and it happens once. The repeat is answered with the first status and the resource as it
now stands, and with `Idempotency-Replayed: true`. The same key with another body is refused without effect.
A refused request leaves its key unused. A 503 says in `Retry-After` when; only after `outcome_unknown` may
something have happened.

**Values.** Times are RFC 3339 in UTC and end in `Z`. Money is a decimal string with an ISO 4217 currency.
A body is strict JSON in UTF-8 of at most {bodies.MAX_BYTES // 1024} KiB, without duplicate members; `1.0` and
`true` are no integers. Members that are not described are refused, except in a webhook. Answers may gain
members.

**Everywhere.** A path that takes `GET` takes `HEAD`, and every path takes `OPTIONS`. Other methods are
answered `method_not_allowed` (405) with `Allow`; unknown paths, `not_found` (404).
"""

TAGS = {
    "Products": "What is on sale, and how much of it there is at this instant.",
    "Holds": "Units reserved for one buyer, for 2 minutes unless the operator has said otherwise.",
    "Orders": "What a hold becomes. It awaits payment for 15 minutes unless the operator has said otherwise.",
    "Payments": "The payment provider's word.",
    "Health": "For whoever watches over the server.",
}

ANY_REQUEST = (
    problems.BAD_REQUEST,
    problems.REQUEST_TIMEOUT,
    problems.HEADERS_TOO_LARGE,
    problems.INTERNAL_ERROR,
)
"""whatever is asked: what was no HTTP, and faults of the server's own"""
NO_OPERATION = (problems.NOT_FOUND, problems.METHOD_NOT_ALLOWED)
"""answers to paths and methods that are not described here"""
WITH_BODY = (
    Refusal(problems.MALFORMED_JSON, "The body is no JSON: Expecting value: line 1 column 1 (char 0)."),
    problems.PAYLOAD_TOO_LARGE,
    problems.UNSUPPORTED_MEDIA_TYPE,
)
READS = (problems.OVERLOADED, problems.UNAVAILABLE)
WRITES = (problems.OVERLOADED, problems.BUSY, problems.UNAVAILABLE, problems.OUTCOME_UNKNOWN)

HOLD_ID = 4872316950284173
ORDER_ID = 99
EXPIRES_AT = "2025-01-12T10:45:20Z"
ORDERED_AT = "2025-01-12T10:44:02.187Z"
DUE_AT = "2025-01-12T10:59:02.200Z"

NO_HOLD = Refusal(problems.HOLD_NOT_FOUND, f"There is no hold {HOLD_ID}.")
HOLD_LAPSED = Refusal(problems.HOLD_EXPIRED, f"Hold {HOLD_ID} expired at 2025-01-12 10:45:20+00.")
NO_PRODUCT = Refusal(problems.PRODUCT_NOT_FOUND, "There is no product 1.")

REQUEST_ID = Parameter(
    "X-Request-ID",
    "header",
    Annotated[
        str,
        Meta(
            description="Yours, to find the request in the log. It comes back on the response if it matches "
            f"`{SANE}`; otherwise a new one does."
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
            pattern=f"^{bodies.IDEMPOTENCY_KEY}$",
            description="Names what this request wants: repeated with the same key it has no second effect. "
            "1 to 255 visible ASCII characters.",
        ),
    ],
    "cart-7",
)
PRODUCT_ID = Parameter("product_id", "path", ProductId, 1, required=True)
HOLD = Parameter("hold_id", "path", HoldId, HOLD_ID, required=True)

SHOE = answers.Product(1, "Limited sneaker", "99.00", "USD", 50, 38)


class OrderOfUsedHold(Struct):
    """Members of hold_already_used where an order was asked for: the order that there is."""

    order_id: OrderId | UnsetType = UNSET
    order_status: answers.OrderStatus | UnsetType = UNSET


class WhatIsNotReady(Struct):
    """Members of not_ready."""

    database: Literal["reachable", "unreachable"]
    schema: Literal["outdated"] | UnsetType = UNSET
    schema_version: str | UnsetType = UNSET
    schema_digest: str | UnsetType = UNSET
    scheduler: str | UnsetType = UNSET
    scheduler_detail: str | UnsetType = UNSET


MEMBERS: Mapping[str, type[Struct]] = {
    problems.HOLD_ALREADY_USED.code: OrderOfUsedHold,
    problems.NOT_READY.code: WhatIsNotReady,
}
"""Extension members of problems, by code."""

OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("GET", "/api/products"): Operation(
        "list_products",
        "Products",
        "List the products",
        "By ascending id, in pages: follow `Link` until there is none.",
        answers=(
            Answer(
                200, "A page of products.", list[answers.Product], {"one product": [SHOE]}, headers=("Link",)
            ),
        ),
        problems=(
            Refusal(problems.INVALID_REQUEST, "Parameter limit must be a whole number from 1 to 1000."),
            *READS,
        ),
        parameters=(
            Parameter(
                "after",
                "query",
                Annotated[
                    int,
                    Meta(
                        ge=0,
                        le=bodies.MAX_BIGINT,
                        description="The last id of the page before; 0 begins.",
                        extra_json_schema={"default": 0},
                    ),
                ],
                0,
            ),
            Parameter(
                "limit",
                "query",
                Annotated[
                    int,
                    Meta(
                        ge=1,
                        le=products.LONGEST_PAGE,
                        description="Products on a page.",
                        extra_json_schema={"default": products.PAGE},
                    ),
                ],
                1,
            ),
        ),
    ),
    ("GET", "/api/products/{product_id}"): Operation(
        "get_product",
        "Products",
        "Look at a product",
        "Its stock is never older than the request.",
        answers=(Answer(200, "The product.", answers.Product, {"on sale": SHOE}),),
        problems=(NO_PRODUCT, *READS),
        parameters=(PRODUCT_ID,),
    ),
    ("GET", "/api/products/{product_id}/live"): Operation(
        "watch_product",
        "Products",
        "Watch a product's stock",
        "A stream of Server-Sent Events without an end; `curl -N` shows it. First `history`, an array of "
        "samples: the changes of the last two minutes, or since `Last-Event-ID`. Then `stock`, a sample, "
        "whenever it differs from the one before. `trouble`, with `code` and `title`, says that the database "
        "gives no answer; a sample follows when it does again. A comment every 5 seconds says that the "
        "connection is alive.",
        answers=(
            Answer(
                200,
                "The stream. `data` of its events is JSON made of samples, such as "
                '`{"at":"2025-01-12T10:44:02.187Z","available":38,"held":8,"awaiting":3,"paid":1}`.',
                str,
                {"first event": "event: history\nretry: 2000\ndata: []\n\n"},
                media_type="text/event-stream",
            ),
        ),
        problems=(NO_PRODUCT, *READS),
        parameters=(
            PRODUCT_ID,
            Parameter(
                "Last-Event-ID",
                "header",
                Annotated[str, Meta(description="The id of the last event seen, to go on after it.")],
                "1736678642187",
            ),
        ),
    ),
    ("POST", "/api/holds"): Operation(
        "place_hold",
        "Holds",
        "Reserve units",
        "All of `qty` or nothing. The units go back when the hold expires or is released.",
        answers=(
            Answer(
                201,
                "The hold. For a repeat, the hold that there is, as it now stands.",
                answers.Hold,
                {"placed": answers.Hold(HOLD_ID, 1, 1, "active", EXPIRES_AT)},
                headers=("Location", "Idempotency-Replayed"),
                leads_to={
                    "get_hold": {"hold_id": "$response.body#/hold_id"},
                    "release_hold": {"hold_id": "$response.body#/hold_id"},
                    "create_order": {"body": {"hold_id": "$response.body#/hold_id"}},
                },
            ),
        ),
        problems=(
            NO_PRODUCT,
            Refusal(problems.INSUFFICIENT_STOCK, "Product 1 has 38 available, not 39."),
            Refusal(
                problems.IDEMPOTENCY_KEY_REUSED,
                "This idempotency key has placed a hold for another product or quantity.",
            ),
            Refusal(problems.INVALID_REQUEST, "Object missing required field `qty`."),
            *WITH_BODY,
            *WRITES,
        ),
        parameters=(IDEMPOTENCY_KEY,),
        body=bodies.NewHold,
        requests={"one unit": bodies.NewHold(1, 1)},
    ),
    ("GET", "/api/holds/{hold_id}"): Operation(
        "get_hold",
        "Holds",
        "Look at a hold",
        "For whoever knows its id.",
        answers=(
            Answer(
                200,
                "The hold, and the order that it has become.",
                answers.Hold,
                {
                    "active": answers.Hold(HOLD_ID, 1, 1, "active", EXPIRES_AT),
                    "ordered": answers.Hold(
                        HOLD_ID,
                        1,
                        1,
                        "ordered",
                        EXPIRES_AT,
                        answers.OrderOfHold(ORDER_ID, "pending_payment"),
                    ),
                },
            ),
        ),
        problems=(NO_HOLD, *READS),
        parameters=(HOLD,),
    ),
    ("DELETE", "/api/holds/{hold_id}"): Operation(
        "release_hold",
        "Holds",
        "Give the units back",
        "A released hold may be released again: nothing happens.",
        answers=(Answer(204, "The hold is released."),),
        problems=(
            NO_HOLD,
            Refusal(problems.HOLD_ALREADY_USED, f"Hold {HOLD_ID} has become order {ORDER_ID}."),
            HOLD_LAPSED,
            *WRITES,
        ),
        parameters=(HOLD,),
    ),
    ("POST", "/api/orders"): Operation(
        "create_order",
        "Orders",
        "Order what is held",
        "If the payment's webhook came first, the order is `paid` or `cancelled` from the beginning.",
        answers=(
            Answer(
                201,
                "The order. For a repeat, the order that there is, as it now stands.",
                answers.CreatedOrder,
                {
                    "awaiting payment": answers.CreatedOrder(
                        ORDER_ID, "pending_payment", "99.00", "USD", DUE_AT
                    ),
                    "paid before": answers.CreatedOrder(ORDER_ID, "paid", "99.00", "USD", DUE_AT),
                },
                headers=("Idempotency-Replayed",),
                leads_to={
                    "get_order": {
                        "order_id": "$response.body#/order_id",
                        "hold_id": "$request.body#/hold_id",
                    },
                    "apply_payment": {
                        "body": {
                            "idempotency_key": "pay_{$response.body#/order_id}",
                            "order_id": "$response.body#/order_id",
                            "status": "success",
                        }
                    },
                },
            ),
        ),
        problems=(
            NO_HOLD,
            Refusal(
                problems.HOLD_ALREADY_USED,
                f"Hold {HOLD_ID} has become order {ORDER_ID}, which is pending_payment.",
                {"order_id": ORDER_ID, "order_status": "pending_payment"},
            ),
            Refusal(problems.HOLD_RELEASED, f"Hold {HOLD_ID} was released."),
            HOLD_LAPSED,
            Refusal(problems.IDEMPOTENCY_KEY_REUSED, "This idempotency key came with another hold."),
            Refusal(problems.INVALID_REQUEST, "Expected `int`, got `str` - at `$.hold_id`."),
            *WITH_BODY,
            *WRITES,
        ),
        parameters=(IDEMPOTENCY_KEY,),
        body=bodies.NewOrder,
        requests={"a hold": bodies.NewOrder(HOLD_ID)},
    ),
    ("GET", "/api/orders/{order_id}"): Operation(
        "get_order",
        "Orders",
        "Look at an order",
        "Order ids can be counted, so the hold it was made of must be named too.",
        answers=(
            Answer(
                200,
                "The order.",
                answers.Order,
                {
                    "awaiting payment": answers.Order(
                        ORDER_ID, 1, 1, "pending_payment", "99.00", "USD", ORDERED_AT, DUE_AT
                    ),
                    "cancelled": answers.Order(
                        ORDER_ID, 1, 1, "cancelled", "99.00", "USD", ORDERED_AT, DUE_AT, "payment_failed"
                    ),
                },
            ),
        ),
        problems=(
            Refusal(problems.ORDER_NOT_FOUND, f"There is no order {ORDER_ID} with this hold_id."),
            *READS,
        ),
        parameters=(
            Parameter("order_id", "path", OrderId, ORDER_ID, required=True),
            Parameter("hold_id", "query", HoldId, HOLD_ID, required=True),
        ),
    ),
    ("POST", "/api/payments/webhook"): Operation(
        "apply_payment",
        "Payments",
        "Report a payment",
        "For the payment provider, as often and in whatever order it likes: repeated with the same "
        "`idempotency_key` it has no second effect and gets the recorded result. What came before its order "
        "waits for it. A repeat is compared by `order_id`, `status`, `amount` and `currency`; any other "
        "members are kept.",
        answers=(
            Answer(
                200,
                "The webhook was taken, now or before.",
                answers.Payment,
                {
                    "paid": answers.Payment(ORDER_ID, "paid", "applied"),
                    "cancelled": answers.Payment(ORDER_ID, "cancelled", "applied"),
                    "failed after success": answers.Payment(ORDER_ID, "paid", "no_change"),
                    "paid twice": answers.Payment(ORDER_ID, "paid", "refund_due"),
                    "another amount": answers.Payment(ORDER_ID, "pending_payment", "amount_mismatch"),
                },
                headers=("Idempotency-Replayed",),
            ),
            Answer(
                202,
                "The order is unknown so far: the webhook waits for it, for 24 hours unless the operator has "
                "said otherwise. A repeat tells what has become of it.",
                answers.StoredPayment,
                {"early": answers.StoredPayment(ORDER_ID, None, "stored")},
                headers=("Idempotency-Replayed",),
            ),
        ),
        problems=(
            problems.INVALID_SIGNATURE,
            Refusal(
                problems.IDEMPOTENCY_KEY_REUSED,
                "This idempotency key came with another order, status, amount or currency.",
            ),
            Refusal(problems.INVALID_REQUEST, "Invalid enum value 'refunded' - at `$.status`."),
            Refusal(problems.INBOX_FULL, "Too many webhooks wait for orders that do not exist."),
            *WITH_BODY,
            *WRITES,
        ),
        body=bodies.PaymentEvent,
        requests={
            "success": bodies.PaymentEvent("pay_abc_123", ORDER_ID, "success"),
            "success, with the amount": bodies.PaymentEvent(
                "pay_abc_123", ORDER_ID, "success", "99.00", "USD"
            ),
            "failed": bodies.PaymentEvent("pay_abc_124", ORDER_ID, "failed"),
        },
        signed=True,
    ),
    ("GET", "/healthz"): Operation(
        "alive",
        "Health",
        "Is the process alive?",
        "It asks nobody else.",
        answers=(Answer(200, "Yes.", answers.Alive, {"alive": answers.Alive("alive")}),),
    ),
    ("GET", "/readyz"): Operation(
        "ready",
        "Health",
        "Can requests be served?",
        "Whether the database answers, has this server's schema, and is swept. Without the sweep each answer "
        "is the same, so a dead scheduler is reported, and is no reason to send requests elsewhere.",
        answers=(
            Answer(
                200,
                "Yes.",
                answers.Ready,
                {
                    "nothing sweeps": answers.Ready(
                        "ready",
                        "reachable",
                        "current",
                        "0003.inbox-deadlines",
                        "3f0c2a",
                        "not_scheduled",
                        "No job sweeps this database; run flashsale migrate.",
                    )
                },
            ),
        ),
        problems=(
            Refusal(
                problems.NOT_READY,
                "The schema in the database is not the one on disk: run `flashsale migrate`.",
                {
                    "database": "reachable",
                    "schema": "outdated",
                    "schema_version": "0003.inbox-deadlines",
                    "schema_digest": "3f0c2a",
                    "scheduler": "not_scheduled",
                    "scheduler_detail": "No job sweeps this database; run flashsale migrate.",
                },
            ),
        ),
    ),
}
"""By method and path. HEAD is GET's, and OPTIONS is everywhere: neither is listed."""

SHAPES: tuple[Any, ...] = (Sample,)
"""described although no body is one: a sample is in the data of an event"""
