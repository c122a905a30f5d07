"""Rates and latencies of a rehearsal."""

import pytest

from flashsale.rehearsal.figures import Latency, answers, by_kind, figures, latency, peak, rates
from flashsale.rehearsal.record import Call, Kind
from tests.support.rehearsals import seen


def call(at, seconds=0.0, status=200, again=False):
    return Call(Kind.HOLD, at, seconds, status, "", again)


def test_percentiles_lie_between_what_was_seen():
    found = latency(n / 1000 for n in range(1, 102))
    assert vars(found) == pytest.approx({"p50": 0.051, "p95": 0.096, "p99": 0.1, "most": 0.101})


def test_one_call_is_every_percentile():
    assert latency([0.25]) == Latency(0.25, 0.25, 0.25, 0.25)


def test_no_call_is_nothing():
    found = figures([])
    assert (found.count, found.peak, found.again) == (0, 0, 0)
    assert found.latency == Latency(0, 0, 0, 0)


@pytest.mark.parametrize(
    ("moments", "most"),
    [([], 0), ([3.0], 1), ([0, 0.5, 1.0], 3), ([0, 0.6, 1.2, 1.5, 3], 3), ([2, 1, 0.9, 0.1], 3)],
)
def test_the_peak_is_of_any_one_second(moments, most):
    assert peak(moments) == most


def test_what_was_never_answered_has_no_latency_but_was_sent_again():
    found = figures([call(0, 15, status=0, again=True), call(1, 0.5)])
    assert (found.count, found.again, found.latency.most) == (1, 1, 0.5)


def test_rates_count_answers_where_they_came():
    found = rates([call(0, 0.9), call(0.1, 1.0), call(1.5, 0.5), call(1, 1, status=0)], 2, 4)
    assert found == [0, 2, 2, 2]


def test_kinds_come_in_the_order_of_a_purchase():
    assert list(by_kind(seen())) == [Kind.LOOK, Kind.HOLD, Kind.ORDER, Kind.WEBHOOK, Kind.RELEASE]
    assert [row for row in answers(seen()) if row[0] is Kind.HOLD] == [
        (Kind.HOLD, 201, "", 5),
        (Kind.HOLD, 409, "insufficient_stock", 1),
        (Kind.HOLD, 503, "overloaded", 1),
    ]
