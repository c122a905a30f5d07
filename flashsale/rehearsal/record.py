"""What a rehearsal has seen: plain facts, for checks, figures and plots to judge.

Times are seconds since the sale began.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from flashsale.rehearsal.buyers import Buyer


class Kind(StrEnum):
    """A call of the API, in the order in which a buyer makes them."""

    LOOK = "look"
    HOLD = "hold"
    ORDER = "order"
    WEBHOOK = "webhook"
    CONFIRM = "confirm"
    RELEASE = "release"


CALLS = {
    Kind.LOOK: "GET /api/products/{id}",
    Kind.HOLD: "POST /api/holds",
    Kind.ORDER: "POST /api/orders",
    Kind.WEBHOOK: "POST /api/payments/webhook",
    Kind.CONFIRM: "GET /api/orders/{id}",
    Kind.RELEASE: "DELETE /api/holds/{id}",
}

NO_ANSWER = 0
"""stands for the status where the connection broke"""


class Call(NamedTuple):
    """One request and its answer."""

    kind: Kind
    at: float
    seconds: float
    status: int
    code: str
    """of the problem, if the answer is one"""
    sent_again: bool
    """the answer was none to stay with: the same request went out again"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a buyer or the provider was told in the end."""

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
        return f"{self.status or 'no answer'} {self.code}".strip()


class Units(NamedTuple):
    """Where the units are at an instant."""

    at: float
    available: int
    held: int
    awaiting: int
    paid: int


class Word(NamedTuple):
    """A webhook that was acknowledged."""

    key: str
    order_id: int
    status: str
    result: str
    order_status: str | None


class Outcome(StrEnum):
    """What became of a buyer's wish."""

    BOUGHT = "bought one"
    SOLD_OUT = "found it sold out"
    RELEASED = "gave the hold back"
    CANCELLED = "cancelled the payment"
    FAILED = "payment failed"
    REFUND_DUE = "paid too late: refund due"
    LEFT = "left"
    LAPSED = "came too late for the own hold"
    UNANSWERED = "got no good answer"


@dataclass(slots=True)
class Purchase:
    """A buyer's unit on its way, from the hold on."""

    buyer: Buyer
    hold_id: int
    held_at: float
    """when the hold was asked for: it cannot have begun before"""
    order_id: int | None = None
    ordered_at: float = 0
    """when the order was asked for"""
    words: list[Word] = field(default_factory=list)
    outcome: Outcome | None = None


class Phase(NamedTuple):
    """A part of the sale."""

    name: str
    begin: float
    end: float


@dataclass
class Seen:
    """Everything the buyers and the provider have seen."""

    calls: list[Call] = field(default_factory=list)
    units: list[Units] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    purchases: list[Purchase] = field(default_factory=list)
    strays: list[Word] = field(default_factory=list)
    """early webhooks whose order id went to nobody here"""
    sold_out: int = 0
    """buyers who still wanted a unit when it was over"""
    repeated: int = 0
    """requests that were sent twice, or again at the end"""
    contradictions: list[str] = field(default_factory=list)
    """repeated requests whose answers were not the same"""
    faults: list[str] = field(default_factory=list)
    """answers that no caller should get"""
    available_at_end: int | None = None
    """as GET /api/products/{id} has it"""

    @property
    def words(self) -> list[Word]:
        """Every webhook that was acknowledged."""
        return [word for purchase in self.purchases for word in purchase.words] + self.strays

    def of(self, kind: Kind) -> Sequence[Call]:
        return [call for call in self.calls if call.kind is kind]

    @property
    def seconds(self) -> float:
        return self.phases[-1].end if self.phases else 0
