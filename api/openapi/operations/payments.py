"""Operations of the tag Payments."""

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta

from api import problems
from api.openapi.operation import Operation, Parameter, ProblemExample, SuccessResponse
from api.openapi.operations.shared import BODY_PROBLEMS, ORDER_ID, WRITE_PROBLEMS
from api.schemas import requests, responses

# fmt: off
OPERATIONS: Mapping[tuple[str, str], Operation] = {
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
}
# fmt: on
