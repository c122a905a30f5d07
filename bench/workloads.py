"""The work that is measured, as data: scripts in bench/load/ over HTTP, in bench/pgbench/ straight in SQL."""

from dataclasses import dataclass

from bench.servers import CALL_EACH, CEILING, FLASHSALE, LOCK_AND_SUM


@dataclass(frozen=True)
class Workload:
    """Something that clients ask for, over and over.

    :param name: as the report shows it
    :param script: in bench/load/
    :param servers: that do this work; flashsale first
    :param products: how many products are on sale
    :param sold_out: they have no units; every request must be refused, as otherwise none may be
    :param held: product 1 has so many active holds at the start
    :param needs: "holds" or "orders": so many of them as flashsale may use up are made beforehand
    :param selling: somebody buys meanwhile, 1,000 units a second, straight in SQL
    :param quick: measured in the quick form, too
    """

    name: str
    script: str
    servers: tuple[str, ...] = (FLASHSALE, CEILING)
    products: int = 1
    sold_out: bool = False
    held: int = 0
    needs: str = ""
    selling: bool = False
    quick: bool = True


# Five seconds into a sale at 2,000 holds a second; who sums up holds that live two minutes has worse to come.
HOT_HOLD = Workload(
    "hold, one hot product", "hold", servers=(FLASHSALE, CEILING, CALL_EACH, LOCK_AND_SUM), held=10_000
)
SOLD_OUT = Workload("hold, sold out", "hold", servers=(FLASHSALE,), sold_out=True)
SPREAD = Workload("hold, 1,000 products", "hold", servers=(FLASHSALE,), products=1000)
HOT_GET = Workload("GET one hot product", "product", selling=True)
ORDER = Workload("order", "order", needs="holds", quick=False)
WEBHOOK = Workload("webhook", "webhook", needs="orders", quick=False)
FLOW = Workload("hold, order, paid", "flow")

# The same hold beside nothing, and beside what long sales have left (bench/growth.py).
EMPTY_HOLD = Workload("hold, empty tables", "hold", servers=(FLASHSALE,))
GROWN_HOLD = Workload("hold, grown tables", "hold", servers=(FLASHSALE,))

WORKLOADS = (HOT_HOLD, SOLD_OUT, SPREAD, HOT_GET, ORDER, WEBHOOK, FLOW)


@dataclass(frozen=True)
class Script:
    """Something that pgbench does straight in SQL.

    :param name: as the report shows it
    :param script: in bench/pgbench/
    :param clients: connections
    :param batch: requests in one call
    """

    name: str
    script: str
    clients: int = 16
    batch: int = 1


UPDATE_ONE_ROW = Script("UPDATE of one row", "update_one_row")
COUNTER_AND_INSERT = Script("counter UPDATE + INSERT", "counter_and_insert")
PLACE_HOLD = Script("place_hold()", "place_hold")
PLACE_HOLDS_20 = Script("place_holds(), 20 a call", "place_holds", clients=2, batch=20)
PLACE_HOLDS_100 = Script("place_holds(), 100 a call", "place_holds", clients=2, batch=100)

EMPTY_HOLDS = Script("place_holds(), empty tables", "place_holds", clients=2, batch=100)
GROWN_HOLDS = Script("place_holds(), grown tables", "place_holds", clients=2, batch=100)

SCRIPTS = (UPDATE_ONE_ROW, COUNTER_AND_INSERT, PLACE_HOLD, PLACE_HOLDS_20, PLACE_HOLDS_100)
