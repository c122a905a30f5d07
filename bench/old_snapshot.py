"""Load beside a transaction that stays open: row versions that VACUUM must keep must not slow the sale."""

import psycopg

from bench import report, wrk
from bench.database import Database
from bench.section import Say, Section
from bench.servers import Server


def run(database: Database, server: Server, minutes: int, seconds: int, say: Say) -> Section:
    """Holds of one hot product for so many minutes of so many seconds, beside a snapshot older than all."""
    database.start_over()
    rows = []
    with psycopg.connect(database.url) as old:
        old.execute("set transaction isolation level repeatable read")
        old.execute("select 1")  # takes the snapshot
        for minute in range(1, minutes + 1):
            answers = wrk.load(server.url, "hold", ("1",), seconds)
            if answers.refused:
                raise wrk.BenchmarkFailed(f"{answers.refused} holds were refused beside an old snapshot")
            sizes = database.execute(
                "select pg_relation_size('flashsale_data.' || name) from unnest(%s::text[]) name",
                ["stock", "stock_version_key"],
            )
            rows.append(
                [
                    str(minute),
                    f"{answers.per_second:,.0f}",
                    *[f"{latency * 1000:.1f}" for latency in (answers.p50, answers.p99)],
                    *[f"{size / 2**20:.1f}" for (size,) in sizes],
                ]
            )
            say(f"old snapshot, minute {minute} of {minutes}: {answers.per_second:,.0f}/s")
        old.rollback()
    database.settle()
    database.audit("load beside an old snapshot")
    minute_is = "" if seconds == 60 else f" A minute has {seconds} seconds here."
    return Section(f"""### An old snapshot

Holds of one hot product while a REPEATABLE READ transaction from before stays open, minute by minute: neither
VACUUM nor a page's own clearing can remove any version of the stock row, and each call adds one.{minute_is}

{report.table(["minute", "a second", "p50 ms", "p99 ms", "stock MB", "its index MB"], rows)}
""")
