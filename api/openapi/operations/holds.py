"""Operations of the tag Holds."""

from collections.abc import Mapping

from api import problems
from api.openapi.operation import Operation, Parameter, ProblemExample, SuccessResponse
from api.openapi.operations.shared import (
    BODY_PROBLEMS,
    HOLD_HAS_EXPIRED,
    HOLD_ID,
    IDEMPOTENCY_KEY,
    INVALID_TOKEN,
    NO_HOLD,
    NO_PRODUCT,
    ORDER_ID,
    READ_PROBLEMS,
    WRITE_PROBLEMS,
)
from api.schemas import requests, responses
from api.schemas.fields import HoldId

EXPIRES_AT = "2025-01-12T10:45:20Z"

HOLD = Parameter("hold_id", "path", HoldId, HOLD_ID, required=True)

# fmt: off
OPERATIONS: Mapping[tuple[str, str], Operation] = {
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
}
# fmt: on
