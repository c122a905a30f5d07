"""Brings a database up to date: migrations/ by yoyo, functions and views of sql/, jobs of pg_cron.

Pending migrations and the functions that go with them are one transaction: no caller finds the functions of
one version with the tables of another, except a call that runs at that instant (sql_loader.py).

Three of yoyo's methods are replaced. Its lock is a table row, which a crash leaves behind; here an advisory
lock keeps other runs out, and a row found under it is stale. It records a migration after committing it, so
that a crash in between would apply it twice; here both are one transaction. It sends a file statement by
statement, which loses line numbers; here a file is sent as a whole.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import psycopg
import yoyo
from psycopg.conninfo import conninfo_to_dict
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.connections import DatabaseURI
from yoyo.migrations import default_migration_table

from api.database.schema_version import MIGRATIONS_DIRECTORY, SQL_DIRECTORY, digest, migration_ids
from flashsale.database import pg_cron, roles
from flashsale.database.connection import Connection, fetch_value, pin_settings
from flashsale.database.migration_lock import LOCK_TIMEOUT, check_lock, migration_lock
from flashsale.database.roles import OWNER, YOYO_SCHEMA
from flashsale.database.sql_loader import SqlError, load
from flashsale.errors import UserError

OLDEST_SERVER = 150000
OBJECT_LOCK_TIMEOUT = timedelta(seconds=5)
"""how long to wait for a table or a view that an open transaction uses: callers wait behind this"""

Say = Callable[[str], None]


def migrate(
    url: str,
    *,
    migrations: Path = MIGRATIONS_DIRECTORY,
    sql: Path = SQL_DIRECTORY,
    schedule: bool = True,
    lock_timeout: timedelta = LOCK_TIMEOUT,
    slots: int | None = None,
    owned: Sequence[int] | None = None,
    say: Say = print,
) -> None:
    """Apply pending migrations, load all of `sql`, and schedule the sweep; repeated, it changes nothing.

    One run at a time in a database; a second one waits. What pg_cron objects to is a warning: the schema is
    deployed then, and the sweep is not scheduled.

    :param url: of a superuser, or of a role with CREATEROLE and CREATE on the database; not through a pooler
        in transaction mode, because the lock is the session's
    :param lock_timeout: how long to wait for another run
    :param slots: divide the ids of a new shop into so many slots (docs/shards.md)
    :param owned: those of this database; None: all
    :param say: called with each line of progress
    :raises UserError: with the remedy
    """
    with migration_lock(url, lock_timeout, say) as conn:
        _check_server(conn)
        _prepare_roles(conn, url if schedule else None)
        with _pending(conn, url, migrations) as (backend, pending):
            # Those of yoyo's migrations that have no transaction, or one of their own, go first.
            while not all(map(_is_one_transaction, pending)):
                check_lock(conn)
                _apply_one(backend, pending[0])
                say(f"applied {pending.pop(0).id}")
            with backend.transaction():
                for migration in pending:
                    check_lock(conn)
                    _apply_one(backend, migration)
                check_lock(conn)
                _load(backend.connection, sql, version=migration_ids(migrations)[-1])
            for migration in pending:
                say(f"applied {migration.id}")
        say("loaded sql/")
        if slots is not None:
            _set_slots(conn, slots, owned)
        if schedule:
            say(pg_cron.schedule(conn, url))


def apply(
    url: str, upto: str | None = None, *, migrations: Path = MIGRATIONS_DIRECTORY, say: Say = print
) -> list[str]:
    """Apply pending migrations only, up to and including `upto` (None: all); returns their ids."""
    with migration_lock(url, LOCK_TIMEOUT, say) as conn:
        _check_server(conn)
        _prepare_roles(conn, None)
        applied = []
        with _pending(conn, url, migrations) as (backend, pending):
            if upto is not None and upto not in migration_ids(migrations):
                raise UserError(f"there is no migration {upto} in {migrations}")
            for migration in pending:
                if upto is None or migration.id <= upto:
                    check_lock(conn)
                    _apply_one(backend, migration)
                    applied.append(migration.id)
        return applied


def _set_slots(conn: Connection, slots: int, owned: Sequence[int] | None) -> None:
    """Divide a new shop into slots. Repeated, it leaves what has been moved since where it is."""
    if slots == 1 or fetch_value(conn, "select slots from flashsale.get_shard()") != slots:
        given = None if owned is None else list(owned)
        conn.execute("select from flashsale.set_shard(%s::int, %s::int[])", (slots, given))


def _check_server(conn: Connection) -> None:
    if conn.info.server_version < OLDEST_SERVER:
        raise UserError(
            f"PostgreSQL {OLDEST_SERVER // 10000} or newer is required; the server has version"
            f" {conn.info.server_version // 10000}"
        )


def _prepare_roles(conn: Connection, cron_url: str | None) -> None:
    """Create the roles; refuse unless this role can migrate.

    :param cron_url: if the sweep is to be scheduled: the refusal names what pg_cron requires, too
    """
    missing = roles.prepare(conn)
    if missing:
        also: list[str] = []
        with suppress(psycopg.Error):  # which scheduling would tell
            also = pg_cron.missing_grants(conn, cron_url) if cron_url else []
        raise UserError(
            f"role {conn.info.user} lacks rights to migrate this database. A superuser must run:"
            f" {' '.join(missing)}{''.join(f' For the sweep, {line}' for line in also)}"
        )


@contextmanager
def _pending(
    conn: Connection, url: str, directory: Path
) -> Iterator[tuple[PostgresqlPsycopgBackend, list[yoyo.migrations.Migration]]]:
    """A connection of yoyo's, and the migrations that are to be applied."""
    # `create schema if not exists` would require the right to create even if the schema exists.
    if not fetch_value(conn, "select exists (select from pg_namespace where nspname = %s)", (YOYO_SCHEMA,)):
        conn.execute(f"create schema {YOYO_SCHEMA} authorization {OWNER}")
    with _backend(url) as backend:
        _pin_settings(backend.connection)
        backend.execute(f"set role {OWNER}")
        if backend.lock_table not in backend.list_tables():
            backend.create_lock_table()
        backend.break_lock()
        with backend.lock():
            pending = list(backend.to_apply(yoyo.read_migrations(str(directory))))
            for migration in pending:
                migration.load()
            yield backend, pending


def _backend(url: str) -> PostgresqlPsycopgBackend:
    args = conninfo_to_dict(url)
    database = args.pop("dbname", None)
    args["schema"] = YOYO_SCHEMA
    uri = DatabaseURI("postgresql+psycopg", None, None, None, None, database, args)
    return PostgresqlPsycopgBackend(uri, default_migration_table)


def _pin_settings(conn: Connection) -> None:
    """Give yoyo's session the settings of a command, and a limit of the wait for a lock."""
    milliseconds = OBJECT_LOCK_TIMEOUT // timedelta(milliseconds=1)
    # guard: object-lock-timeout
    pin_settings(conn, keep=["search_path"], lock_timeout=f"{milliseconds}ms")  # the path is yoyo's


def _is_one_transaction(migration: yoyo.migrations.Migration) -> bool:
    """Whether it is a file of SQL that is run as a whole."""
    return bool(migration.use_transactions and migration.is_raw_sql())


def _load(conn: Connection, sql: Path, *, version: str) -> None:
    """Load sql/ and record what is loaded, in the caller's transaction."""
    load(conn, sql)
    conn.execute(
        "insert into flashsale_data.schema_state (version, digest, loaded_at)"
        " values (%s, %s, now()) on conflict (singleton) do update"
        " set version = excluded.version, digest = excluded.digest, loaded_at = excluded.loaded_at",
        (version, digest(sql)),
    )


def _apply_one(backend: PostgresqlPsycopgBackend, migration: yoyo.migrations.Migration) -> None:
    path = Path(migration.path)
    try:
        if not _is_one_transaction(migration):
            backend.apply_one(migration)
            return
        with backend.transaction():
            # The first migration runs as the role that migrates; the record is written as the owner.
            backend.execute("reset role")
            backend.connection.execute(path.read_text())
            # Its limits are its own: the transaction goes on.
            _pin_settings(backend.connection)  # guard: limits-of-a-migration
            backend.execute(f"set role {OWNER}")
            backend.init_connection(backend.connection)
            backend.mark_one(migration, log=False)
    except psycopg.Error as error:
        raise SqlError(path, path.read_text(), error) from error
