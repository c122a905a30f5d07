"""The order of text, which belongs to the operating system and changes with it."""

from psycopg import sql

from flashsale.database.connection import Connection, fetch_row
from flashsale.doctor.finding import Finding, Findings

_VERSIONS = """
    select d.datname::text, d.datcollversion, pg_database_collation_actual_version(d.oid)
      from pg_database d where d.datname = current_database()
"""


def collation(conn: Connection) -> Findings:
    """Whether the library orders text as it did when the indexes were built.

    The keys of flashsale are ordered by bytes. Indexes of other tables of the database may be wrong.
    """
    name, before, now = fetch_row(conn, _VERSIONS)
    if before is None or before == now:
        yield Finding("collation", "ok", "text is ordered as when the indexes were built")
        return
    database = sql.Identifier(name).as_string(conn)
    confirm = f"alter database {database} refresh collation version"
    if now is None:  # which PostgreSQL does not refresh
        forget = sql.SQL("update pg_database set datcollversion = null where datname = {}")
        confirm = forget.format(sql.Literal(name)).as_string(conn)
    yield Finding(
        "collation", "warning",
        f"the collation of database {name} had version {before} and has {now or 'none'}: indexes on text that"
        " are not in byte order may miss rows",
        f"reindex database concurrently {database}; {confirm}",
    )  # fmt: skip
