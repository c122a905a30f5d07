"""Runs the checks."""

import os
from collections.abc import Callable, Mapping
from functools import partial

import psycopg
from psycopg import errors

from flashsale.database.connection import Connection, connect, describe_error, fetch_row, fetch_value
from flashsale.database.roles import OWNER, inherit
from flashsale.doctor import (
    audit,
    collation,
    configuration,
    limits,
    orphans,
    pg_cron,
    postgresql,
    replication,
    roles,
    schema,
    session,
    slots,
)
from flashsale.doctor.finding import MIGRATE, Finding, Findings
from flashsale.errors import UserError

_ALWAYS: dict[str, Callable[[Connection], Findings]] = {
    "database": postgresql.database,
    "server": postgresql.server,
    "clock": postgresql.clock,
    # Before all remedies that write: the database may be read-only.
    "settings": postgresql.settings,
    "durability": postgresql.durability,
    "session": session.session,
    "collation": collation.collation,
    "migrations": schema.migrations,
}


def _if_migrated(environment: Mapping[str, str]) -> dict[str, Callable[[Connection], Findings]]:
    return {
        # Roles and owners first: `flashsale migrate`, the remedy of the others, needs them.
        "roles": roles.roles,
        "grants": roles.grants,
        "functions": schema.functions,
        "connections": limits.connections,
        "subscriptions": replication.subscriptions,
        "publications": replication.publications,
        "sequences": replication.sequences,
        "orphans": orphans.orphans,
        "sale_settings": partial(configuration.sale_settings, environment=environment),
        "sale_terms": partial(configuration.sale_terms, environment=environment),
        "rejected_webhooks": configuration.rejected_webhooks,
        "test_products": configuration.test_products,
        "pg_cron": pg_cron.pg_cron,
        "audit": audit.audit,
    }


def diagnose(environment: Mapping[str, str] = os.environ) -> Findings:
    """Run every check whose prerequisites hold."""
    yield from diagnose_machine(environment)
    yield from diagnose_database(environment, {"slots": slots.of_one_database})


def diagnose_machine(environment: Mapping[str, str]) -> Findings:
    """The checks that need no database."""
    yield from configuration.secrets(environment)
    yield from configuration.server_environment(environment)
    yield from limits.open_files()


def diagnose_database(
    environment: Mapping[str, str], more: Mapping[str, Callable[[Connection], Findings]] | None = None
) -> Findings:
    """The checks of the database.

    :param more: further ones, of a database that has been migrated
    """
    try:
        conn = connect("doctor")
    except (UserError, psycopg.OperationalError) as error:
        message = str(error) if isinstance(error, UserError) else describe_error(error)
        yield Finding("database", "failed", message, "start it, or set FLASHSALE_DATABASE_URL to its address")
        return
    with conn:
        migrated = _if_migrated(environment) | dict(more or {})
        checks = _ALWAYS | (migrated if fetch_value(conn, _MIGRATED) else {})
        for name, check in checks.items():
            try:
                yield from check(conn)
            except errors.InsufficientPrivilege as error:
                yield Finding(
                    name, "warning", f"not checked by role {conn.info.user}: {error.diag.message_primary}",
                    _rights(conn),
                )  # fmt: skip
            except (errors.ReadOnlySqlTransaction, errors.FeatureNotSupported) as error:
                yield Finding(
                    name, "warning", f"not checked: {error.diag.message_primary}", "run doctor on the primary"
                )
            except (errors.UndefinedFunction, errors.UndefinedTable, errors.UndefinedColumn) as error:
                detail = f"the schema is incomplete: {error.diag.message_primary}"
                yield Finding(name, "failed", detail, MIGRATE)


def _rights(conn: Connection) -> str:
    """How this role gets the rights to run every check."""
    user, is_superuser, is_member = fetch_row(
        conn,
        "select quote_ident(current_user), current_setting('is_superuser')::boolean,"
        " coalesce(pg_has_role(to_regrole('flashsale_owner'), 'member'), false)"
        " and not pg_has_role(to_regrole('flashsale_owner'), 'usage')",
    )
    if is_superuser:
        return "correct first what the checks of roles and grants have found"
    if is_member:
        return inherit(user, OWNER, conn.info.server_version)
    return "run doctor as the role that migrates, or as a superuser"


# Unlike to_regclass(), this requires no right on the schemas.
_MIGRATED = "select count(*) = 2 from pg_namespace where nspname in ('flashsale', 'flashsale_data')"
