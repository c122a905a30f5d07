"""Who comes to a rehearsal."""

from collections import Counter

import pytest

from flashsale.rehearsal.buyers import (
    CANCELS,
    EARLY,
    FAILS,
    LATE,
    LEAVES_HOLD,
    LEAVES_ORDER,
    OVERDUE,
    PAYS,
    RELEASES,
    Shares,
    Step,
    cast,
)  # fmt: skip

SHARES = Shares(impatient=20, duplicated=30, failing=10, late=5, early=4)


def test_shares_are_of_those_who_come():
    company = cast(1000, 100, SHARES, lapsing=False, seed=1)
    assert [buyer.behaviour for buyer in company.early] == [EARLY] * 4
    assert Counter(buyer.behaviour for buyer in company.crowd) == {
        PAYS: 647, RELEASES: 100, CANCELS: 99, FAILS: 100, LATE: 50,
    }  # fmt: skip
    assert sum(buyer.duplicated for buyer in company.crowd) == 299
    assert [buyer.number for buyer in [*company.early, *company.crowd]] == list(range(1000))


def test_some_wait_for_the_clock_if_it_is_worth_while():
    company = cast(100, 100, SHARES, lapsing=True, seed=1)
    came = Counter(buyer.behaviour for buyer in company.crowd)
    assert {LEAVES_HOLD, LEAVES_ORDER, OVERDUE, RELEASES, CANCELS} <= came.keys()
    assert LATE not in came


def test_without_it_nobody_waits_for_the_clock():
    company = cast(500, 100, SHARES, lapsing=False, seed=1)
    for buyer in company.crowd:
        steps = buyer.behaviour.steps
        assert Step.UNTIL_OVERDUE not in steps
        assert {Step.RELEASE, Step.SUCCESS, Step.FAILED, Step.CANCELLED} & set(steps)


def test_a_seed_brings_the_same_buyers_again():
    assert cast(200, 20, SHARES, lapsing=False, seed=5) == cast(200, 20, SHARES, lapsing=False, seed=5)
    assert cast(200, 20, SHARES, lapsing=False, seed=5) != cast(200, 20, SHARES, lapsing=False, seed=6)


@pytest.mark.parametrize("buyers", [1, 2, 3, 7])
@pytest.mark.parametrize(
    "shares", [Shares(0, 0, 0, 0, 0), Shares(50, 100, 25, 25, 100), Shares(33.3, 1, 33.3, 33.4, 50)]
)
def test_few_buyers_are_as_many_as_were_asked_for(buyers, shares):
    company = cast(buyers, 2, shares, lapsing=True, seed=1)
    assert len(company.early) + len(company.crowd) == buyers
