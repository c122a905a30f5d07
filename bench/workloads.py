"""The work that is measured, as data: scripts in load/ over HTTP, in pgbench_scripts/ straight in SQL."""

from dataclasses import dataclass

from api.database import functions
from bench import wrk
from bench.servers import CALL_EACH, CEILING, FLASHSALE, LOCK_AND_SUM, REDIS, REDIS_FSYNC
from flashsale.database.seed import APP_ROLE
from flashsale.local.cluster import SUPERUSER


@dataclass(frozen=True)
class Workload:
    """A kind of load over HTTP.

    :param name: as the report shows it
    :param script: in bench/load/
    :param servers: that it is run against; flashsale first
    :param products: how many products are on sale
    :param sold_out: they have no units, and every request must be refused; else none may be
    :param held: product 1 has so many active holds at the start
    :param limit: units of product 1 that a buyer may have
    :param needs: "holds" or "orders": as many of them as flashsale may use up are made beforehand
    :param selling: another client buys 1,000 units a second meanwhile, straight in SQL
    :param quick: measured in the quick form, too
    :param connections: in a closed loop
    """

    name: str
    script: str
    servers: tuple[str, ...] = (FLASHSALE, CEILING)
    products: int = 1
    sold_out: bool = False
    held: int = 0
    limit: int | None = None
    needs: str = ""
    selling: bool = False
    quick: bool = True
    connections: int = wrk.CONNECTIONS


# Five seconds into a sale at 2,000 holds a second. Where holds are summed up, two minutes of them cost more.
HOT_HOLD = Workload(
    "hold, one hot product",
    "hold",
    servers=(FLASHSALE, CEILING, CALL_EACH, LOCK_AND_SUM, REDIS, REDIS_FSYNC),
    held=10_000,
)
HOT_HOLD_256 = Workload(
    "hold, 256 connections",
    "hold",
    servers=(FLASHSALE, CEILING, REDIS, REDIS_FSYNC),
    held=10_000,
    connections=256,
)
LIMITED_HOLD = Workload(
    "hold, limit for each buyer", "limited_hold", servers=(FLASHSALE,), held=10_000, limit=2
)
SOLD_OUT = Workload("hold, sold out", "hold", servers=(FLASHSALE,), sold_out=True)
SPREAD = Workload("hold, 1,000 products", "hold", servers=(FLASHSALE,), products=1000)
HOT_GET = Workload("GET one hot product", "product", selling=True)
ORDER = Workload("order", "order", needs="holds", quick=False)
WEBHOOK = Workload("webhook", "webhook", needs="orders", quick=False)
FLOW = Workload("hold, order, paid", "flow")

# The same hold with empty tables, and with the rows of long sales (bench/growth.py).
EMPTY_HOLD = Workload("hold, empty tables", "hold", servers=(FLASHSALE,))
GROWN_HOLD = Workload("hold, grown tables", "hold", servers=(FLASHSALE,))

WORKLOADS = (HOT_HOLD, HOT_HOLD_256, LIMITED_HOLD, SOLD_OUT, SPREAD, HOT_GET, ORDER, WEBHOOK, FLOW)


@dataclass(frozen=True)
class Script:
    """A kind of load straight in SQL, by pgbench.

    :param name: as the report shows it
    :param script: in bench/pgbench_scripts/
    :param clients: connections
    :param batch: requests in one call
    :param user: as whom it connects
    """

    name: str
    script: str
    clients: int = 16
    batch: int = 1
    user: str = APP_ROLE


COUNTER_AND_INSERT = Script("counter UPDATE + INSERT", "counter_and_insert")
PLACE_HOLD = Script("place_hold()", "place_hold")
BARE_INSERT = Script("its rows, bare INSERT", "bare_insert", user=SUPERUSER)
PLACE_HOLDS_20 = Script("place_holds(), 20 a call", "place_holds", clients=2, batch=20)
PLACE_HOLDS_100 = Script("place_holds(), 100 a call", "place_holds", clients=2, batch=100)
BARE_INSERT_100 = Script("their rows, bare INSERTs", "bare_insert", clients=2, batch=100, user=SUPERUSER)

EMPTY_HOLDS = Script("place_holds(), empty tables", "place_holds", clients=2, batch=100)
GROWN_HOLDS = Script("place_holds(), grown tables", "place_holds", clients=2, batch=100)

SCRIPTS = (COUNTER_AND_INSERT, PLACE_HOLD, BARE_INSERT, PLACE_HOLDS_20, PLACE_HOLDS_100, BARE_INSERT_100)

SET_BASED = (
    functions.PLACE_HOLDS,
    functions.CREATE_ORDERS,
    functions.APPLY_PAYMENTS,
    functions.RELEASE_HOLDS,
    functions.EXTEND_HOLDS,
    functions.ABANDON_ORDERS,
    functions.GET_PRODUCTS,
    functions.GET_HOLDS,
    functions.GET_ORDERS,
)
CALL_SIZES = (1, 10, 30, 100, 300, 1000)
"""requests in one call of each of them (bench/call_size.py)"""
