"""The generated buyers, and what each of them does after the hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from random import Random

MIN_PAUSE, MAX_PAUSE = 0.1, 1.2
"""seconds that a buyer takes before ordering and before paying"""
BOTS_PER_ACCOUNT = 50


class Step(Enum):
    """What a buyer does next, or the payment provider for the buyer."""

    ORDER = auto()
    SUCCESS = auto()
    """the provider reports a captured payment"""
    FAILED = auto()
    CANCELLED = auto()
    DECLINED = auto()
    """one attempt to pay was refused"""
    SUCCESS_TWICE = auto()
    """two captured payments, reported concurrently"""
    RELEASE = auto()
    WAIT_FOR_END_OF_RUSH = auto()
    WAIT_UNTIL_OVERDUE = auto()


@dataclass(frozen=True)
class Behaviour:
    """What a buyer with a hold does."""

    name: str
    description: str
    steps: tuple[Step, ...]


PAYS = Behaviour("paying", "order and pay", (Step.ORDER, Step.SUCCESS))
RELEASES = Behaviour("impatient: release", "release the hold", (Step.RELEASE,))
CANCELS = Behaviour("impatient: cancel", "order, then cancel the payment", (Step.ORDER, Step.CANCELLED))
LEAVES_HOLD = Behaviour("impatient: leave", "leave; the hold expires", ())
LEAVES_ORDER = Behaviour("impatient: never pay", "order and leave; the order becomes overdue", (Step.ORDER,))
FAILS = Behaviour("failing", "order; the payment fails", (Step.ORDER, Step.FAILED))
LATE = Behaviour(
    "late",
    "order; the payment fails, and is captured after the rush",
    (Step.ORDER, Step.FAILED, Step.WAIT_FOR_END_OF_RUSH, Step.SUCCESS),
)
OVERDUE = Behaviour(
    "late", "order, and pay when the order is overdue", (Step.ORDER, Step.WAIT_UNTIL_OVERDUE, Step.SUCCESS)
)
DECLINED_FIRST = Behaviour(
    "declined",
    "order; the card is declined twice, then accepted",
    (Step.ORDER, Step.DECLINED, Step.DECLINED, Step.SUCCESS),
)
PAYS_TWICE = Behaviour(
    "paying twice",
    "order; the payment is captured twice, and the second returned",
    (Step.ORDER, Step.SUCCESS_TWICE),
)
EARLY = Behaviour("early", "order; the webhook arrives before the order or concurrently", (Step.ORDER,))
BOT = Behaviour("bot", "request holds in parallel all the time; release half of them, buy the others", ())


@dataclass(frozen=True)
class Shares:
    """Percentages of buyers with each behaviour; the remaining buyers order and pay.

    `bots` is a percentage of all buyers, and the following ones are of those who are not bots.

    `duplicated` applies across the others. `early` is a percentage of the buyers who can get a unit: they
    come first, because only then can the ids of their orders be predicted. `cancelled` is a percentage of
    the paid orders.
    """

    impatient: float = 10
    duplicated: float = 20
    failing: float = 5
    declined: float = 5
    twice: float = 1
    late: float = 2
    early: float = 2
    cancelled: float = 2
    """the shop cancels the order after the rush"""
    bots: float = 0


@dataclass(frozen=True, slots=True)
class Buyer:
    """A buyer of one unit."""

    number: int
    behaviour: Behaviour
    duplicated: bool
    """every request is sent twice concurrently, and every webhook again at the end"""
    pauses: tuple[float, float]
    """seconds before the first and before the second step"""
    bot_account: int | None = None
    """the account of a bot, which other bots use, too"""

    @property
    def is_bot(self) -> bool:
        return self.behaviour is BOT

    @property
    def account(self) -> str:
        """The buyer by whom the limit is counted."""
        return f"buyer-{self.number}" if self.bot_account is None else f"bots-{self.bot_account}"


@dataclass(frozen=True)
class Buyers:
    """All buyers, in the order in which they come; bots come at any time."""

    early: Sequence[Buyer]
    crowd: Sequence[Buyer]
    bots: Sequence[Buyer] = ()


def generate_buyers(buyers: int, stock: int, shares: Shares, *, lapsing: bool, seed: int) -> Buyers:
    """Generate buyers; the same arguments give the same buyers in the same order.

    :param lapsing: holds and orders lapse within the rehearsal, and some buyers wait for that
    """
    random = Random(seed)  # noqa: S311
    bots = round(buyers * shares.bots / 100)
    early = round(min(buyers - bots, stock) * shares.early / 100)
    crowd = buyers - bots - early
    impatient = [LEAVES_HOLD, RELEASES, LEAVES_ORDER, CANCELS] if lapsing else [RELEASES, CANCELS]
    behaviours = [impatient[n % len(impatient)] for n in range(round(crowd * shares.impatient / 100))]
    behaviours += [FAILS] * round(crowd * shares.failing / 100)
    behaviours += [DECLINED_FIRST] * round(crowd * shares.declined / 100)
    behaviours += [PAYS_TWICE] * round(crowd * shares.twice / 100)
    behaviours += [OVERDUE if lapsing else LATE] * round(crowd * shares.late / 100)
    # Rounding may give a few buyers too many.
    behaviours = (behaviours + [PAYS] * crowd)[:crowd]
    random.shuffle(behaviours)
    doubled = set(random.sample(range(crowd), round(crowd * shares.duplicated / 100)))

    def pauses() -> tuple[float, float]:
        return random.uniform(MIN_PAUSE, MAX_PAUSE), random.uniform(MIN_PAUSE, MAX_PAUSE)

    return Buyers(
        early=[Buyer(number, EARLY, False, pauses()) for number in range(early)],
        crowd=[
            Buyer(early + number, behaviour, number in doubled, pauses())
            for number, behaviour in enumerate(behaviours)
        ],
        bots=[
            Buyer(early + crowd + number, BOT, False, pauses(), bot_account=number // BOTS_PER_ACCOUNT)
            for number in range(bots)
        ],
    )
