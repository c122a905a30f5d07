"""What the calls of a rehearsal add up to: how many, how fast, how many a second."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import quantiles

from flashsale.rehearsal.record import NO_ANSWER, Call, Kind, Seen


@dataclass(frozen=True)
class Latency:
    """Seconds until the answer, of all calls of one kind."""

    p50: float
    p95: float
    p99: float
    most: float


@dataclass(frozen=True)
class Figures:
    """One kind of call, or all of them."""

    count: int
    peak: int
    """the most calls that were answered within any one second"""
    latency: Latency
    again: int
    """calls that got a 503 with Retry-After, or none, and went out again"""


def latency(seconds: Iterable[float]) -> Latency:
    """The latency of calls that took so many seconds each; nothing but zeros if there were none."""
    ordered = sorted(seconds) or [0.0]
    if len(ordered) == 1:  # of which quantiles() would make nothing
        ordered *= 2
    cuts = quantiles(ordered, n=100, method="inclusive")
    return Latency(cuts[49], cuts[94], cuts[98], ordered[-1])


def peak(moments: Iterable[float]) -> int:
    """The most of `moments` that lie within any one second."""
    ordered = sorted(moments)
    return max((n + 1 - bisect_left(ordered, moment - 1) for n, moment in enumerate(ordered)), default=0)


def figures(calls: Sequence[Call]) -> Figures:
    """What these calls add up to, those that were never answered left out."""
    answered = [call for call in calls if call.status != NO_ANSWER]
    return Figures(
        count=len(answered),
        peak=peak(call.at + call.seconds for call in answered),
        latency=latency(call.seconds for call in answered),
        again=sum(call.sent_again for call in calls),
    )


def by_kind(seen: Seen) -> dict[Kind, Figures]:
    """The figures of every kind of call that was answered at all."""
    return {kind: found for kind in Kind if (found := figures(seen.of(kind))).count}


def answers(seen: Seen) -> list[tuple[Kind, int, str, int]]:
    """How often each kind of call got which status and code."""
    counts = Counter((call.kind, call.status, call.code) for call in seen.calls)
    order = list(Kind)
    return sorted(
        ((kind, status, code, count) for (kind, status, code), count in counts.items()),
        key=lambda row: (order.index(row[0]), row[1], row[2]),
    )


def rates(calls: Iterable[Call], seconds: float, bins: int) -> list[float]:
    """Answers a second in each of `bins` equal parts of the first `seconds`."""
    width = seconds / bins
    counts = [0] * bins
    for call in calls:
        if call.status != NO_ANSWER:
            counts[min(bins - 1, int((call.at + call.seconds) / width))] += 1
    return [count / width for count in counts]
