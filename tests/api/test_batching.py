"""The joiner, with calls that need no database."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from api.database.batching import (
    LOCKED,
    Busy,
    Joiner,
    Limits,
    NotSent,
    OutcomeUnknown,
    Overloaded,
    RolledBack,
)
from api.database.client import FAST_LOCK_TIMEOUT, PATIENT_LOCK_TIMEOUT
from api.database.connection import HANG_TIMEOUT, STATEMENT_TIMEOUT
from tests.api.event_loop_clock import run

QUICK = Limits(patience=0.2, deadline=0.4, pause=0.001, tick=0.01)


class Database:
    """A call whose answers a test decides, and which remembers what it was asked.

    `answers(*arguments)` gives the sqlstate of one request's row; `break_batch(batch)` the error that a call
    ends with, if any. While `gate` is closed, calls wait.
    """

    def __init__(self, answers: Callable[..., str | None] = lambda *arguments: None) -> None:
        self.answers = answers
        self.batches: list[list[tuple[Any, ...]]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.break_batch: Callable[[Sequence[tuple[Any, ...]]], Exception | None] = lambda batch: None

    async def call(self, batch: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        self.batches.append(list(batch))
        self.entered.set()
        await asyncio.sleep(0)  # as a real call would
        await self.gate.wait()
        if error := self.break_batch(batch):
            raise error
        # Backwards: rows are matched by their number, not by their place.
        return [(i, self.answers(*batch[i]), f"for {batch[i]}") for i in reversed(range(len(batch)))]

    def close_gate(self) -> None:
        self.gate.clear()
        self.entered.clear()


async def outcome(future: "asyncio.Future[Any]") -> Any:
    try:
        return await future
    except Exception as error:
        return error


def test_a_request_that_comes_alone_travels_alone_at_once() -> None:
    async def test() -> None:
        database = Database()
        joiner = Joiner(database.call, database.call)
        assert await joiner.ask("a") == (0, None, "for ('a',)")
        assert database.batches == [[("a",)]]

    run(test())


def test_requests_that_come_while_the_lane_is_taken_travel_together_and_each_gets_its_row() -> None:
    async def test() -> None:
        database = Database()
        joiner = Joiner(database.call, database.call)
        database.close_gate()
        first = joiner.ask(0)
        await database.entered.wait()
        later = [joiner.ask(n) for n in range(1, 6)]
        database.gate.set()
        rows = await asyncio.gather(first, *later)
        assert [row[2] for row in rows] == [f"for ({n},)" for n in range(6)]
        assert database.batches == [[(0,)], [(n,) for n in range(1, 6)]]

    run(test())


def test_a_call_carries_no_more_than_the_limit() -> None:
    async def test() -> None:
        database = Database()
        joiner = Joiner(database.call, database.call, limits=Limits(batch=4))
        await asyncio.gather(*[joiner.ask(n) for n in range(10)])
        assert [len(batch) for batch in database.batches] == [4, 4, 2]

    run(test())


def test_a_read_joins_only_a_call_that_starts_after_it_and_equal_reads_share_a_row() -> None:
    async def test() -> None:
        database = Database()
        joiner = Joiner(database.call, reads=True)
        database.close_gate()
        first = joiner.ask("shoe")
        await database.entered.wait()
        later = [joiner.ask("shoe"), joiner.ask("hat"), joiner.ask("shoe")]
        database.gate.set()
        await first
        rows = await asyncio.gather(*later)
        assert database.batches == [[("shoe",)], [("shoe",), ("hat",)]]
        assert [row[2] for row in rows] == ["for ('shoe',)", "for ('hat',)", "for ('shoe',)"]

    run(test())


def test_equal_writes_never_share_a_row() -> None:
    async def test() -> None:
        database = Database()
        joiner = Joiner(database.call, database.call)
        rows = await asyncio.gather(joiner.ask(1), joiner.ask(1))
        assert database.batches == [[(1,), (1,)]]
        assert [row[0] for row in rows] == [0, 1]

    run(test())


def test_a_full_queue_refuses_at_once() -> None:
    async def test() -> None:
        database = Database()
        joiner = Joiner(database.call, database.call, limits=Limits(queue=2))
        database.close_gate()
        served = [joiner.ask("in flight")]
        await database.entered.wait()
        served += [joiner.ask("waits"), joiner.ask("waits too")]
        with pytest.raises(Overloaded):
            joiner.ask("one too many")
        database.gate.set()
        await asyncio.gather(*served)

    run(test())


def test_who_waits_too_long_is_refused_and_never_sent() -> None:
    async def test() -> None:
        database = Database()
        joiner = Joiner(database.call, database.call, limits=QUICK)
        database.close_gate()
        in_flight = joiner.ask("in flight")
        await database.entered.wait()
        await asyncio.sleep(QUICK.patience / 2)
        late = joiner.ask("late")
        assert isinstance(await outcome(late), NotSent), "what is before it in the queue gets no answer"
        assert isinstance(await outcome(in_flight), OutcomeUnknown), "sent, and no answer in time"
        database.gate.set()
        assert (await joiner.ask("next"))[1] is None
        assert database.batches == [[("in flight",)], [("next",)]]

    run(test())


def test_a_caller_that_leaves_disturbs_nobody() -> None:
    async def test() -> None:
        database = Database()
        joiner = Joiner(database.call, database.call)
        database.close_gate()
        leaves_in_flight, stays_in_flight = joiner.ask("leaves in flight"), joiner.ask("stays in flight")
        await database.entered.wait()
        stays, leaves_waiting = joiner.ask("stays"), joiner.ask("leaves waiting")
        leaves_in_flight.cancel()
        leaves_waiting.cancel()
        database.gate.set()
        assert (await stays_in_flight)[2] == "for ('stays in flight',)"
        assert (await stays)[2] == "for ('stays',)"
        assert database.batches[1:] == [[("stays",)]]

    run(test())


def test_a_locked_row_holds_up_only_its_own_callers() -> None:
    async def test() -> None:
        fast = Database(lambda product: LOCKED if product == "stuck" else None)
        patient = Database()
        joiner = Joiner(fast.call, patient.call)
        patient.close_gate()
        stuck, free = joiner.ask("stuck"), joiner.ask("free")
        assert (await free)[1] is None
        await patient.entered.wait()
        assert (await joiner.ask("also free"))[1] is None, "served while the patient call still waits"
        patient.gate.set()
        assert (await stuck)[1] is None
        assert patient.batches == [[("stuck",)]]

    run(test())


def test_later_requests_for_a_stuck_row_wait_with_the_first_instead_of_stopping_the_fast_lane() -> None:
    async def test() -> None:
        fast = Database(lambda product, n: LOCKED if product == "stuck" else None)
        patient = Database()
        joiner = Joiner(fast.call, patient.call, row_key=0)
        patient.close_gate()
        first = joiner.ask("stuck", 1)
        await patient.entered.wait()
        others = [joiner.ask("stuck", n) for n in (2, 3)]
        patient.gate.set()
        await asyncio.gather(first, *others)
        assert fast.batches == [[("stuck", 1)]]
        assert patient.batches == [[("stuck", 1)], [("stuck", 2), ("stuck", 3)]]
        fast.answers = lambda product, n: None
        await joiner.ask("stuck", 4)
        assert fast.batches[-1] == [("stuck", 4)]

    run(test())


def test_a_row_of_which_one_request_was_served_is_stuck_no_more() -> None:
    async def test() -> None:
        fast = Database(lambda product, n: LOCKED if n < 3 else None)
        patient = Database(lambda product, n: None if n == 1 else LOCKED)
        joiner = Joiner(fast.call, patient.call, row_key=0, limits=QUICK)
        patient.close_gate()
        first, second = joiner.ask("stuck", 1), joiner.ask("stuck", 2)
        await patient.entered.wait()
        patient.gate.set()
        await first
        assert not second.done()
        await joiner.ask("stuck", 3)
        assert fast.batches[-1] == [("stuck", 3)]
        assert isinstance(await outcome(second), Busy)

    run(test())


def test_a_stuck_row_is_remembered_for_a_while_after_everybody_was_turned_away() -> None:
    async def test() -> None:
        fast = Database(lambda product, n: LOCKED)
        patient = Database(lambda product, n: LOCKED if n < 3 else None)
        joiner = Joiner(fast.call, patient.call, row_key=0, limits=replace(QUICK, memory=30))
        for n in (1, 2):
            assert isinstance(await outcome(joiner.ask("stuck", n)), Busy)
        assert fast.batches == [[("stuck", 1)]], "who comes again does not stop the fast lane again"
        await joiner.ask("stuck", 3)
        fast.answers = lambda product, n: None
        await joiner.ask("stuck", 4)
        assert fast.batches[-1] == [("stuck", 4)], "being served forgets it"

    run(test())


def test_a_stuck_row_is_forgotten_after_a_while() -> None:
    async def test() -> None:
        fast = Database(lambda product: LOCKED)
        patient = Database(lambda product: LOCKED)
        joiner = Joiner(fast.call, patient.call, row_key=0, limits=replace(QUICK, memory=0.01))
        assert isinstance(await outcome(joiner.ask("stuck")), Busy)
        await asyncio.sleep(0.05)
        fast.answers = lambda product: None
        await joiner.ask("stuck")
        assert len(fast.batches) == 2

    run(test())


def test_who_came_first_is_served_first_among_those_who_wait_patiently() -> None:
    async def test() -> None:
        fast = Database(lambda product, n: LOCKED)
        patient = Database(lambda product, n: LOCKED if len(patient.batches) == 1 else None)
        joiner = Joiner(fast.call, patient.call, row_key=0)
        patient.close_gate()
        first = joiner.ask("stuck", 1)
        await patient.entered.wait()
        await asyncio.sleep(0.01)
        later = [joiner.ask("stuck", n) for n in (2, 3)]
        patient.gate.set()
        await asyncio.gather(first, *later)
        assert patient.batches == [[("stuck", 1)], [("stuck", 1), ("stuck", 2), ("stuck", 3)]]

    run(test())


def test_requests_for_a_locked_row_stay_together_and_others_are_served_past_them() -> None:
    async def test() -> None:
        def breaks(batch: Sequence[tuple[Any, ...]]) -> Exception | None:
            return RolledBack(LOCKED) if all(row == "stuck" for row, _ in batch) else None

        fast = Database()
        fast.break_batch = lambda batch: RolledBack(LOCKED)
        patient = Database(lambda row, n: LOCKED if row == "stuck" else None)
        patient.break_batch = breaks
        joiner = Joiner(fast.call, patient.call, limits=QUICK)
        patient.close_gate()
        stuck = [joiner.ask("stuck", n) for n in range(8)]
        await patient.entered.wait()
        free = joiner.ask("free", 8)
        while len(fast.batches) < 2:
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        patient.gate.set()
        await free
        assert ("free", 8) in patient.batches[1], "the next call, not the one after all of the others"
        for future in stuck:
            assert isinstance(await outcome(future), Busy)

    run(test())


def test_a_row_that_stays_locked_is_retried_until_patience_ends_and_then_busy() -> None:
    async def test() -> None:
        fast = Database(lambda product: LOCKED)
        patient = Database(lambda product: LOCKED)
        joiner = Joiner(fast.call, patient.call, limits=QUICK)
        assert isinstance(await outcome(joiner.ask("stuck")), Busy)
        assert len(fast.batches) == 1
        assert 2 < len(patient.batches) <= QUICK.patience / QUICK.pause, (
            "again and again, with a breath between"
        )

    run(test())


def test_who_comes_back_from_a_call_too_late_is_not_sent_again() -> None:
    """Even before the clock is looked at again: one more call would outlast the deadline."""

    async def test() -> None:
        fast = Database(lambda product: LOCKED)
        patient = Database(lambda product: LOCKED)
        joiner = Joiner(fast.call, patient.call, limits=Limits(patience=0.1, deadline=60, pause=0, tick=60))
        patient.close_gate()
        stuck = joiner.ask("stuck")
        await patient.entered.wait()
        await asyncio.sleep(0.1)
        patient.gate.set()
        async with asyncio.timeout(5):
            assert isinstance(await outcome(stuck), Busy)
        assert len(patient.batches) == 1

    run(test())


def test_a_locked_row_that_is_let_go_in_time_is_served() -> None:
    async def test() -> None:
        fast = Database(lambda product: LOCKED)
        patient = Database(lambda product: None if len(patient.batches) == 3 else LOCKED)
        joiner = Joiner(fast.call, patient.call, limits=QUICK)
        assert (await joiner.ask("stuck"))[1] is None

    run(test())


@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "57014"])
def test_a_batch_that_failed_as_a_whole_goes_again_in_smaller_company_never_as_it_was(sqlstate: str) -> None:
    async def test() -> None:
        fast, patient = Database(), Database()
        fast.break_batch = lambda batch: RolledBack(sqlstate)
        joiner = Joiner(fast.call, patient.call, limits=QUICK)
        rows = await asyncio.gather(*[joiner.ask(n) for n in range(16)])
        assert [row[2] for row in rows] == [f"for ({n},)" for n in range(16)]
        assert [len(batch) for batch in fast.batches] == [16]
        assert [len(batch) for batch in patient.batches] == [4, 4, 4, 4]

    run(test())


def test_only_the_culprit_of_a_failed_batch_fails() -> None:
    async def test() -> None:
        def breaks(batch: Sequence[tuple[Any, ...]]) -> Exception | None:
            return RolledBack("22P02") if ("poison",) in batch else None

        fast, patient = Database(), Database()
        fast.break_batch = patient.break_batch = breaks
        joiner = Joiner(fast.call, patient.call)
        names = ["poison" if n == 7 else n for n in range(20)]
        outcomes = await asyncio.gather(*[outcome(joiner.ask(name)) for name in names])
        assert isinstance(outcomes[7], RolledBack)
        assert outcomes[7].sqlstate == "22P02"
        assert all(row[1] is None for n, row in enumerate(outcomes) if n != 7)
        assert patient.batches.count([("poison",)]) == 1

    run(test())


def test_a_failure_of_the_server_itself_is_not_repeated_for_each_request() -> None:
    async def test() -> None:
        fast, patient = Database(), Database()
        fast.break_batch = lambda batch: RolledBack("53200", "out of memory")
        joiner = Joiner(fast.call, patient.call)
        outcomes = await asyncio.gather(*[outcome(joiner.ask(n)) for n in range(3)])
        assert all(isinstance(error, NotSent) for error in outcomes)
        assert len(fast.batches) == 1
        assert not patient.batches

    run(test())


def test_a_write_whose_outcome_is_unknown_is_never_sent_again() -> None:
    async def test() -> None:
        fast, patient = Database(), Database()
        fast.break_batch = lambda batch: OutcomeUnknown("the connection broke")
        joiner = Joiner(fast.call, patient.call)
        outcomes = await asyncio.gather(outcome(joiner.ask(1)), outcome(joiner.ask(2)))
        assert all(isinstance(error, OutcomeUnknown) for error in outcomes)
        assert fast.batches == [[(1,), (2,)]]
        assert not patient.batches

    run(test())


def test_a_read_whose_outcome_is_unknown_is_sent_again_a_few_times() -> None:
    async def test() -> None:
        database = Database()
        database.break_batch = lambda batch: OutcomeUnknown("cut") if len(database.batches) < 3 else None
        joiner = Joiner(database.call, reads=True)
        assert (await joiner.ask(1))[1] is None
        database.batches.clear()
        database.break_batch = lambda batch: OutcomeUnknown("cut")
        assert isinstance(await outcome(joiner.ask(2)), NotSent)
        assert len(database.batches) == 3

    run(test())


def test_a_read_that_goes_again_finds_room_in_a_full_queue() -> None:
    async def test() -> None:
        database = Database()
        database.break_batch = lambda batch: OutcomeUnknown("cut") if len(database.batches) == 1 else None
        joiner = Joiner(database.call, reads=True, limits=Limits(queue=1))
        database.close_gate()
        first = joiner.ask(1)
        await database.entered.wait()
        second = joiner.ask(2)
        database.gate.set()
        assert [row[1] for row in await asyncio.gather(first, second)] == [None, None]

    run(test())


def test_an_absent_database_is_said_to_all_who_ask_and_the_next_may_find_it_back() -> None:
    async def test() -> None:
        database = Database()
        database.break_batch = lambda batch: NotSent("refused")
        joiner = Joiner(database.call, database.call)
        outcomes = await asyncio.gather(outcome(joiner.ask(1)), outcome(joiner.ask(2)))
        assert all(isinstance(error, NotSent) for error in outcomes)
        database.break_batch = lambda batch: None
        assert (await joiner.ask(3))[1] is None

    run(test())


@pytest.mark.parametrize("rows", [[], [(0, None, "")], [(7, None, "")]])
def test_a_call_that_answers_nonsense_leaves_nobody_waiting(rows: list[tuple[Any, ...]]) -> None:
    async def test() -> None:
        async def call(batch: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
            return rows

        joiner = Joiner(call, call)
        outcomes = await asyncio.gather(outcome(joiner.ask(1)), outcome(joiner.ask(2)))
        assert isinstance(outcomes[1], OutcomeUnknown)

    run(test())


def test_the_servers_word_comes_before_ours() -> None:
    left = Limits().deadline - Limits().patience
    assert PATIENT_LOCK_TIMEOUT < STATEMENT_TIMEOUT < left * 1000
    assert Limits().deadline < min(HANG_TIMEOUT, 2)
    assert FAST_LOCK_TIMEOUT < PATIENT_LOCK_TIMEOUT
    assert Limits().batch <= 1000, "the functions take no more"


def test_a_hanging_call_is_no_reason_to_let_callers_hang() -> None:
    async def test() -> None:
        database = Database()
        joiner = Joiner(database.call, reads=True, limits=QUICK)
        database.close_gate()
        assert isinstance(await outcome(joiner.ask(1)), NotSent)
        took = asyncio.get_running_loop().time()
        assert QUICK.deadline <= took < QUICK.deadline + 2 * QUICK.tick
        database.gate.set()
        assert (await joiner.ask(2))[1] is None

    run(test())
