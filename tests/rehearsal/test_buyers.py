"""The generated buyers."""

from collections import Counter
from dataclasses import replace

import pytest

from flashsale.rehearsal.buyers import (
    BOT,
    BOTS_PER_ACCOUNT,
    CANCELS,
    DECLINED_FIRST,
    EARLY,
    FAILS,
    LATE,
    LEAVES_HOLD,
    LEAVES_ORDER,
    OVERDUE,
    PAYS,
    PAYS_TWICE,
    RELEASES,
    Shares,
    Step,
    generate_buyers,
)  # fmt: skip

SHARES = Shares(impatient=20, duplicated=30, failing=10, declined=6, twice=2, late=5, early=4)


def test_shares_are_percentages_of_the_buyers():
    buyers = generate_buyers(1000, 100, SHARES, lapsing=False, seed=1)
    assert [buyer.behaviour for buyer in buyers.early] == [EARLY] * 4
    assert Counter(buyer.behaviour for buyer in buyers.crowd) == {
        PAYS: 567, RELEASES: 100, CANCELS: 99, FAILS: 100, DECLINED_FIRST: 60, PAYS_TWICE: 20, LATE: 50,
    }  # fmt: skip
    assert sum(buyer.duplicated for buyer in buyers.crowd) == 299
    assert [buyer.number for buyer in [*buyers.early, *buyers.crowd]] == list(range(1000))


def test_bots_are_a_share_of_all_buyers_and_use_few_accounts():
    buyers = generate_buyers(1000, 100, replace(SHARES, bots=20), lapsing=False, seed=1)
    assert len(buyers.bots) == 200
    assert len(buyers.early) + len(buyers.crowd) == 800
    assert {bot.behaviour for bot in buyers.bots} == {BOT}
    accounts = Counter(bot.account for bot in buyers.bots)
    assert list(accounts.values()) == [BOTS_PER_ACCOUNT] * 4
    everyone = [*buyers.early, *buyers.crowd, *buyers.bots]
    assert [buyer.number for buyer in everyone] == list(range(1000))
    assert len({buyer.account for buyer in everyone}) == 804


def test_some_buyers_wait_if_holds_and_orders_lapse():
    buyers = generate_buyers(100, 100, SHARES, lapsing=True, seed=1)
    came = Counter(buyer.behaviour for buyer in buyers.crowd)
    assert {LEAVES_HOLD, LEAVES_ORDER, OVERDUE, RELEASES, CANCELS} <= came.keys()
    assert LATE not in came


def test_no_buyer_waits_otherwise():
    buyers = generate_buyers(500, 100, SHARES, lapsing=False, seed=1)
    for buyer in buyers.crowd:
        steps = buyer.behaviour.steps
        assert Step.WAIT_UNTIL_OVERDUE not in steps
        ends = {Step.RELEASE, Step.SUCCESS, Step.SUCCESS_TWICE, Step.FAILED, Step.CANCELLED}
        assert ends & set(steps)


def test_a_seed_gives_the_same_buyers():
    assert generate_buyers(200, 20, SHARES, lapsing=False, seed=5) == generate_buyers(
        200, 20, SHARES, lapsing=False, seed=5
    )
    assert generate_buyers(200, 20, SHARES, lapsing=False, seed=5) != generate_buyers(
        200, 20, SHARES, lapsing=False, seed=6
    )


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize(
    "shares",
    [
        Shares(0, 0, 0, 0, 0, 0, 0),
        Shares(50, 100, 20, 3, 2, 25, 100),
        Shares(33.3, 1, 11.1, 11.1, 11.1, 33.4, 50, bots=30),
    ],
)
def test_rounding_keeps_the_number_of_buyers(count, shares):
    buyers = generate_buyers(count, 2, shares, lapsing=True, seed=1)
    assert len(buyers.early) + len(buyers.crowd) + len(buyers.bots) == count
