"""What the buyers of a rehearsal observed.

Times are seconds since the sale began.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple

from flashsale.rehearsal.buyers import Buyer


class Operation(StrEnum):
    """A call of the API, in the order of a purchase; the holds of bots are counted apart."""

    VIEW = "view"
    HOLD = "hold"
    BOT = "bot"
    ORDER = "order"
    WEBHOOK = "webhook"
    CONFIRM = "confirm"
    RELEASE = "release"


ROUTES = {
    Operation.VIEW: "GET /api/products/{id}",
    Operation.HOLD: "POST /api/holds",
    Operation.BOT: "POST /api/holds",
    Operation.ORDER: "POST /api/orders",
    Operation.WEBHOOK: "POST /api/payments/webhook",
    Operation.CONFIRM: "GET /api/orders/{id}",
    Operation.RELEASE: "DELETE /api/holds/{id}",
}

OWED_RESULTS = ("refund_due", "amount_mismatch")
"""of webhooks"""
NO_RESPONSE = 0
"""instead of a status, if the connection broke or timed out"""


class Call(NamedTuple):
    """One request and its response."""

    operation: Operation
    at: float
    seconds: float
    status: int
    code: str
    """of the problem, if the response is one"""
    retried: bool
    """the same request was sent again"""


@dataclass(frozen=True, slots=True)
class Response:
    """The final response to a request, after retries."""

    status: int
    body: dict[str, Any]
    replayed: bool = False
    request_id: str = ""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def code(self) -> str:
        return str(self.body.get("code", ""))

    def __str__(self) -> str:
        return f"{self.status or 'no response'} {self.code}".strip()


class StockLevels(NamedTuple):
    """The units of the product by state, at an instant."""

    at: float
    available: int
    held: int
    awaiting: int
    paid: int


class Webhook(NamedTuple):
    """A webhook that the server acknowledged."""

    key: str
    order_id: int
    status: str
    result: str
    order_status: str | None
    amount: Decimal


class Outcome(StrEnum):
    """The result of a purchase, from the buyer's point of view."""

    BOUGHT = "bought"
    SOLD_OUT = "sold out"
    RELEASED = "released the hold"
    CANCELLED = "cancelled the payment"
    FAILED = "payment failed"
    REFUND_DUE = "paid too late, refund due"
    SHOP_CANCELLED = "cancelled by the shop, refund due"
    LEFT = "left"
    EXPIRED = "hold expired"
    ERROR = "error"


@dataclass(slots=True)
class Purchase:
    """A buyer's purchase, from the hold on."""

    buyer: Buyer
    hold_id: int
    held_at: float
    """when the hold was requested, so at or before its start"""
    order_id: int | None = None
    ordered_at: float = 0
    """when the order was requested"""
    qty: int = 1
    expires_at: datetime | None = None
    """of the hold, by the database's clock"""
    payment_due_at: datetime | None = None
    """of the order, by the database's clock"""
    amount: Decimal = Decimal(0)
    """of the order"""
    webhooks: list[Webhook] = field(default_factory=list)
    outcome: Outcome | None = None


class Phase(NamedTuple):
    """A part of the sale."""

    name: str
    begin: float
    end: float


@dataclass
class Observations:
    """Everything that the buyers and the payment provider observed."""

    calls: list[Call] = field(default_factory=list)
    stock_levels: list[StockLevels] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    purchases: list[Purchase] = field(default_factory=list)
    unmatched: list[Webhook] = field(default_factory=list)
    """early webhooks whose order id belongs to none of the purchases"""
    refunds: dict[str, Decimal] = field(default_factory=dict)
    """by the key of the payment: what the provider has paid back"""
    sold_out: int = 0
    """buyers who still wanted a unit at the end"""
    duplicates: int = 0
    """requests that were sent more than once"""
    mismatches: list[str] = field(default_factory=list)
    """duplicate requests with different responses"""
    errors: list[str] = field(default_factory=list)
    """responses that no caller should get"""
    available_at_end: int | None = None
    """from GET /api/products/{id}"""

    @property
    def webhooks(self) -> list[Webhook]:
        """Every webhook that the server acknowledged."""
        return [webhook for purchase in self.purchases for webhook in purchase.webhooks] + self.unmatched

    @property
    def owed(self) -> set[str]:
        """The keys of the payments for which the server has said, or the shop decided, that money is due."""
        owed = {webhook.key for webhook in self.webhooks if webhook.result in OWED_RESULTS}
        for purchase in self.purchases:
            if purchase.outcome is Outcome.SHOP_CANCELLED:
                owed |= {webhook.key for webhook in purchase.webhooks if webhook.status == "success"}
        return owed

    def count(self, code: str, *operations: Operation) -> int:
        """The number of responses with this code, of all operations or of these."""
        return sum(call.code == code for call in self.calls if not operations or call.operation in operations)

    def of(self, operation: Operation) -> Sequence[Call]:
        return [call for call in self.calls if call.operation is operation]

    @property
    def seconds(self) -> float:
        return self.phases[-1].end if self.phases else 0
