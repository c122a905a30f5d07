"""Field types that requests and responses share. Descriptions and examples appear in /openapi.json."""

from typing import Annotated, Literal

from msgspec import Meta

MAX_BIGINT = 2**63 - 1
MAX_HOLD_ID = 2**53 - 1
MAX_BUYER_LENGTH = 255
IDEMPOTENCY_KEY = r"[!-~]{1,255}"
"""pattern of the header: 1 to 255 visible ASCII characters"""

ProductId = Annotated[int, Meta(ge=1, le=MAX_BIGINT, description="A product.", examples=[1])]
HoldId = Annotated[
    int,
    Meta(
        ge=1, le=MAX_HOLD_ID, description="A hold: a random number, and the buyer's only proof of ownership."
    ),
]
OrderId = Annotated[int, Meta(ge=1, le=MAX_BIGINT, description="An order.")]
Quantity = Annotated[int, Meta(ge=1, le=2**31 - 1, description="Units of the product.")]
Units = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Buyer = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_BUYER_LENGTH,
        description="Who buys: the shop's own name for its customer.",
    ),
]
Money = Annotated[str, Meta(pattern=r"^[0-9]+(\.[0-9]+)?$")]
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$", description="ISO 4217 code.")]
Instant = Annotated[
    str,
    Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z$", extra_json_schema={"format": "date-time"}),
]
HoldStatus = Annotated[
    Literal["active", "ordered", "expired", "released"],
    Meta(description="Exact at the instant of the response: a hold is expired from `expires_at` on."),
]
OrderStatus = Annotated[
    Literal["pending_payment", "paid", "cancelled"],
    Meta(
        description="Exact at the instant of the response: an unpaid order is cancelled from"
        " `payment_due_at` on."
    ),
]
SaleStatus = Annotated[
    Literal["scheduled", "open", "paused", "ended", "cancelled"],
    Meta(
        description="Exact at `now`: scheduled until `starts_at`, ended from `ends_at` on. Holds are placed"
        " while it is open."
    ),
]
CancelReason = Annotated[
    Literal[
        "payment_failed",
        "payment_cancelled",
        "payment_overdue",
        "buyer_cancelled",
        "shop_cancelled",
        "sale_cancelled",
    ],
    Meta(description="Present if the order is cancelled."),
]
