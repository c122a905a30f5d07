"""Operations of the tag Orders."""

from collections.abc import Mapping

from api import problems
from api.openapi.operation import Operation, Parameter, ProblemExample, SuccessResponse
from api.openapi.operations.shared import (
    BODY_PROBLEMS,
    HOLD_HAS_EXPIRED,
    HOLD_ID,
    IDEMPOTENCY_KEY,
    NO_HOLD,
    ORDER_ID,
    READ_PROBLEMS,
    WRITE_PROBLEMS,
)
from api.schemas import requests, responses
from api.schemas.fields import HoldId, OrderId

ORDERED_AT = "2025-01-12T10:44:02.187Z"
DUE_AT = "2025-01-12T10:59:02.200Z"

ORDER = Parameter("order_id", "path", OrderId, ORDER_ID, required=True)
HOLD_OF_ORDER = Parameter("hold_id", "query", HoldId, HOLD_ID, required=True)

# fmt: off
OPERATIONS: Mapping[tuple[str, str], Operation] = {
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
}
# fmt: on
