"""Which shard owns each slot, as the shards themselves say: there is no other map.

It is read at the start, again as soon as a shard has refused a call with SA029, and every few seconds, so
that it is current even if the earlier owner of a slot has gone. A slot without an owner, or with two, is not
served: two copies of a product would both be sold.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Generic, NamedTuple, Protocol, TypeVar

from api.database.errors import Busy, RolledBack, Unavailable
from api.shards.errors import WrongShard
from api.shards.slots import slot_ranges

log = logging.getLogger("flashsale.shards")

REFRESH_SECONDS = 5.0
"""between two readings of all shards"""
FIRST_REFRESH_SECONDS = 0.5
"""the same, while a shard has not said yet what it owns"""
READ_SECONDS = 0.3
"""for which a reading waits for a shard; what a slower one says counts when it comes"""
ROUTE_SECONDS = 0.8
"""for which a request waits for an owner of its slot, as the queue timeout of a batcher"""
RETRY_SECONDS = 0.02
"""between two readings at least; requests whose slot has no owner repeat them, as while it changes hands"""
MAX_WAITING = 500
"""requests that wait for an owner; further ones are refused as Busy"""


class Report(NamedTuple):
    """What a shard says of itself.

    :param slots: into which the shop is divided; the same on every shard
    :param owned: the slots that it owns
    """

    slots: int
    owned: frozenset[int]


class Shard(Protocol):
    """A database that can be asked what it owns."""

    @property
    def name(self) -> str: ...
    async def get_shard(self) -> Report: ...


S = TypeVar("S", bound=Shard)
T = TypeVar("T")


class Ownership(Generic[S]):
    """The owner of each slot.

    :param shards: all that this server knows
    """

    def __init__(self, shards: Sequence[S]) -> None:
        self._shards = shards
        self._reports: dict[str, tuple[int, Report]] = {}  # by name; with the reading they are of
        self._owners: list[S | None] = []  # by slot
        self._problems: list[str] = []
        self._told: list[str] = []
        self._reading = 0
        self._read_at = float("-inf")
        self._all_reads: asyncio.Task[None] | None = None
        self._reads: dict[str, asyncio.Task[None]] = {}  # by the shard's name
        self._refreshing: asyncio.Task[None] | None = None
        self._waiting = 0

    @property
    def slots(self) -> int:
        """0 while it is unknown."""
        return len(self._owners)

    def owner(self, id_: int) -> S | None:
        """The shard of a product, a hold or an order; None if there is none, or more than one."""
        owners = self._owners
        return owners[id_ % len(owners)] if owners else None

    def owned(self, shard: S) -> list[int]:
        """The slots that this shard serves."""
        return [slot for slot, owner in enumerate(self._owners) if owner is shard]

    def owners(self) -> list[S | None]:
        """By slot."""
        return list(self._owners)

    def has_reported(self, shard: S) -> bool:
        return shard.name in self._reports

    async def open(self) -> None:
        await self.read()
        self._tell()
        self._refreshing = asyncio.create_task(self._refresh())

    async def close(self) -> None:
        all_ = (self._refreshing, self._all_reads, *self._reads.values())
        tasks = [task for task in all_ if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def read(self) -> None:
        """Ask all shards what they own. One reading serves all that wait for it."""
        if self._all_reads is None or self._all_reads.done():
            self._all_reads = asyncio.create_task(self._read())
        await asyncio.shield(self._all_reads)

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._read_at + RETRY_SECONDS - loop.time()))
        self._read_at = loop.time()
        self._reading += 1
        for shard in self._shards:
            task = self._reads.get(shard.name)
            if task is None or task.done():  # or it does not respond
                self._reads[shard.name] = asyncio.create_task(self._ask(shard, self._reading))
        await asyncio.wait(self._reads.values(), timeout=READ_SECONDS)

    async def route(self, id_: int, call: Callable[[S], Awaitable[T]]) -> T:
        """Call the owner of an id's slot.

        :raises Busy: the slot has no owner, or changes hands for longer than a request may wait
        :raises Unavailable: a shard that has not reported may own the slot, or two own it
        """
        shard = self.owner(id_)
        if shard is not None:
            with suppress(WrongShard):
                return await call(shard)
        if self._waiting >= MAX_WAITING:  # guard: routed-limit
            raise Busy("too many requests are waiting for an owner of their slot")
        self._waiting += 1
        try:
            return await self._search(id_, call)
        finally:
            self._waiting -= 1

    async def _search(self, id_: int, call: Callable[[S], Awaitable[T]]) -> T:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ROUTE_SECONDS
        while True:
            await self.read()
            shard = self.owner(id_)
            if shard is not None:
                with suppress(WrongShard):
                    return await call(shard)
            elif not self._is_moving(id_):
                raise Unavailable(f"no shard serves slot {id_ % self.slots if self.slots else '?'}")
            if loop.time() >= deadline:
                raise Busy("the slot is on its way to another shard")

    def _is_moving(self, id_: int) -> bool:
        """Whether all shards have reported and none owns the slot: as for an instant of each move."""
        if not self._owners or len(self._reports) < len(self._shards):
            return False
        slot = id_ % len(self._owners)
        return not any(slot in report.owned for _, report in self._reports.values())

    async def _ask(self, shard: S, reading: int) -> None:
        with suppress(Unavailable, RolledBack):
            self._reports[shard.name] = reading, await shard.get_shard()
            self._update()

    async def _refresh(self) -> None:
        while True:
            complete = len(self._reports) == len(self._shards)
            await asyncio.sleep(REFRESH_SECONDS if complete else FIRST_REFRESH_SECONDS)
            await self.read()
            self._tell()

    def _update(self) -> None:
        counts = {report.slots for _, report in self._reports.values()}
        if len(counts) == 1:
            self._owners, self._problems = self._assign(counts.pop())
        else:
            self._owners = []
            said = ", ".join(f"{name} {report.slots}" for name, (_, report) in self._reports.items())
            self._problems = [f"the shards have different numbers of slots: {said}"]

    def _tell(self) -> None:
        """Log what is wrong, unless that was the last message. What passes between two readings is a move."""
        problems = self._problems
        for problem in problems if problems != self._told else ():
            log.error("%s", problem)
        if self._told and not problems:
            log.info("each slot has one owner")
        self._told = problems

    def _assign(self, slots: int) -> tuple[list[S | None], list[str]]:
        """The owner of each slot, and what is wrong.

        Of two owners the one that said so in a later reading counts: the other has not responded since.
        """
        owners: list[S | None] = []
        contested: dict[str, list[int]] = {}
        for slot in range(slots):
            found = [
                (reading, shard)
                for shard in self._shards
                for reading, report in [self._reports.get(shard.name, (0, Report(0, frozenset())))]
                if slot in report.owned
            ]
            newest = max((reading for reading, _ in found), default=0)
            latest = [shard for reading, shard in found if reading == newest]
            owners.append(latest[0] if len(latest) == 1 else None)  # guard: one-owner
            if len(latest) > 1:
                contested.setdefault(" and ".join(shard.name for shard in latest), []).append(slot)
        problems = [
            f"{slot_ranges(found)} of {slots} slots is owned by {names}: none of them is served"
            for names, found in contested.items()
        ]
        if len(self._reports) == len(self._shards):
            taken = {slot for found in contested.values() for slot in found}
            if none := [slot for slot in range(slots) if owners[slot] is None and slot not in taken]:
                problems.append(f"{slot_ranges(none)} of {slots} slots has no owner")
        return owners, problems
