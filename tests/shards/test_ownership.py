"""Which shard owns each slot: api/shards/ownership.py with simulated shards, in simulated time."""

import asyncio
import logging
from typing import Any

import pytest

from api.database.errors import Busy, Unavailable
from api.shards.errors import WrongShard
from api.shards.names import shard_names
from api.shards.ownership import FIRST_REFRESH_SECONDS, REFRESH_SECONDS, Ownership, Report
from api.shards.slots import slot_ranges
from tests.api.event_loop_clock import in_simulated_time


class Shard:
    """Owns some of four slots, and refuses calls for the others."""

    def __init__(self, name: str, *owned: int, slots: int = 4) -> None:
        self.name = name
        self.slots = slots
        self.owned = set(owned)
        self.is_up = True
        self.hangs = False
        self.readings = 0
        self.calls: list[int] = []

    async def get_shard(self) -> Report:
        self.readings += 1
        if self.hangs:
            await asyncio.sleep(1.5)
        if self.hangs or not self.is_up:
            raise Unavailable("down")
        return Report(self.slots, frozenset(self.owned))

    async def call(self, id_: int) -> str:
        if not self.is_up:
            raise Unavailable("down")
        if id_ % self.slots not in self.owned:
            raise WrongShard("SA029")
        self.calls.append(id_)
        return self.name


async def opened(*shards: Shard) -> Ownership[Shard]:
    ownership = Ownership(shards)
    await ownership.open()
    return ownership


async def sell(ownership: Ownership[Shard], id_: int) -> Any:
    try:
        return await ownership.route(id_, lambda shard: shard.call(id_))
    except Exception as error:
        return error


@in_simulated_time
async def test_the_residue_of_an_id_leads_to_the_owner_of_its_slot() -> None:
    a, b = Shard("a", 0, 1), Shard("b", 2, 3)
    ownership = await opened(a, b)
    assert [await sell(ownership, id_) for id_ in (4, 5, 6, 7, 1_000_003)] == ["a", "a", "b", "b", "b"]
    assert (a.readings, b.readings) == (1, 1), "once at the start"
    await ownership.close()


@in_simulated_time
async def test_a_call_that_the_former_owner_refuses_goes_to_the_new_one() -> None:
    a, b = Shard("a", 0, 1), Shard("b", 2, 3)
    ownership = await opened(a, b)
    a.owned, b.owned = {0}, {1, 2, 3}
    assert await sell(ownership, 5) == "b"
    assert (a.calls, b.calls) == ([], [5])
    await ownership.close()


@in_simulated_time
async def test_requests_wait_while_a_slot_changes_hands() -> None:
    a, b = Shard("a", 0, 1), Shard("b", 2, 3)
    ownership = await opened(a, b)
    a.owned = {0}
    waiting = [asyncio.create_task(sell(ownership, 5)) for _ in range(50)]
    await asyncio.sleep(0.4)
    assert not any(task.done() for task in waiting)
    readings = b.readings
    b.owned = {1, 2, 3}
    assert await asyncio.gather(*waiting) == ["b"] * 50
    assert readings < 50, "one reading serves all that wait"
    await ownership.close()


@in_simulated_time
async def test_a_slot_that_stays_without_an_owner_is_busy_and_no_more_than_500_wait() -> None:
    ownership = await opened(Shard("a", 0), Shard("b", 2, 3))
    began = asyncio.get_running_loop().time()
    found = await asyncio.gather(*(sell(ownership, 5) for _ in range(600)))
    assert {type(each) for each in found} == {Busy}
    assert sum("too many" in str(each) for each in found) == 100
    assert asyncio.get_running_loop().time() - began < 1.5
    assert await sell(ownership, 4) == "a", "the others are served"
    await ownership.close()


@in_simulated_time
async def test_a_slot_with_two_owners_is_not_served(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flashsale.shards")
    a, b = Shard("a", 0, 1), Shard("b", 1, 2, 3)
    ownership = await opened(a, b)
    assert isinstance(await sell(ownership, 5), Unavailable)
    assert await sell(ownership, 6) == "b"
    assert "1 of 4 slots is owned by a and b: none of them is served" in caplog.text
    a.owned = {0}
    await asyncio.sleep(REFRESH_SECONDS + 1)
    assert await sell(ownership, 5) == "b"
    assert "each slot has one owner" in caplog.text
    await ownership.close()


@in_simulated_time
async def test_a_missing_owner_is_told_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    ownership = await opened(Shard("a", 0), Shard("b", 3))
    assert "1-2 of 4 slots has no owner" in caplog.text
    await ownership.close()


@in_simulated_time
async def test_different_numbers_of_slots_are_told_and_nothing_is_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ownership = await opened(Shard("a", 0, 1, 2, 3), Shard("b", 0, slots=1))
    assert "the shards have different numbers of slots: a 4, b 1" in caplog.text
    assert isinstance(await sell(ownership, 4), Unavailable)
    await ownership.close()


@in_simulated_time
async def test_a_shard_that_is_down_at_the_start_is_served_once_it_is_up() -> None:
    a, b = Shard("a", 0, 1), Shard("b", 2, 3)
    b.is_up = False
    ownership = await opened(a, b)
    began = asyncio.get_running_loop().time()
    assert isinstance(await sell(ownership, 6), Unavailable)
    assert asyncio.get_running_loop().time() - began < 0.1, "at once: it may be the one that is down"
    assert await sell(ownership, 4) == "a"
    b.is_up = True
    await asyncio.sleep(FIRST_REFRESH_SECONDS + 0.1)
    assert await sell(ownership, 6) == "b"
    await ownership.close()


@in_simulated_time
async def test_a_shard_that_hangs_delays_no_move_between_others() -> None:
    a, b, c = Shard("a", 0, 1), Shard("b", 2), Shard("c", 3)
    ownership = await opened(a, b, c)
    c.hangs = True
    a.owned, b.owned = {0}, {1, 2}
    began = asyncio.get_running_loop().time()
    assert await sell(ownership, 5) == "b"
    assert asyncio.get_running_loop().time() - began < 0.5
    await ownership.close()


@in_simulated_time
async def test_the_newer_word_counts_if_the_former_owner_is_gone() -> None:
    a, b = Shard("a", 0, 1), Shard("b", 2, 3)
    ownership = await opened(a, b)
    a.is_up = False
    b.owned = {1, 2, 3}
    await asyncio.sleep(REFRESH_SECONDS + 1)
    assert await sell(ownership, 5) == "b"
    assert isinstance(await sell(ownership, 4), Unavailable)
    await ownership.close()


@pytest.mark.parametrize(
    ("urls", "names"),
    [
        (["postgresql://db1/east", "postgresql://u:secret@db2:5433/west"], ["east", "west"]),
        (["postgresql://db1/shop", "postgresql://db2/shop"], ["db1/shop", "db2/shop"]),
        (
            ["postgresql://db1/shop", "postgresql://db1:5433/shop"],
            ["db1:5432/shop", "db1:5433/shop"],
        ),
        (
            ["postgresql://a@db1/shop", "postgresql://b@db1/shop"],
            ["1:db1:5432/shop", "2:db1:5432/shop"],
        ),
    ],
)
def test_shards_are_named_by_their_databases(urls: list[str], names: list[str]) -> None:
    assert shard_names(urls) == names


@pytest.mark.parametrize(
    ("slots", "ranges"), [([], ""), ([3], "3"), ([0, 1, 2, 7], "0-2,7"), ({5, 4, 9, 8}, "4-5,8-9")]
)
def test_slots_are_told_as_ranges(slots: Any, ranges: str) -> None:
    assert slot_ranges(slots) == ranges
