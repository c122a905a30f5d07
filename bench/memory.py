"""How the memory of each process grows with a million requests."""

from dataclasses import dataclass

from bench import report, wrk
from bench.database import Database
from bench.machine import descendants, own_and_resident
from bench.section import Say, Section
from bench.servers import Server

PRODUCTS = 1000
SCRIPTS = (("hold", 1), ("hold", PRODUCTS), ("product", 1), ("flow", 1))
"""scripts of bench/load/ and the number of products they request: the kinds of requests alternate"""


@dataclass(frozen=True)
class Held:
    """Megabytes of one process: its own (anonymous), and all it has mapped (RSS), shared buffers included."""

    own: float
    rss: float


def run(database: Database, server: Server, warm_up: int, requests: int, seconds: int, say: Say) -> Section:
    """Measure every process after `warm_up` requests, and after `requests` more.

    :param seconds: of one kind of request, before the next kind
    """
    database.start_over(products=PRODUCTS)
    done = _send(server, warm_up, 1)
    say(f"memory: {done:,} requests to begin with")
    first = of_processes(server, database)
    sent = 0
    while sent < requests:
        sent += _send(server, 1, seconds)
        say(f"memory: {sent:,} requests")
    last = of_processes(server, database)
    database.settle()
    database.audit("a million requests")
    rows = [
        [name, f"{first[name].own:.1f}", f"{last[name].own:.1f}", f"{last[name].own - first[name].own:+.1f}",
         f"{first[name].rss:.0f}", f"{last[name].rss:.0f}"]
        for name in first if name in last
    ]  # fmt: skip
    head = ["process", f"own MB after {done:,}", f"after {sent:,} more", "growth", "RSS MB then", "RSS now"]
    return Section(f"""### Memory

Holds on one product and on {PRODUCTS:,}, GETs and whole flows in turn. A process's own memory is what it
shares with no other process; RSS includes the shared buffers that it has touched.

{report.table(head, rows)}
""")


def _send(server: Server, requests: int, seconds: int) -> int:
    sent = 0
    while sent < requests:
        for script, products in SCRIPTS:
            sent += wrk.load(server.url, script, (str(products),), seconds).count
    return sent


def of_processes(server: Server, database: Database) -> dict[str, Held]:
    """The processes of gunicorn and PostgreSQL, by their purpose."""
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
