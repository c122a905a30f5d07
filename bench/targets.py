"""The targets: bounds on ratios within one run. bench/README.md says where each comes from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from api.database.functions import Function
from bench import workloads
from bench.rounds import Key
from bench.servers import CALL_EACH, CEILING, FLASHSALE, LOCK_AND_SUM, PGBENCH, REDIS


@dataclass(frozen=True)
class Target:
    """A bound on the ratio of two measurements of the same round.

    :param figure: attribute of the samples
    :param most: the bound is an upper one
    """

    text: str
    of: Key
    to: Key
    bound: float
    figure: str = "per_second"
    most: bool = False

    def ratios(self, samples: Mapping[Key, Sequence[Any]]) -> list[float]:
        pairs = zip(samples[self.of], samples[self.to], strict=True)
        return [getattr(one, self.figure) / getattr(other, self.figure) for one, other in pairs]


@dataclass(frozen=True)
class Verdict:
    """A ratio's median and spread against its bound."""

    text: str
    bound: float
    most: bool
    ratio: float
    least_seen: float
    most_seen: float

    @property
    def met(self) -> bool:
        return self.ratio <= self.bound if self.most else self.ratio >= self.bound


HOT = Key(workloads.HOT_HOLD.name, FLASHSALE)
HOT_256 = Key(workloads.HOT_HOLD_256.name, FLASHSALE)
LIMITED = Key(workloads.LIMITED_HOLD.name, FLASHSALE)
CEILING_OF_HOLDS = Key(workloads.HOT_HOLD.name, CEILING)

RATES = (
    Target("hot hold ÷ ceiling (a)", HOT, CEILING_OF_HOLDS, 0.65),
    Target(
        "hot hold ÷ ceiling, 256 connections",
        HOT_256, Key(workloads.HOT_HOLD_256.name, CEILING), 0.85,
    ),
    Target("hot hold ÷ Redis in memory (e)", HOT, Key(workloads.HOT_HOLD.name, REDIS), 1.5),
    Target(
        "hot hold ÷ Redis, 256 connections",
        HOT_256, Key(workloads.HOT_HOLD_256.name, REDIS), 2,
    ),
    Target("hot hold ÷ one call each (b)", HOT, Key(workloads.HOT_HOLD.name, CALL_EACH), 8),
    Target("hot hold ÷ lock and sum (c)", HOT, Key(workloads.HOT_HOLD.name, LOCK_AND_SUM), 10),
    Target("hold with a limit for each buyer ÷ without one", LIMITED, HOT, 0.8),
    Target("sold-out hold ÷ ceiling", Key(workloads.SOLD_OUT.name, FLASHSALE), CEILING_OF_HOLDS, 0.85),
    Target(
        "hot GET ÷ ceiling",
        Key(workloads.HOT_GET.name, FLASHSALE), Key(workloads.HOT_GET.name, CEILING), 0.85,
    ),
    Target(
        "whole flow ÷ ceiling",
        Key(workloads.FLOW.name, FLASHSALE), Key(workloads.FLOW.name, CEILING), 0.65,
    ),
    Target(
        "place_holds(), 100 a call ÷ bare INSERTs of its rows",
        Key(workloads.PLACE_HOLDS_100.name, PGBENCH), Key(workloads.BARE_INSERT_100.name, PGBENCH), 0.7,
    ),
    Target(
        "place_hold() ÷ a bare INSERT of its rows",
        Key(workloads.PLACE_HOLD.name, PGBENCH), Key(workloads.BARE_INSERT.name, PGBENCH), 0.6,
    ),
    Target("p99 of hot hold ÷ p99 of the ceiling", HOT, CEILING_OF_HOLDS, 3, figure="p99", most=True),
)  # fmt: skip

GROWTH = (
    Target(
        "hold, grown ÷ empty tables",
        Key(workloads.GROWN_HOLD.name, FLASHSALE), Key(workloads.EMPTY_HOLD.name, FLASHSALE), 0.95,
    ),
    Target(
        "place_holds(), grown ÷ empty tables",
        Key(workloads.GROWN_HOLDS.name, PGBENCH), Key(workloads.EMPTY_HOLDS.name, PGBENCH), 0.95,
    ),
)  # fmt: skip

PEAK = Key("hold, as many as it takes", FLASHSALE)
TWICE = Key("hold, twice as many offered", FLASHSALE)

OVERLOAD = (Target("hold, twice the peak offered ÷ peak", TWICE, PEAK, 0.9),)


def cost_key(function: Function[Any], size: int) -> Key:
    """The samples of a function's cost in calls of `size` requests."""
    return Key(f"{function.name}()", f"{size:,} a call")


CALL_SIZE = tuple(
    Target(
        f"cost of {function.name}(), 1,000 ÷ 100 a call",
        cost_key(function, 1000), cost_key(function, 100), 1, figure="cpu", most=True,
    )
    for function in workloads.SET_BASED
)  # fmt: skip


def judge_all(targets: Iterable[Target], samples: Mapping[Key, Sequence[Any]]) -> tuple[Verdict, ...]:
    return tuple(judge(target, samples) for target in targets)


def judge(target: Target, samples: Mapping[Key, Sequence[Any]]) -> Verdict:
    ratios = target.ratios(samples)
    return Verdict(target.text, target.bound, target.most, median(ratios), min(ratios), max(ratios))
