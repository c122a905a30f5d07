"""Counts, rates and latencies of the calls of a rehearsal."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import quantiles

from flashsale.rehearsal.observations import NO_RESPONSE, Call, Observations, Operation


@dataclass(frozen=True)
class Latency:
    """Seconds until the response."""

    p50: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True)
class Statistics:
    """The statistics of some calls."""

    count: int
    peak: int
    """most responses within any second"""
    latency: Latency
    retries: int


def latency(seconds: Iterable[float]) -> Latency:
    """The latency of calls with these durations; zeros if there are none."""
    ordered = sorted(seconds) or [0.0]
    if len(ordered) == 1:  # quantiles() requires two
        ordered *= 2
    cuts = quantiles(ordered, n=100, method="inclusive")
    return Latency(cuts[49], cuts[94], cuts[98], ordered[-1])


def peak(times: Iterable[float]) -> int:
    """The most of `times` that lie within any second."""
    ordered = sorted(times)
    return max((n + 1 - bisect_left(ordered, at - 1) for n, at in enumerate(ordered)), default=0)


def summarize(calls: Sequence[Call]) -> Statistics:
    """The statistics of these calls; only calls with a response count."""
    answered = [call for call in calls if call.status != NO_RESPONSE]
    return Statistics(
        count=len(answered),
        peak=peak(call.at + call.seconds for call in answered),
        latency=latency(call.seconds for call in answered),
        retries=sum(call.retried for call in calls),
    )


def by_operation(observed: Observations) -> dict[Operation, Statistics]:
    """The statistics of each operation that has any response."""
    return {operation: found for operation in Operation if (found := summarize(observed.of(operation))).count}


def responses(observed: Observations) -> list[tuple[Operation, int, str, int]]:
    """The number of responses by operation, status and code."""
    counts = Counter((call.operation, call.status, call.code) for call in observed.calls)
    order = list(Operation)
    return sorted(
        ((operation, status, code, count) for (operation, status, code), count in counts.items()),
        key=lambda row: (order.index(row[0]), row[1], row[2]),
    )


def rates(calls: Iterable[Call], seconds: float, bins: int) -> list[float]:
    """Responses per second in each of `bins` equal parts of the first `seconds`."""
    width = seconds / bins
    counts = [0] * bins
    for call in calls:
        if call.status != NO_RESPONSE:
            counts[min(bins - 1, int((call.at + call.seconds) / width))] += 1
    return [count / width for count in counts]
