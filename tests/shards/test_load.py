"""How many requests one shard may have in progress: api/shards/load.py, in simulated time."""

import asyncio
from collections import Counter

from api.database.errors import OutcomeUnknown, RolledBack
from api.shards.load import STALLED_SECONDS, ShardLoad
from tests.api.event_loop_clock import in_simulated_time


class Shard:
    def __init__(self) -> None:
        self.load = ShardLoad()
        self.responds = asyncio.Event()

    async def ask(self) -> str:
        try:
            self.load.admit()
            return await self.load.run(self._answer())
        except Exception as error:
            return type(error).__name__

    async def _answer(self) -> str:
        async with asyncio.timeout(1.9):
            await self.responds.wait()
        return "answered"

    def ask_often(self, times: int) -> list["asyncio.Task[str]"]:
        return [asyncio.create_task(self.ask()) for _ in range(times)]


@in_simulated_time
async def test_a_shard_has_no_more_than_1000_requests_in_progress() -> None:
    shard = Shard()
    asked = shard.ask_often(1500)
    await asyncio.sleep(0)
    shard.responds.set()
    assert Counter(await asyncio.gather(*asked)) == {"answered": 1000, "Overloaded": 500}
    assert await shard.ask() == "answered"


@in_simulated_time
async def test_a_shard_that_answers_none_has_100_requests_in_progress() -> None:
    shard = Shard()
    first = shard.ask_often(100)
    await asyncio.sleep(STALLED_SECONDS + 0.1)
    assert Counter(await asyncio.gather(*shard.ask_often(50))) == {"Unavailable": 50}, "at once"
    shard.responds.set()
    assert Counter(await asyncio.gather(*first)) == {"answered": 100}
    assert Counter(await asyncio.gather(*shard.ask_often(200))) == {"answered": 200}


@in_simulated_time
async def test_an_error_of_the_server_is_an_answer_and_a_lost_call_is_none() -> None:
    load = ShardLoad()

    async def fail(error: Exception) -> None:
        await asyncio.sleep(STALLED_SECONDS + 0.1)
        raise error

    async def state_after(error: Exception) -> str:
        forever = [asyncio.create_task(load.run(asyncio.sleep(10))) for _ in range(100)]
        await asyncio.sleep(0)
        await asyncio.gather(load.run(fail(error)), return_exceptions=True)
        try:
            load.admit()
        except Exception as refused:
            return type(refused).__name__
        finally:
            for task in forever:
                task.cancel()
            await asyncio.wait(forever)
        return "admitted"

    assert await state_after(RolledBack("22003")) == "admitted"
    assert await state_after(OutcomeUnknown()) == "Unavailable"
