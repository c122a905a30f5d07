"""Who comes to a rehearsal, and what each of them does once the units are reserved."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from random import Random

SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 1.2
"""seconds that a buyer takes to make up their mind, or to type in a card"""


class Step(Enum):
    """What a buyer, or the payment provider for them, does next."""

    ORDER = auto()
    SUCCESS = auto()
    """the provider reports that the payment was captured"""
    FAILED = auto()
    CANCELLED = auto()
    RELEASE = auto()
    UNTIL_RUSH_IS_OVER = auto()
    UNTIL_OVERDUE = auto()


@dataclass(frozen=True)
class Behaviour:
    """A way to go on from a hold."""

    name: str
    does: str
    steps: tuple[Step, ...]


PAYS = Behaviour("paying", "order and pay", (Step.ORDER, Step.SUCCESS))
RELEASES = Behaviour("impatient: release", "give the hold back", (Step.RELEASE,))
CANCELS = Behaviour("impatient: cancel", "order, then cancel the payment", (Step.ORDER, Step.CANCELLED))
LEAVES_HOLD = Behaviour("impatient: leave", "leave; the hold lapses", ())
LEAVES_ORDER = Behaviour("impatient: never pay", "order and leave; the order lapses", (Step.ORDER,))
FAILS = Behaviour("failing", "order; the payment fails", (Step.ORDER, Step.FAILED))
LATE = Behaviour(
    "late",
    "order; the payment fails, and is captured after all when the rush is over",
    (Step.ORDER, Step.FAILED, Step.UNTIL_RUSH_IS_OVER, Step.SUCCESS),
)
OVERDUE = Behaviour(
    "late", "order, and pay when the order has lapsed", (Step.ORDER, Step.UNTIL_OVERDUE, Step.SUCCESS)
)
EARLY = Behaviour("early", "order; the payment's word is there first, or at the same moment", (Step.ORDER,))


@dataclass(frozen=True)
class Shares:
    """How many of a hundred buyers behave in some way; the rest just order and pay.

    `duplicated` goes across the others. `early` is of those who can get a unit at all: they come first,
    because only then is it known which id their order will have.
    """

    impatient: float = 10
    duplicated: float = 20
    failing: float = 5
    late: float = 2
    early: float = 2


@dataclass(frozen=True, slots=True)
class Buyer:
    """Somebody who wants one unit."""

    number: int
    behaviour: Behaviour
    duplicated: bool
    """each of their requests is sent twice at the same moment, and each webhook once more at the end"""
    pauses: tuple[float, float]
    """seconds before the first step and before the second"""


@dataclass(frozen=True)
class Cast:
    """Everybody, in the order in which they come."""

    early: Sequence[Buyer]
    crowd: Sequence[Buyer]


def cast(buyers: int, stock: int, shares: Shares, *, lapsing: bool, seed: int) -> Cast:
    """The same buyers in the same order for the same arguments.

    :param lapsing: holds and orders lapse within the rehearsal, so that some may wait for it
    """
    random = Random(seed)  # noqa: S311
    early = round(min(buyers, stock) * shares.early / 100)
    crowd = buyers - early
    impatient = [LEAVES_HOLD, RELEASES, LEAVES_ORDER, CANCELS] if lapsing else [RELEASES, CANCELS]
    behaviours = [impatient[n % len(impatient)] for n in range(round(crowd * shares.impatient / 100))]
    behaviours += [FAILS] * round(crowd * shares.failing / 100)
    behaviours += [OVERDUE if lapsing else LATE] * round(crowd * shares.late / 100)
    # Shares that make a hundred may round to one buyer too many.
    behaviours = (behaviours + [PAYS] * crowd)[:crowd]
    random.shuffle(behaviours)
    doubled = set(random.sample(range(crowd), round(crowd * shares.duplicated / 100)))

    def pauses() -> tuple[float, float]:
        return random.uniform(SHORTEST_PAUSE, LONGEST_PAUSE), random.uniform(SHORTEST_PAUSE, LONGEST_PAUSE)

    return Cast(
        early=[Buyer(number, EARLY, False, pauses()) for number in range(early)],
        crowd=[
            Buyer(early + number, behaviour, number in doubled, pauses())
            for number, behaviour in enumerate(behaviours)
        ],
    )
