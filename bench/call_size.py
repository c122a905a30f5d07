"""The cost of a request by the number of requests in a call, for each set-based function.

One connection sends the HTTP server's own statements. The cost is the processor time of its backend: it
includes no wait for a disk or a lock.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row

from api.database import functions
from api.database.functions import Function
from bench import report, targets
from bench.database import BATCH, running_database
from bench.machine import run_time
from bench.rounds import Key
from bench.section import Say, Section
from bench.workloads import CALL_SIZES, SET_BASED
from bench.wrk import BenchmarkFailed

PRODUCTS = 1000
"""products that get_products() reads; all holds are of product 1"""
PAYLOAD = '{"amount":"99.00","currency":"USD"}'


@dataclass(frozen=True)
class Size:
    """
    :param rounds: each of them measures every function at every size
    :param requests: to a function at each size; a multiple of every size
    :param calls: at most so many of them, which limits the small ones
    """

    rounds: int = 5
    requests: int = 6000
    calls: int = 1000


@dataclass(frozen=True)
class Cost:
    """Processor seconds of PostgreSQL for one request."""

    cpu: float


def run(say: Say, size: Size = Size()) -> Section:
    """Measure every size once a round, each round beginning with another one."""
    samples: dict[Key, list[Cost]] = {}
    with (
        running_database() as database,
        psycopg.connect(
            database.app_url,
            autocommit=True,
            prepare_threshold=0,
            row_factory=namedtuple_row,
            cursor_factory=psycopg.RawCursor,
        ) as connection,
    ):
        for number in range(size.rounds):
            database.start_over(products=PRODUCTS)
            # TRUNCATE invalidates plans; the first call of each function makes them anew.
            _measure_all(connection, 1, 10)
            shift = number % len(CALL_SIZES)
            for batch in CALL_SIZES[shift:] + CALL_SIZES[:shift]:
                count = min(size.requests, batch * size.calls)
                for function, cost in _measure_all(connection, batch, count).items():
                    samples.setdefault(targets.cost_key(function, batch), []).append(cost)
            database.audit("calls of every size")
            say(f"round {number + 1} of {size.rounds}: every function in calls of every size")
    costs = {
        f"{function.name}()": {
            batch: median(cost.cpu for cost in samples[targets.cost_key(function, batch)]) * 1e6
            for batch in CALL_SIZES
        }
        for function in SET_BASED
    }
    rows = [[name, *[f"{cost:.1f}" for cost in by_size.values()]] for name, by_size in costs.items()]
    text = f"""Microseconds of PostgreSQL's processor time for one request, by the number of requests in a
call: the median of {size.rounds} rounds, each of at most {size.requests:,} requests and {size.calls:,} calls.

{report.table(["function", *[f"{batch:,}" for batch in CALL_SIZES]], rows)}
"""
    return Section(text, targets.judge_all(targets.CALL_SIZE, samples), costs=costs)


def _measure_all(connection: psycopg.Connection[Any], batch: int, count: int) -> dict[Function[Any], Cost]:
    """Call every function for `count` requests, `batch` in each call: the life of that many holds."""
    costs: dict[Function[Any], Cost] = {}

    def measure(function: Function[Any], requests: Sequence[tuple[Any, ...]]) -> list[Any]:
        before = run_time(connection.info.backend_pid)
        rows = _call(connection, function, requests, batch)
        costs[function] = Cost((run_time(connection.info.backend_pid) - before) / count)
        return rows

    one_unit = [(1, 1, None, None)] * count
    holds = [row.hold_id for row in measure(functions.PLACE_HOLDS, one_unit)]
    measure(functions.GET_HOLDS, [(hold_id,) for hold_id in holds])
    created = measure(functions.CREATE_ORDERS, [(hold_id, None) for hold_id in holds])
    orders = [row.order_id for row in created]
    measure(functions.GET_ORDERS, list(zip(orders, holds, strict=True)))
    measure(functions.APPLY_PAYMENTS, [(f"pay_{order}", order, "success", PAYLOAD, None) for order in orders])
    others = _call(connection, functions.PLACE_HOLDS, one_unit, BATCH)
    measure(functions.EXTEND_HOLDS, [(row.hold_id, row.expires_at.isoformat()) for row in others])
    measure(functions.RELEASE_HOLDS, [(row.hold_id,) for row in others])
    given_back = _call(connection, functions.PLACE_HOLDS, one_unit, BATCH)
    pending = _call(connection, functions.CREATE_ORDERS, [(row.hold_id, None) for row in given_back], BATCH)
    measure(
        functions.ABANDON_ORDERS,
        [(order.order_id, hold.hold_id) for order, hold in zip(pending, given_back, strict=True)],
    )
    measure(functions.GET_PRODUCTS, [(number % PRODUCTS + 1,) for number in range(count)])
    return costs


def _call(
    connection: psycopg.Connection[Any],
    function: Function[Any],
    requests: Sequence[tuple[Any, ...]],
    batch: int,
) -> list[Any]:
    """:raises BenchmarkFailed: a request was refused"""
    rows: list[Any] = []
    for first in range(0, len(requests), batch):
        parameters = function.parameters(requests[first : first + batch])
        rows += connection.execute(function.statement, parameters, binary=True)
    refused = [row for row in rows if row.sqlstate is not None]
    if refused:
        raise BenchmarkFailed(
            f"{function.name}() refused {len(refused)} of {len(rows)} requests: {refused[0]}"
        )
    return rows
