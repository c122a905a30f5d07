"""Loads sql/: makes the functions and views of the database equal to the files, in one transaction.

Every file is a `create or replace`, which does not disturb running callers. Objects that PostgreSQL cannot
replace (another result type, a removed default) are dropped and created; objects without a file are dropped.
Tables and members of extensions are never touched.

A call that is running when the transaction commits resolves names as it goes, and so may run an old function
that calls a new one. If the new one has other arguments or another result, the call fails as a whole and can
be retried. If it has the same and another meaning, the result is wrong: rename such a function.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import errors, sql

from api.database.schema_version import sql_files
from flashsale.database.connection import Connection, fetch_value
from flashsale.database.roles import OWNER
from flashsale.errors import UserError

SCHEMAS = ["flashsale", "flashsale_data"]
# The roles that a file may grant to. Earlier grants to them are revoked before the files are loaded.
GRANTEES = ["public", "flashsale_api", "flashsale_ops"]

_HEADER = re.compile(
    r"^create\s+or\s+replace\s+(function|procedure|view)\s+(\w+)\.(\w+)", re.IGNORECASE | re.MULTILINE
)

# Errors of `create or replace` if the existing object cannot be replaced.
_NOT_REPLACEABLE = (
    errors.InvalidFunctionDefinition,  # another result type, name of an argument, default removed
    errors.InvalidTableDefinition,  # a view's column renamed, removed or of another type
    errors.WrongObjectType,  # a function that becomes a procedure
)
# Errors if a file refers to an object that a later file creates.
_MISSING_DEPENDENCY = (
    errors.UndefinedTable,
    errors.UndefinedFunction,
    errors.UndefinedObject,
    errors.UndefinedColumn,
)


class SqlError(UserError):
    """PostgreSQL's error in a file, with the line number."""

    def __init__(self, path: Path, text: str, error: psycopg.Error, body: str = "") -> None:
        diag = error.diag
        line = _line_of(text, diag, body)
        parts = [f"{path}{f':{line}' if line else ''}: {diag.message_primary or error}"]
        more = {"detail": diag.message_detail, "hint": diag.message_hint}
        parts += [f"{label}: {message}" for label, message in more.items() if message]
        if isinstance(error, errors.LockNotAvailable):
            parts.append(
                "An open transaction uses the table or view. Nothing was changed: end that transaction, or"
                " wait for it, and migrate again. pg_stat_activity shows which are open"
            )
        super().__init__("\n  ".join(parts))
        self.path = path
        self.line = line


def _line_of(text: str, diag: errors.Diagnostic, body: str) -> int | None:
    if diag.statement_position:
        return text.count("\n", 0, int(diag.statement_position) - 1) + 1
    start = text.find(body) if body else -1
    if start < 0:
        return None
    if diag.internal_position and diag.internal_query == body:
        return text.count("\n", 0, start + int(diag.internal_position) - 1) + 1
    near = re.search(r"line (\d+)", diag.context or "")
    return text.count("\n", 0, start) + int(near[1]) if near else None


@dataclass(frozen=True)
class SqlFile:
    """One file of sql/: the object it defines, and its text."""

    path: Path
    text: str
    kind: str  # "routine" or "view"
    schema: str
    name: str


def read_files(directory: Path) -> list[SqlFile]:
    """The files of sql/ in loading order."""
    files = []
    for path in sql_files(directory):
        text = path.read_text()
        headers = _HEADER.findall(text)
        if len(headers) != 1:
            raise UserError(
                f"{path}: must define exactly one function, procedure or view, not {len(headers)}"
            )
        kind, schema, name = (word.lower() for word in headers[0])
        if schema not in SCHEMAS or name != path.stem:
            raise UserError(
                f"{path}: the file must have the name of the object that it defines, {schema}.{name}"
            )
        files.append(SqlFile(path, text, "view" if kind == "view" else "routine", schema, name))
    return files


def load(conn: Connection, directory: Path) -> None:
    """Make functions and views equal to the files of `directory`.

    :raises SqlError: nothing was changed
    """
    files = read_files(directory)
    with conn.transaction():
        conn.execute(sql.SQL("set local role {}").format(sql.Identifier(OWNER)))
        # Function bodies are checked at the end, when all objects that they refer to exist.
        conn.execute("set local check_function_bodies = off")
        conn.execute("set local search_path = pg_catalog, pg_temp")
        _revoke(conn, GRANTEES)
        try:
            with conn.transaction():
                created = _replace_all(conn, files)
        except errors.DependentObjectsStillExist:
            # A view depends on an object that must be dropped. Views are loaded last: drop all of them.
            _drop_in_dependency_order(conn, [(kind, oid) for kind, oid in _existing(conn) if kind == "view"])
            created = _replace_all(conn, files)
        _drop_in_dependency_order(conn, [found for found in _existing(conn) if found not in created])
        # New functions are executable by PUBLIC by default; files do not repeat the revoke.
        _revoke(conn, ["public"])
        _check_bodies(conn, created)


def _revoke(conn: Connection, grantees: list[str]) -> None:
    names = sql.SQL(", ").join(
        sql.SQL("public") if name == "public" else sql.Identifier(name) for name in grantees
    )
    schemas = sql.SQL(", ").join(map(sql.Identifier, SCHEMAS))
    conn.execute(sql.SQL("revoke all on all routines in schema {} from {}").format(schemas, names))
    # The public schema has no tables: these are its views.
    conn.execute(
        sql.SQL("revoke all on all tables in schema {} from {}").format(sql.Identifier(SCHEMAS[0]), names)
    )


def _replace_all(conn: Connection, files: list[SqlFile]) -> dict[tuple[str, int], SqlFile]:
    """Run every file, those with missing dependencies last; returns the file of each kind and oid."""
    created: dict[tuple[str, int], SqlFile] = {}
    waiting = files
    while waiting:
        deferred: list[tuple[SqlFile, psycopg.Error]] = []
        for file in waiting:
            try:
                created[file.kind, _replace(conn, file)] = file
            except _MISSING_DEPENDENCY as error:
                deferred.append((file, error))
        if len(deferred) == len(waiting):
            file, reason = deferred[0]
            raise SqlError(file.path, file.text, reason)
        waiting = [file for file, _ in deferred]
    return created


def _replace(conn: Connection, file: SqlFile) -> int:
    """Run one file and drop its object's other overloads; returns the oid of the object."""
    before = _versions(conn, file)
    try:
        try:
            with conn.transaction():
                conn.execute(file.text)
        except _NOT_REPLACEABLE:
            with conn.transaction():
                _drop(conn, [(file.kind, oid) for oid in before])
                conn.execute(file.text)
    except (*_MISSING_DEPENDENCY, errors.DependentObjectsStillExist):
        raise
    except psycopg.Error as error:
        raise SqlError(file.path, file.text, error) from error
    after = _versions(conn, file)
    created = [oid for oid, version in after.items() if before.get(oid) != version]
    if len(created) != 1:
        raise UserError(f"{file.path}: defines {len(created)} objects of its name")
    _drop(conn, [(file.kind, oid) for oid in after if oid not in created])
    return created[0]


def _versions(conn: Connection, file: SqlFile) -> dict[int, str]:
    """Oid and row version of every object with the file's name."""
    query = {
        "routine": "select oid::bigint, xmin::text from pg_proc"
        " where pronamespace = to_regnamespace(%s) and proname = %s",
        "view": "select oid::bigint, xmin::text from pg_class"
        " where relnamespace = to_regnamespace(%s) and relname = %s and relkind = 'v'",
    }
    return dict(conn.execute(query[file.kind], (file.schema, file.name)).fetchall())


def _existing(conn: psycopg.Connection) -> list[tuple[str, int]]:
    """Every function, procedure and view of the two schemas that is not a member of an extension."""
    return conn.execute(
        """
        select kind, oid::bigint
          from (select 'routine', oid, 'pg_proc'::regclass, pronamespace from pg_proc
                union all
                select 'view', oid, 'pg_class'::regclass, relnamespace from pg_class where relkind = 'v'
               ) as found (kind, oid, catalog, namespace)
         where namespace::regnamespace::text = any (%s)
           and not exists (select from pg_depend d
                            where d.classid = catalog and d.objid = found.oid and d.deptype = 'e')
        """,
        (SCHEMAS,),
    ).fetchall()


def _drop(conn: Connection, objects: list[tuple[str, int]]) -> None:
    for kind, oid in objects:
        cast = "regclass" if kind == "view" else "regprocedure"
        name = fetch_value(conn, f"select %s::oid::{cast}::text", (oid,))  # quoted by PostgreSQL
        conn.execute(f"drop {kind} {name}")


def _drop_in_dependency_order(conn: Connection, objects: list[tuple[str, int]]) -> None:
    """Drop objects that may depend on one another; never cascades to other objects."""
    while objects:
        remaining = []
        for found in objects:
            try:
                with conn.transaction():
                    _drop(conn, [found])
            except errors.DependentObjectsStillExist as error:
                remaining.append(found)
                reason = error
        if len(remaining) == len(objects):
            raise UserError(
                "another object still uses an object that sql/ no longer has or cannot replace;"
                f" a migration must drop the other first: {reason.diag.message_primary}"
                f"\n  {reason.diag.message_detail}"
            )
        objects = remaining


def _check_bodies(conn: Connection, created: dict[tuple[str, int], SqlFile]) -> None:
    """Call the language's validator for each function, as `create function` does by default."""
    routines = conn.execute(
        """
        select p.oid::bigint, p.prosrc, coalesce(p.proconfig, '{}'), l.lanvalidator::regproc::text
          from pg_proc p join pg_language l on l.oid = p.prolang
         where p.oid::bigint = any (%s) and l.lanvalidator <> 0
        """,
        ([oid for kind, oid in created if kind == "routine"],),
    ).fetchall()
    for oid, body, settings, validator in routines:
        file = created["routine", oid]
        with _as_sql_error(file, body), conn.transaction(force_rollback=True):
            conn.execute("set local check_function_bodies = on")
            for setting in settings:
                conn.execute("select set_config(%s, %s, true)", setting.split("=", 1))
            conn.execute(f"select {validator}(%s::oid)", (oid,))


@contextmanager
def _as_sql_error(file: SqlFile, body: str) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise SqlError(file.path, file.text, error, body) from error
