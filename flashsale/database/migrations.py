"""Brings a database up to date: migrations/ by yoyo, functions and views of sql/, jobs of pg_cron.

Three of yoyo's methods are replaced. Its lock is a table row, which a crash leaves behind; here an advisory
lock keeps other runs out, and a row found under it is stale. It records a migration after committing it, so
that a crash in between would apply it twice; here both are one transaction. It sends a file statement by
statement, which loses line numbers; here a file is sent as a whole.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import yoyo
from psycopg.conninfo import conninfo_to_dict
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.connections import DatabaseURI
from yoyo.migrations import default_migration_table

from api.database.schema_version import MIGRATIONS_DIRECTORY, SQL_DIRECTORY, digest, migration_ids
from flashsale.database import pg_cron
from flashsale.database.connection import Connection, describe_error, fetch_row, fetch_value
from flashsale.database.sql_loader import SqlError, load
from flashsale.errors import UserError

# A schema of its own: yoyo's tables must exist before the first migration creates ours.
YOYO_SCHEMA = "flashsale_migrations"
OLDEST_SERVER = 150000
_LOCK_KEY = 0x666C617368  # "flash"

Say = Callable[[str], None]


def migrate(
    url: str,
    *,
    migrations: Path = MIGRATIONS_DIRECTORY,
    sql: Path = SQL_DIRECTORY,
    schedule: bool = True,
    say: Say = print,
) -> None:
    """Apply pending migrations, load all of `sql`, and schedule the sweep; repeated, it changes nothing.

    One run at a time in a database; a second one waits.

    :param url: of a superuser, or of a role with CREATEROLE and CREATE on the database; not through a pooler
        in transaction mode, because the lock is the session's
    :param say: called with each line of progress
    :raises UserError: with the remedy
    """
    with _migration_lock(url, say) as conn:
        _check_rights(conn)
        for name in _apply(conn, url, migrations, None):
            say(f"applied {name}")
        with conn.transaction():
            load(conn, sql)
            conn.execute(
                "insert into flashsale_data.schema_state (version, digest, loaded_at)"
                " values (%s, %s, now()) on conflict (singleton) do update"
                " set version = excluded.version, digest = excluded.digest, loaded_at = excluded.loaded_at",
                (migration_ids(migrations)[-1], digest(sql)),
            )
        say("loaded sql/")
        if schedule:
            say(pg_cron.schedule(conn, url))


def apply(
    url: str, upto: str | None = None, *, migrations: Path = MIGRATIONS_DIRECTORY, say: Say = print
) -> list[str]:
    """Apply pending migrations only, up to and including `upto` (None: all); returns their ids."""
    with _migration_lock(url, say) as conn:
        _check_rights(conn)
        return list(_apply(conn, url, migrations, upto))


@contextmanager
def _migration_lock(url: str, say: Say) -> Iterator[Connection]:
    """A connection that holds the advisory lock of migrations in this database."""
    try:
        conn = psycopg.connect(url, autocommit=True, application_name="flashsale migrate")
    except psycopg.OperationalError as error:
        raise UserError(describe_error(error)) from error
    with conn:
        if not fetch_value(conn, "select pg_try_advisory_lock(%s)", (_LOCK_KEY,)):
            say("waiting for another migrate of this database")
            conn.execute("select pg_advisory_lock(%s)", (_LOCK_KEY,))
        yield conn


def _check_rights(conn: Connection) -> None:
    if conn.info.server_version < OLDEST_SERVER:
        raise UserError(
            f"PostgreSQL {OLDEST_SERVER // 10000} or newer is required; the server has version"
            f" {conn.info.server_version // 10000}"
        )
    user, database, is_superuser, may_create_roles, may_create, is_new, is_owner, foreign = fetch_row(
        conn,
        """
        select quote_ident(current_user), quote_ident(current_database()), me.rolsuper, me.rolcreaterole,
               has_database_privilege(current_database(), 'create'),
               to_regclass('flashsale_data.schema_state') is null,
               exists (select from pg_roles o
                        where o.rolname = 'flashsale_owner' and pg_has_role(o.oid, 'member')),
               (select string_agg(r.rolname, ', ' order by r.rolname) from pg_roles r
                 where r.rolname in ('flashsale_owner', 'flashsale_api', 'flashsale_ops')
                   and not pg_has_role(r.oid, 'member with admin option'))
          from pg_roles me where me.rolname = current_user
        """,
    )
    if is_superuser:
        return
    missing = []
    if is_new and not may_create_roles:
        missing.append(f"alter role {user} createrole;")
    # Roles belong to the whole server: the migration of another database may have created them, as another
    # role. Before PostgreSQL 16 CREATEROLE was a right over all roles.
    if is_new and foreign and conn.info.server_version >= 160000:
        missing.append(f"grant {foreign} to {user} with admin option;")
    if not is_new and not is_owner:
        missing.append(f"grant flashsale_owner to {user};")
    if not may_create:
        missing.append(f"grant create on database {database} to {user};")
    if missing:
        raise UserError(
            f"role {user} lacks rights to migrate this database. A superuser must run: {' '.join(missing)}"
        )


def _apply(conn: Connection, url: str, directory: Path, upto: str | None) -> Iterator[str]:
    migrations = yoyo.read_migrations(str(directory))
    if upto is not None and upto not in [migration.id for migration in migrations]:
        raise UserError(f"there is no migration {upto} in {directory}")
    # `create schema if not exists` would require the right to create even if the schema exists.
    if not fetch_value(conn, "select to_regnamespace(%s)", (YOYO_SCHEMA,)):
        conn.execute(f"create schema {YOYO_SCHEMA}")
    with _backend(url) as backend:
        if backend.lock_table not in backend.list_tables():
            backend.create_lock_table()
        backend.break_lock()
        with backend.lock():
            pending = list(backend.to_apply(migrations))
            for migration in pending:
                _apply_one(backend, migration)
                yield migration.id
                if migration.id == upto:
                    return


def _backend(url: str) -> PostgresqlPsycopgBackend:
    args = conninfo_to_dict(url)
    database = args.pop("dbname", None)
    args["schema"] = YOYO_SCHEMA
    uri = DatabaseURI("postgresql+psycopg", None, None, None, None, database, args)
    return PostgresqlPsycopgBackend(uri, default_migration_table)


def _apply_one(backend: PostgresqlPsycopgBackend, migration: yoyo.migrations.Migration) -> None:
    migration.load()
    path = Path(migration.path)
    try:
        if not (migration.use_transactions and migration.is_raw_sql()):
            backend.apply_one(migration)
            return
        with backend.transaction():
            backend.connection.execute(path.read_text())
            # The file may have changed role and search_path; the record is written as ourselves.
            backend.execute("reset role")
            backend.init_connection(backend.connection)
            backend.mark_one(migration, log=False)
    except psycopg.Error as error:
        raise SqlError(path, path.read_text(), error) from error
