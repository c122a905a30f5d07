"""What each shard is and has, and what is wrong with the whole."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import dict_row

from api.database.schema_version import digest
from flashsale.database.connection import connect, describe_error
from flashsale.doctor import slots
from flashsale.shards.databases import Database, address

_READ = """
    select s.slots, s.owned, r.schema_version, r.schema_digest, c.lag,
           (select count(*) from flashsale.list_stock(p_tests => true)) as products,
           (select coalesce(sum(total_stock), 0) from flashsale.list_stock(p_tests => true)) as units
      from flashsale.get_shard() s, flashsale.readiness() r, flashsale.scheduler c
"""


class Listing(NamedTuple):
    """All shards.

    :param shards: a row each; `error` is set if it cannot be read, and the rest null
    :param problems: sentences
    """

    shards: list[dict[str, Any]]
    problems: list[str]


def read_listing(among: Sequence[Database]) -> Listing:
    rows = [_read(database) for database in among]
    found = {row["shard"]: (row["slots"], row["owned"]) for row in rows if row["error"] is None}
    problems = [f"{row['shard']}: {row['error']}" for row in rows if row["error"] is not None]
    if problems:
        problems.append("which slots have an owner is not known")
    else:
        problems += [
            f"{each.detail}; {each.remedy}" for each in slots.of_several(found) if each.status == "failed"
        ]
    problems += [f"{row['shard']}: run: flashsale migrate" for row in rows if row["schema"] == "outdated"]
    return Listing(rows, problems)


def _read(database: Database) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(
        ("slots", "owned", "products", "units", "schema_version", "schema", "lag")
    )
    error = None
    try:
        with connect("shard list", database.url) as conn:
            found = conn.cursor(row_factory=dict_row).execute(_READ).fetchone() or {}
            row |= {name: found[name] for name in row if name in found}
            row["schema"] = "current" if found["schema_digest"] == digest() else "outdated"
    except psycopg.Error as failure:
        error = describe_error(failure)
    return {"shard": database.name, "address": address(database.url), **row, "error": error}
