"""Rates and latencies of a rehearsal."""

import pytest

from flashsale.rehearsal.observations import Call, Operation
from flashsale.rehearsal.statistics import Latency, by_operation, latency, peak, rates, responses, summarize
from tests.support.rehearsals import observed


def call(at, seconds=0.0, status=200, retried=False):
    return Call(Operation.HOLD, at, seconds, status, "", retried)


def test_percentiles_are_interpolated():
    found = latency(n / 1000 for n in range(1, 102))
    assert vars(found) == pytest.approx({"p50": 0.051, "p95": 0.096, "p99": 0.1, "max": 0.101})


def test_all_percentiles_of_one_call_are_equal():
    assert latency([0.25]) == Latency(0.25, 0.25, 0.25, 0.25)


def test_no_calls_have_zeros():
    found = summarize([])
    assert (found.count, found.peak, found.retries) == (0, 0, 0)
    assert found.latency == Latency(0, 0, 0, 0)


@pytest.mark.parametrize(
    ("times", "most"),
    [([], 0), ([3.0], 1), ([0, 0.5, 1.0], 3), ([0, 0.6, 1.2, 1.5, 3], 3), ([2, 1, 0.9, 0.1], 3)],
)
def test_the_peak_is_of_any_second(times, most):
    assert peak(times) == most


def test_a_call_without_a_response_counts_as_a_retry_only():
    found = summarize([call(0, 15, status=0, retried=True), call(1, 0.5)])
    assert (found.count, found.retries, found.latency.max) == (1, 1, 0.5)


def test_rates_count_responses_when_they_arrived():
    found = rates([call(0, 0.9), call(0.1, 1.0), call(1.5, 0.5), call(1, 1, status=0)], 2, 4)
    assert found == [0, 2, 2, 2]


def test_operations_are_in_the_order_of_a_purchase():
    assert list(by_operation(observed())) == [
        Operation.VIEW,
        Operation.HOLD,
        Operation.BOT,
        Operation.ORDER,
        Operation.WEBHOOK,
        Operation.RELEASE,
    ]
    assert [row for row in responses(observed()) if row[0] is Operation.HOLD] == [
        (Operation.HOLD, 201, "", 5),
        (Operation.HOLD, 409, "insufficient_stock", 1),
        (Operation.HOLD, 409, "sale_not_started", 1),
        (Operation.HOLD, 503, "overloaded", 1),
    ]
