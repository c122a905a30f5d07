"""What a million requests leave in the memory of each process."""

from dataclasses import dataclass

from bench import report, wrk
from bench.database import Database
from bench.machine import descendants, own_and_resident
from bench.section import Say, Section
from bench.servers import Server

PRODUCTS = 1000
SCRIPTS = (("hold", 1), ("hold", PRODUCTS), ("product", 1), ("flow", 1))
"""scripts of bench/load/ and the products they ask for: every kind of request takes its turn"""


@dataclass(frozen=True)
class Held:
    """Megabytes of one process: its own (anonymous), and all it has mapped (RSS), shared buffers included."""

    own: float
    rss: float


def run(database: Database, server: Server, warm_up: int, requests: int, seconds: int, say: Say) -> Section:
    """Look at every process after `warm_up` requests, and after `requests` more.

    :param seconds: in which one kind of request is asked, before the next has its turn
    """
    database.start_over(products=PRODUCTS)
    done = _ask(server, warm_up, 1)
    say(f"memory: {done:,} requests to begin with")
    first = of_processes(server, database)
    asked = 0
    while asked < requests:
        asked += _ask(server, 1, seconds)
        say(f"memory: {asked:,} requests")
    last = of_processes(server, database)
    database.settle()
    database.audit("a million requests")
    rows = [
        [name, f"{first[name].own:.1f}", f"{last[name].own:.1f}", f"{last[name].own - first[name].own:+.1f}",
         f"{first[name].rss:.0f}", f"{last[name].rss:.0f}"]
        for name in first if name in last
    ]  # fmt: skip
    head = ["process", f"own MB after {done:,}", f"after {asked:,} more", "growth", "RSS MB then", "RSS now"]
    return Section(f"""### Memory

Holds on one product and on {PRODUCTS:,}, GETs and whole flows in turn. A process's own memory is what it
shares with nobody; RSS counts the shared buffers that it has touched, too.

{report.table(head, rows)}
""")


def _ask(server: Server, requests: int, seconds: int) -> int:
    asked = 0
    while asked < requests:
        for script, products in SCRIPTS:
            asked += wrk.load(server.url, script, (str(products),), seconds).count
    return asked


def of_processes(server: Server, database: Database) -> dict[str, Held]:
    """By what each process does: gunicorn's, and PostgreSQL's."""
    backends = database.execute(
        "select coalesce(nullif(application_name, ''), backend_type), pid from pg_stat_activity"
        " where pid <> pg_backend_pid() order by backend_type <> 'client backend', application_name"
    )
    pids = {
        "gunicorn": server.pid,
        **{f"its worker {number}": pid for number, pid in enumerate(descendants(server.pid), 1)},
        "postmaster": database.pid,
        **dict(backends),
    }
    held = {name: own_and_resident(pid) for name, pid in pids.items()}
    return {name: Held(*(size / 2**20 for size in sizes)) for name, sizes in held.items() if sizes}
