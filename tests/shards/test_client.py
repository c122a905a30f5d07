"""What is asked of several shards for one request: api/shards/client.py with simulated shards."""

from typing import Any

import pytest

from api.database.errors import Unavailable
from api.database.functions import RecordRefundRow
from api.shards.client import ShardedClient
from api.shards.ownership import Ownership, Report
from tests.api.event_loop_clock import in_simulated_time

REFUND = ("re_1", "stripe:pi_1:success", "99.00", "done", "refund", "{}")
UNKNOWN = RecordRefundRow("SA020", "There is no captured payment.", False)
RECORDED = RecordRefundRow(None, None, False)


class Shard:
    def __init__(self, name: str, *owned: int, has_payment: bool = False) -> None:
        self.name = name
        self.owned = set(owned)
        self.has_payment = has_payment
        self.is_up = True
        self.recorded = 0
        self.asked = lambda: None

    async def get_shard(self) -> Report:
        if not self.is_up:
            raise Unavailable("down")
        return Report(2, frozenset(self.owned))

    async def record_refund(self, *refund: Any) -> RecordRefundRow:
        if not self.is_up:
            raise Unavailable("down")
        self.recorded += self.has_payment
        found = RECORDED if self.has_payment else UNKNOWN
        self.asked()
        return found


async def client_of(*shards: Shard) -> ShardedClient:
    client = ShardedClient.__new__(ShardedClient)
    client.shards, client.ownership = list(shards), Ownership(shards)  # type: ignore[arg-type]
    await client.ownership.open()
    return client


@in_simulated_time
async def test_a_refund_is_recorded_where_its_payment_is() -> None:
    a, b = Shard("a", 0), Shard("b", 1, has_payment=True)
    client = await client_of(a, b)
    assert await client.record_refund(*REFUND) == RECORDED
    assert (a.recorded, b.recorded) == (0, 1)
    await client.ownership.close()


@in_simulated_time
async def test_a_refund_of_another_shop_is_unknown_on_all_shards() -> None:
    client = await client_of(Shard("a", 0), Shard("b", 1))
    assert await client.record_refund(*REFUND) == UNKNOWN
    await client.ownership.close()


@in_simulated_time
async def test_a_refund_whose_payment_may_be_on_a_shard_that_is_down_comes_again() -> None:
    a, b = Shard("a", 0), Shard("b", 1, has_payment=True)
    client = await client_of(a, b)
    b.is_up = False
    with pytest.raises(Unavailable):
        await client.record_refund(*REFUND)
    a.has_payment = True
    assert await client.record_refund(*REFUND) == RECORDED, "the shard that has it is up"
    await client.ownership.close()


@pytest.mark.parametrize("arrived", [True, False])
def test_a_refund_that_misses_its_payment_on_the_way_comes_again(arrived: bool) -> None:
    """It was on b when a was asked, and is on a, or on none, when b is."""

    @in_simulated_time
    async def run() -> None:
        a, b = Shard("a", 0), Shard("b", 1, has_payment=True)
        client = await client_of(a, b)

        def move() -> None:
            b.owned, b.has_payment = set(), False
            if arrived:
                a.owned, a.has_payment = {0, 1}, True

        a.asked = move
        with pytest.raises(Unavailable):
            await client.record_refund(*REFUND)
        a.asked = lambda: None
        if arrived:
            assert await client.record_refund(*REFUND) == RECORDED
        else:
            with pytest.raises(Unavailable):
                await client.record_refund(*REFUND)
        await client.ownership.close()

    run()
