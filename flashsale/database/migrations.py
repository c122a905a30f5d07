"""Brings a database up to date: migrations/ by yoyo, then functions and views of sql/, then the scheduler.

yoyo's own ways are bent in three places. Its lock is a table row that a crash leaves behind: here an advisory
lock, which dies with its session, keeps others out, and a row found under it is stale. It marks a migration
as applied after committing it, so that a crash in between would run it twice: here both are one transaction.
And it sends a file statement by statement, losing the line numbers: here a file goes whole.
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

from api.database.schema_version import MIGRATIONS, SQL, digest, migration_ids
from flashsale.database import pg_cron as scheduler
from flashsale.database.sql_loader import SqlError, load
from flashsale.errors import Refusal

ROOT = Path(__file__).resolve().parents[2]

# Not a schema of ours: yoyo's tables must be there before the first migration makes any.
YOYO_SCHEMA = "flashsale_migrations"
OLDEST_SERVER = 150000
_LOCK_KEY = 0x666C617368  # "flash"

Say = Callable[[str], None]


def migrate(
    url: str,
    *,
    migrations: Path = MIGRATIONS,
    sql: Path = SQL,
    schedule: bool = True,
    say: Say = print,
) -> None:
    """Apply what is pending in `migrations`, load all of `sql`, and (re)schedule the sweep.

    `url` is a libpq URL or connection string of a superuser, or of a role with CREATEROLE and CREATE on the
    database. It must not lead through a pooler that gives each transaction another session. Runs one at a
    time for a database; a second run waits. Raises Refusal with what to do about it.
    """
    with _alone(url, say) as conn:
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
            say(scheduler.schedule(conn, url))


def apply(url: str, upto: str | None = None, *, migrations: Path = MIGRATIONS, say: Say = print) -> list[str]:
    """Apply pending migrations only, through the one whose id is `upto` (all, if None); the ids applied."""
    with _alone(url, say) as conn:
        _check_rights(conn)
        return list(_apply(conn, url, migrations, upto))


@contextmanager
def _alone(url: str, say: Say) -> Iterator[psycopg.Connection]:
    """A connection that keeps other migrating processes out of this database as long as it is open."""
    try:
        conn = psycopg.connect(url, autocommit=True, application_name="flashsale migrate")
    except psycopg.OperationalError as error:
        raise Refusal(f"cannot reach the database: {error}") from error
    with conn:
        if not conn.execute("select pg_try_advisory_lock(%s)", (_LOCK_KEY,)).fetchone()[0]:
            say("another migrate is at work on this database; waiting for it")
            conn.execute("select pg_advisory_lock(%s)", (_LOCK_KEY,))
        yield conn


def _check_rights(conn: psycopg.Connection) -> None:
    if conn.info.server_version < OLDEST_SERVER:
        raise Refusal(
            f"needs PostgreSQL {OLDEST_SERVER // 10000} or newer; the server is {conn.info.server_version}"
        )
    user, database, is_superuser, may_create_roles, may_create, is_new, is_owner, foreign = conn.execute(
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
        """
    ).fetchone()
    if is_superuser:
        return
    lacking = []
    if is_new and not may_create_roles:
        lacking.append(f"alter role {user} createrole;")
    # Roles belong to the whole server: another database's migrate may have made them, as somebody else.
    # Until PostgreSQL 16 CREATEROLE was a right over all roles.
    if is_new and foreign and conn.info.server_version >= 160000:
        lacking.append(f"grant {foreign} to {user} with admin option;")
    if not is_new and not is_owner:
        lacking.append(f"grant flashsale_owner to {user};")
    if not may_create:
        lacking.append(f"grant create on database {database} to {user};")
    if lacking:
        raise Refusal(f"role {user} may not migrate this database. A superuser must run: {' '.join(lacking)}")


def _apply(conn: psycopg.Connection, url: str, directory: Path, upto: str | None) -> Iterator[str]:
    found = yoyo.read_migrations(str(directory))
    if upto is not None and upto not in [migration.id for migration in found]:
        raise Refusal(f"there is no migration {upto} in {directory}")
    # Not `if not exists`: that wants the right to create even when there is nothing to do.
    if not conn.execute("select to_regnamespace(%s)", (YOYO_SCHEMA,)).fetchone()[0]:
        conn.execute(f"create schema {YOYO_SCHEMA}")
    with _backend(url) as backend:
        if backend.lock_table not in backend.list_tables():
            backend.create_lock_table()
        backend.break_lock()
        with backend.lock():
            pending = list(backend.to_apply(found))
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
            # Whatever role and path the file left set, the mark is made as ourselves in yoyo's schema.
            backend.execute("reset role")
            backend.init_connection(backend.connection)
            backend.mark_one(migration, log=False)
    except psycopg.Error as error:
        raise SqlError(path, path.read_text(), error) from error
