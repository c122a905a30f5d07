"""The schema: migrations, functions and views."""

import re

from psycopg import sql
from yoyo.migrations import default_migration_table

from api.database.schema_version import MIGRATIONS_DIRECTORY, SQL_DIRECTORY, digest, migration_ids
from flashsale.database.connection import Connection, fetch_value
from flashsale.database.drift import differences
from flashsale.database.roles import YOYO_SCHEMA
from flashsale.doctor.finding import MIGRATE, Finding, Findings


def migrations(conn: Connection) -> Findings:
    known = migration_ids()
    if not fetch_value(conn, "select to_regnamespace(%s) is not null", (YOYO_SCHEMA,)):
        yield Finding("migrations", "failed", "this database has not been migrated", MIGRATE)
        return
    query = sql.SQL("select migration_id from {}").format(
        sql.Identifier(YOYO_SCHEMA, default_migration_table)
    )
    applied = [name for (name,) in conn.execute(query)]
    pending = [name for name in known if name not in applied]
    unknown = sorted(set(applied) - set(known))
    if pending:
        yield Finding("migrations", "failed", f"pending: {', '.join(pending)}", MIGRATE)
    if unknown:
        yield Finding(
            "migrations", "failed", f"the database has migrations of a newer version: {', '.join(unknown)}",
            "use the version of flashsale that migrated it",
        )  # fmt: skip
    missing = _missing_tables(conn, applied)
    for table in missing:
        # Applied migrations are not applied again.
        remedy = "restore the database from a backup"
        yield Finding("migrations", "failed", f"table flashsale_data.{table} is missing", remedy)
    if not (pending or unknown or missing):
        yield Finding("migrations", "ok", f"applied up to {known[-1]}")


def _missing_tables(conn: Connection, applied: list[str]) -> list[str]:
    """The tables that applied migrations have created and that are gone."""
    files = [MIGRATIONS_DIRECTORY / f"{name}.sql" for name in applied]
    text = "".join(file.read_text() for file in files if file.exists())
    created, dropped = (
        set(re.findall(rf"^{word} table flashsale_data\.(\w+)", text, re.MULTILINE))
        for word in ("create", "drop")
    )
    found = conn.execute(
        "select relname from pg_class where relnamespace = to_regnamespace('flashsale_data')"
    )
    return sorted(created - dropped - {name for (name,) in found})


def functions(conn: Connection) -> Findings:
    is_current = fetch_value(conn, "select schema_digest from flashsale.readiness()") == digest()
    if not is_current:
        yield Finding("functions", "failed", "the loaded sql/ is of another version", MIGRATE)
    found = list(differences(conn, SQL_DIRECTORY))
    for difference in found:
        yield Finding("functions", "failed", difference, f"{MIGRATE} (it reloads sql/ and drops the rest)")
    if is_current and not found:
        yield Finding("functions", "ok", "functions and views are those of sql/")
