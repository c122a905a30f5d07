"""Growth: large tables, a million holds that lapse at one instant, memory, an old snapshot."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench import dataset, lapsing, memory, old_snapshot, report, targets
from bench.database import Database, running_database
from bench.rounds import Key, interleave, over_http, straight
from bench.section import Say, Section
from bench.servers import FLASHSALE, PGBENCH, Server, running_server
from bench.workloads import EMPTY_HOLD, EMPTY_HOLDS, GROWN_HOLD, GROWN_HOLDS


@dataclass(frozen=True)
class Size:
    """
    :param rounds: of as many seconds each, on empty and on grown tables
    :param active: holds in the grown tables
    :param finished: holds there that have expired or were released
    :param lapsing: holds that lapse at one instant
    :param settled: seconds of load before that instant, and again after sweep() has recorded all
    :param unswept: seconds after that instant without a sweep()
    :param warm_up: requests before memory is measured for the first time
    :param requests: more of them before it is measured again
    :param slice: seconds of one kind of requests, before the next kind
    :param minutes: spans of load with an old snapshot open
    :param minute: seconds in each of these
    """

    rounds: int = 5
    seconds: int = 8
    active: int = 1_000_000
    finished: int = 10_000_000
    lapsing: int = 1_000_000
    settled: int = 10
    unswept: int = 5
    warm_up: int = 50_000
    requests: int = 1_000_000
    slice: int = 10
    minutes: int = 10
    minute: int = 60


def run(say: Say, size: Size = Size()) -> list[Section]:
    """Measure all four."""
    logs = Path(tempfile.mkdtemp(prefix="flashsale-bench-logs-"))
    with running_database() as empty, running_server(FLASHSALE, empty.app_url, logs / "empty.log") as server:
        return [
            _rates(empty, server, logs / "grown.log", size, say),
            memory.run(empty, server, size.warm_up, size.requests, size.slice, say),
            old_snapshot.run(empty, server, size.minutes, size.minute, say),
            lapsing.run(empty, server, size.lapsing, size.settled, size.unswept, say),
        ]


def _rates(empty: Database, empty_server: Server, log: Path, size: Size, say: Say) -> Section:
    """Holds of one hot product on empty tables and on grown ones, in two clusters that take turns."""
    with running_database() as grown, running_server(FLASHSALE, grown.app_url, log) as grown_server:
        say(f"inserting {size.active:,} active holds and {size.finished:,} finished ones")
        grown.start_over()
        dataset.fill(grown, size.active, size.finished)
        say("inserted")
        samples = interleave(
            {
                Key(EMPTY_HOLD.name, FLASHSALE): over_http(empty, EMPTY_HOLD, FLASHSALE, empty_server),
                Key(GROWN_HOLD.name, FLASHSALE): over_http(
                    grown, GROWN_HOLD, FLASHSALE, grown_server, kept=True
                ),
                Key(EMPTY_HOLDS.name, PGBENCH): straight(empty, EMPTY_HOLDS),
                Key(GROWN_HOLDS.name, PGBENCH): straight(grown, GROWN_HOLDS, kept=True),
            },
            size.rounds,
            size.seconds,
            say,
        )
        # Once: holds were only added, so an error in any round is still there.
        grown.audit("holds on grown tables")
        say("audited the grown tables")
        (held,) = grown.execute("select held from flashsale_data.stock")[0]
    text = f"""### Grown tables

Holds of one hot product on empty tables, and where {size.active:,} holds are active and {size.finished:,}
have finished, all with their entries in the ledger. {size.rounds} interleaved rounds of
{size.seconds} seconds; what is placed stays, so {held:,} are active in the end.

{report.of_samples(samples)}
"""
    return Section(text, targets.judge_all(targets.GROWTH, samples), samples)
