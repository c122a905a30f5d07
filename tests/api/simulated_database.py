"""A database with simulated calls, for tests of Batcher."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from api.database.batching import Limits

QUICK = Limits(queue_timeout=0.2, response_timeout=0.4, retry_delay=0.001, timer_interval=0.01)


class Row(NamedTuple):
    request_no: int
    sqlstate: str | None
    detail: str


class Database:
    """Records its calls, whose results a test decides.

    `sqlstate_of(*arguments)` is the sqlstate of a request's row; `break_batch(batch)` is the exception of a
    call, if any. Calls wait until `may_return` is set.
    """

    def __init__(self, sqlstate_of: Callable[..., str | None] = lambda *arguments: None) -> None:
        self.sqlstate_of = sqlstate_of
        self.batches: list[list[tuple[Any, ...]]] = []
        self.may_return = asyncio.Event()
        self.may_return.set()
        self.entered = asyncio.Event()
        self.break_batch: Callable[[Sequence[tuple[Any, ...]]], Exception | None] = lambda batch: None

    async def call(self, batch: Sequence[tuple[Any, ...]]) -> list[Row]:
        self.batches.append(list(batch))
        self.entered.set()
        await asyncio.sleep(0)  # as a real call would
        await self.may_return.wait()
        if error := self.break_batch(batch):
            raise error
        # In reverse: rows are matched by request_no, not by position.
        return [Row(i, self.sqlstate_of(*batch[i]), f"for {batch[i]}") for i in reversed(range(len(batch)))]

    def block(self) -> None:
        self.may_return.clear()
        self.entered.clear()


async def outcome(future: "asyncio.Future[Any]") -> Any:
    try:
        return await future
    except Exception as error:
        return error
