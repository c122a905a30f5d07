"""Join concurrent requests into one set-based call.

A call goes out each time its lane (one connection) is free, with whatever has
arrived since: under load many requests share one lock and one commit, and a
request that comes alone travels alone, at once. Nothing here knows what the
requests are about; they are tuples in, rows out.

Each joiner has two ways to its function:

    fast      every request goes here first. Its lane gives up on a lock almost at once, so that
              a row somebody else keeps locked costs the others nothing they would notice.
    patient   requests that met such a row, or whose call failed as a whole, go again from here:
              one call at a time, on another connection, until their patience ends.

What failed and surely left no trace is sent again in ever smaller company, so
that one bad request ends up alone and fails alone; unless a lock was all that
stood in its way. What may have left a trace
is never sent again, unless it only reads.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from api.telemetry.batch_metrics import REQUEST, Observer, WayObserver

log = logging.getLogger("flashsale.api")

Arguments = tuple[Any, ...]
Row = tuple[Any, ...]
Call = Callable[[Sequence[Arguments]], Awaitable[Sequence[Row]]]
"""Sends argument tuples and returns rows `(request_no, sqlstate, ...)`, request_no being a tuple's index.
Raises NotSent, RolledBack or OutcomeUnknown, and nothing else that a caller should meet."""


class NotSent(Exception):
    """The database could not be asked. Nothing happened."""

    reason = "not_sent"


class RolledBack(Exception):
    """The server refused the call as a whole. Nothing happened.

    :param sqlstate: the server's SQLSTATE
    """

    def __init__(self, sqlstate: str, message: str = "") -> None:
        super().__init__(f"{sqlstate}: {message}")
        self.sqlstate = self.reason = sqlstate


class OutcomeUnknown(Exception):
    """The call was sent and no answer came: it may or may not have happened."""

    reason = "outcome_unknown"


class Overloaded(Exception):
    """Too many requests wait already, or this one waited too long for its turn. Nothing happened."""


class Busy(Exception):
    """Somebody kept a row locked for as long as the request could wait. Nothing happened."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a joiner. Times are in seconds.

    `patience` must leave the last call enough time to end before `deadline`: the lanes' statement timeout
    and a commit. Else callers are told that the outcome is unknown when it soon would be known.
    """

    batch: int = 500
    """requests in one call, at most (the SQL functions refuse more than 1,000)"""
    queue: int = 2000
    """requests that wait on the fast way, at most; the next one is refused at once"""
    patient_queue: int = 500
    """the same on the patient way. All that wait for locked rows must leave room among those that the server
    lets in at once (api/server/admission.py) for whoever wants another row"""
    patience: float = 0.8
    """from a request's arrival until the last moment at which it may be sent"""
    deadline: float = 1.9
    """from a request's arrival until its caller has an answer, whatever happens"""
    memory: float = 2.0
    """for how long a row that nobody could be served for counts as locked"""
    pause: float = 0.02
    """between two patient calls that served nobody"""
    tick: float = 0.05
    """how often the two limits above are looked at while anything waits"""


LOCKED = "55P03"
"""lock_not_available. Of a row: somebody has locked what this request needs; nothing was done for it."""

_AGAIN = frozenset({LOCKED, "40001", "40P01", "57014", "0A000", "26000"})
"""Failures that pass: locks, serialisation, deadlock, time, a plan outdated by a reload of the functions."""

_NOBODYS_FAULT = frozenset({"08", "25", "28", "3D", "3F", "42", "53", "57", "58"})
"""SQLSTATE classes that speak of the server or its schema: sent apart, the requests would fail again."""


class _Asked:
    """One request on its way."""

    __slots__ = ("arguments", "arrived", "company", "future", "patient", "repeats", "request")

    def __init__(
        self, arguments: Arguments, future: "asyncio.Future[Row]", arrived: float, company: int
    ) -> None:
        self.arguments = arguments
        self.future = future
        self.arrived = arrived
        self.company = company  # travels in calls of at most so many
        self.repeats = 0
        self.patient = False
        self.request = REQUEST.get()

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Joiner:
    """Serves many callers of one set-based function through few calls.

    :param call: sends a batch on the fast lane
    :param patient_call: sends a batch on the patient lane; None for functions that take no locks
    :param reads: the function changes nothing, so equal arguments in one call share a row, and a call whose
        outcome is unknown is sent again
    :param row_key: index of the argument that names the row to be locked, or what it belongs to. While
        requests for that row wait on the patient way and none is served, and for a while after, later ones
        join them there instead of stopping the fast lane again.
    :param observer: is told of each call
    """

    def __init__(
        self,
        call: Call,
        patient_call: Call | None = None,
        *,
        limits: Limits | None = None,
        reads: bool = False,
        row_key: int | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._limits = limits = limits or Limits()
        self._observer = observer = observer or Observer()
        self._row_key = row_key
        self._stuck: Counter[Any] = Counter()
        self._patient = (
            _Way(
                patient_call,
                replace(limits, queue=limits.patient_queue),
                reads,
                Busy,
                self._retry,
                observer.way("patient"),
                last=True,
            )
            if patient_call
            else None
        )
        way = observer.way("reads" if reads else "fast")
        self._fast = _Way(call, limits, reads, Overloaded, self._retry, way, last=self._patient is None)

    def ask(self, *arguments: Any) -> "asyncio.Future[Row]":
        """Send one request; the future brings its row.

        A read joins only a call that starts after this moment.

        :raises Overloaded: here and now, when too many wait already
        :returns: a future that yields the row `(request_no, sqlstate, ...)` or raises Overloaded, Busy,
            NotSent, OutcomeUnknown, or RolledBack with the failure that this request alone brought about
        """
        loop = asyncio.get_running_loop()
        asked = _Asked(arguments, loop.create_future(), loop.time(), self._limits.batch)
        if self._stuck and self._row_key is not None and arguments[self._row_key] in self._stuck:
            self._wait_patiently(asked)
        elif not self._fast.join(asked):
            raise Overloaded(f"{self._limits.queue} requests wait already")
        return asked.future

    def _retry(self, asked: _Asked) -> None:
        self._observer.sent_again(asked)
        if self._patient is None:
            self._fast.join(asked, first=True)
        else:
            self._wait_patiently(asked)

    def _wait_patiently(self, asked: _Asked) -> None:
        if self._patient is None or not self._patient.join(asked):
            asked.fail(Busy("too many wait for locked rows already"))
        elif self._row_key is not None and not asked.patient:
            asked.patient = True
            key = asked.arguments[self._row_key]
            self._stuck[key] += 1
            asked.future.add_done_callback(lambda future: self._unstick(key, future))

    def _unstick(self, key: Any, future: "asyncio.Future[Row]") -> None:
        served = not future.cancelled() and future.exception() is None
        if served:
            self._stuck.pop(key, None)
        elif key in self._stuck:
            self._stuck[key] -= 1
            # Whoever was turned away comes again.
            future.get_loop().call_later(self._limits.memory, self._forget, key)

    def _forget(self, key: Any) -> None:
        if self._stuck.get(key, 1) <= 0:
            del self._stuck[key]


class _Way:
    """A queue, the lane behind it, and the task that carries the one to the other while there is anything."""

    def __init__(
        self,
        call: Call,
        limits: Limits,
        reads: bool,
        too_late: type[Exception],
        retry: Callable[[_Asked], None],
        observer: WayObserver,
        *,
        last: bool,
    ) -> None:
        self._call = call
        self._limits = limits
        self._reads = reads
        self._too_late = too_late
        self._retry = retry
        self._observer = observer
        self._last = last  # what goes again comes back here
        self._waiting: deque[_Asked] = deque()
        self._sent: Sequence[_Asked] = ()
        self._sent_at = 0.0
        self._carrier: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None

    def join(self, asked: _Asked, *, first: bool = False) -> bool:
        """Queue a request; False when the queue is full. Who was let in before comes `first`, and gets in."""
        if len(self._waiting) >= self._limits.queue and not first:  # guard: queue-limit
            return False
        if first:
            self._waiting.appendleft(asked)
        else:
            self._waiting.append(asked)
        if self._carrier is None:
            self._carrier = asyncio.get_running_loop().create_task(self._carry())
        if self._watch is None:
            self._watch = asyncio.get_running_loop().call_later(self._limits.tick, self._look_at_the_clock)
        return True

    async def _carry(self) -> None:
        try:
            while self._waiting:
                batch = self._take()
                if batch and not await self._send(batch) and self._last:
                    # What came back would otherwise go round and round without a breath.
                    await asyncio.sleep(self._limits.pause)
        finally:
            self._carrier = None

    def _take(self) -> list[_Asked]:
        """The next batch: those who came first, as many as each of them tolerates, in order of arrival."""
        room = self._limits.batch
        batch: list[_Asked] = []
        waiting = self._waiting
        too_old = asyncio.get_running_loop().time() - self._limits.patience
        while waiting and len(batch) < min(room, waiting[0].company):
            asked = waiting.popleft()
            if asked.future.done():
                continue  # the caller left, or was told that it is too late
            if asked.arrived <= too_old:
                # Back from a call that ended after the clock was last looked at.
                asked.fail(self._too_late("waited too long"))
                continue
            if asked.company < room:
                room = asked.company
            batch.append(asked)
        if self._last:
            batch.sort(key=_arrival)  # who goes again queues behind later ones, but is served before them
        return batch

    async def _send(self, batch: list[_Asked]) -> bool:
        """Carry a batch over, hand out what came back; False when it served nobody, but may later."""
        self._sent = batch
        self._sent_at = asyncio.get_running_loop().time()
        arguments: Sequence[Arguments] = [asked.arguments for asked in batch]
        if self._reads:  # guard: writes-not-merged
            arguments = list(dict.fromkeys(arguments))
        try:
            with self._observer.calling(batch, len(arguments)):
                rows = await self._call(arguments)
            return self._hand_out(batch, arguments, rows)
        except NotSent as error:
            for asked in batch:
                asked.fail(error)
        except RolledBack as error:
            return self._send_apart(batch, error)
        except OutcomeUnknown as error:
            self._give_up(batch, error)
        except Exception as error:
            fields = self._observer.fields
            log.exception("a call of %d requests failed in an unforeseen way", len(batch), extra=fields)
            self._give_up(batch, OutcomeUnknown(str(error)), final=True)
        finally:
            self._sent = ()
        return True

    def _hand_out(self, batch: list[_Asked], arguments: Sequence[Arguments], rows: Sequence[Row]) -> bool:
        found: list[Row | None]
        if self._reads:
            row_of = {arguments[row[0]]: row for row in rows}
            found = [row_of.get(asked.arguments) for asked in batch]
        else:
            found = [None] * len(batch)
            for answer in rows:
                found[answer[0]] = answer  # guard: row-of-request
        progress = False
        for asked, row in zip(batch, found, strict=True):
            if row is None:
                fields = self._observer.fields
                log.error("a call of %d requests left one of them without a row", len(batch), extra=fields)
                asked.fail(OutcomeUnknown("no row came back"))
            elif row[1] == LOCKED:
                if not asked.future.done():
                    self._retry(asked)
            else:
                progress = True
                if not asked.future.done():
                    asked.future.set_result(row)
        return progress

    def _send_apart(self, batch: list[_Asked], error: RolledBack) -> bool:
        """The call was undone: send its requests again in smaller company, unless that cannot help."""
        again = error.sqlstate in _AGAIN
        fields = self._observer.fields
        if not again and (len(batch) == 1 or error.sqlstate[:2] in _NOBODYS_FAULT):
            log.error("a call of %d requests was rolled back: %s", len(batch), error, extra=fields)
            failure = error if len(batch) == 1 else NotSent(str(error))
            for asked in batch:
                asked.fail(failure)
            return True
        what = "a call of %d requests was rolled back and goes again: %s"
        log.info(what, len(batch), error, extra=fields)
        for asked in batch:
            # Apart, requests for a locked row would each keep the lane waiting, one after the other; in
            # company they wait once, and whoever wants another row is served past them.
            if error.sqlstate != LOCKED:
                asked.company = max(1, len(batch) // 4)
            if not asked.future.done():
                self._retry(asked)
        return not again

    def _give_up(self, batch: Sequence[_Asked], error: OutcomeUnknown, *, final: bool = False) -> None:
        """Nobody knows what became of the call: a read goes again, a write never."""
        for asked in reversed(batch):
            if not self._reads:  # guard: write-not-retried
                asked.fail(error)
            elif final or asked.repeats >= 2:
                asked.fail(NotSent(str(error)))
            elif not asked.future.done():
                asked.repeats += 1
                self._retry(asked)

    def _look_at_the_clock(self) -> None:
        """Answer everybody whose time is up. A call in flight goes on; only its callers stop waiting."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for asked in self._sent:
            if now - asked.arrived >= self._limits.deadline:  # guard: response-timeout
                asked.fail((NotSent if self._reads else OutcomeUnknown)("no answer in time"))
        dead = self._sent and now - self._sent_at >= self._limits.patience / 2
        overdue = False
        for asked in self._waiting:
            if now - asked.arrived >= self._limits.patience:
                asked.fail((NotSent if dead else self._too_late)("waited too long"))
                overdue = True
        if overdue:
            self._waiting = deque(asked for asked in self._waiting if not asked.future.done())
        self._observer.queued(len(self._waiting))
        busy = self._sent or self._waiting
        self._watch = loop.call_later(self._limits.tick, self._look_at_the_clock) if busy else None


_arrival = attrgetter("arrived")
