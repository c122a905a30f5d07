"""The result of a check."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

MIGRATE = "run: flashsale migrate"


@dataclass(frozen=True)
class Finding:
    """What a check found, and the remedy unless it is ok."""

    check: str
    status: Literal["ok", "warning", "failed"]
    detail: str
    remedy: str | None = None


Findings: TypeAlias = Iterator[Finding]
