"""The history of a round: every request, its outcome, and how its transaction ended."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

Subject = tuple[str, Any]
"""a resource, such as ("hold", 17) or ("webhook", "s3-8")"""

SUBJECTS = {
    "place_hold": ("product", None, None),
    "release_hold": ("hold",),
    "create_order": ("hold", None),
    "apply_payment": ("webhook", "order"),
    "adjust_stock": ("product",),
}
"""by function, the resource that each argument names"""


@dataclass(eq=False)
class Response:
    """The outcome of one request of a call.

    :param outcome: a row or a value; of a refusal or a failure, its SQLSTATE
    :param rolled_back: the call failed, or a rollback to a savepoint has undone it
    """

    function: str
    request: tuple
    outcome: Any
    began: float
    ended: float
    rolled_back: bool = False

    @property
    def succeeded(self) -> bool:
        return not isinstance(self.outcome, str)

    def subjects(self) -> Iterator[Subject]:
        """The resources that the request or its outcome names."""
        for kind, value in zip(SUBJECTS.get(self.function, ()), self.request, strict=False):
            if kind and value is not None:
                yield kind, value
        for kind in ("hold", "order"):
            if (found := getattr(self.outcome, f"{kind}_id", None)) is not None:
                yield kind, found


@dataclass(eq=False)
class Transaction:
    """One transaction of a session.

    :param calls: how many it made, each with one request or several
    :param xid: its id; none if it wrote nothing
    :param status: committed, rolled back, or unknown: the server knows
    :param committed_at: when its commit was acknowledged
    """

    session: str
    level: str
    began: float
    responses: list[Response] = field(default_factory=list)
    calls: int = 0
    xid: str | None = None
    status: str = "rolled back"
    committed_at: float = math.inf

    def committed(self) -> list[Response]:
        """The responses that its commit made final."""
        return [r for r in self.responses if not r.rolled_back] if self.status == "committed" else []


@dataclass(frozen=True)
class Violation:
    """A broken rule.

    :param subjects: the resources whose history explains it
    """

    rule: str
    detail: str
    subjects: tuple[Subject, ...] = ()

    @classmethod
    def of(cls, rule: str, transaction: Transaction, response: Response, detail: str = "") -> "Violation":
        """A rule that a response breaks."""
        where = f"{detail} {response} in {transaction.level}".strip()
        return cls(rule, where, tuple(response.subjects()))


class History:
    """All transactions of a round, by time."""

    def __init__(self, transactions: Iterable[Transaction]) -> None:
        self.transactions = sorted(transactions, key=lambda transaction: transaction.began)

    def responses(self) -> Iterator[tuple[Transaction, Response]]:
        """Every response, however its transaction ended."""
        for transaction in self.transactions:
            for response in transaction.responses:
                yield transaction, response

    def committed(self, function: str) -> Iterator[tuple[Transaction, Response]]:
        """The requests of `function` that succeeded, in transactions that committed."""
        for transaction in self.transactions:
            for response in transaction.committed():
                if response.function == function and response.succeeded:
                    yield transaction, response

    def about(self, subjects: Iterable[Subject]) -> list[str]:
        """The responses that name one of `subjects`, one line each, by time."""
        wanted = set(subjects)
        found = [(t, r) for t, r in self.responses() if not wanted.isdisjoint(r.subjects())]
        start = self.transactions[0].began if self.transactions else 0
        lines = []
        for transaction, response in sorted(found, key=lambda pair: pair[1].began):
            status = transaction.status
            if transaction.committed_at < math.inf:
                status += f" at {transaction.committed_at - start:.3f}"
            if response.rolled_back:
                status += ", call rolled back"
            lines.append(
                f"  {response.began - start:7.3f}-{response.ended - start:.3f} {transaction.session}"
                f" {transaction.level}, {status}: {response.function}{response.request}"
                f" -> {response.outcome}"
            )
        return lines
