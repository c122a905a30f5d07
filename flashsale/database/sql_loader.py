"""Loads sql/: makes the functions and views of the database equal to the files, in one transaction.

`create or replace` leaves running callers undisturbed, so it is what every file says. What PostgreSQL will
not replace (another result type, a default taken away) is dropped and created, that one object only; what
has no file any more is dropped. Tables, and whatever an extension owns, are never touched.

A call that is under way when the transaction commits looks up by name what it calls, and so may run an
old function that calls a new one. If that has other arguments or another result, the call fails as a
whole, and can be sent again. If it has the same and means something else, nobody notices: such a function
deserves another name.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import errors, sql

from api.database.schema_version import sql_files
from flashsale.errors import Refusal

SCHEMAS = ["flashsale", "flashsale_data"]
OWNER = "flashsale_owner"
# Everybody a file may grant to. What an earlier version granted is taken back before the files speak.
GRANTEES = ["public", "flashsale_api", "flashsale_ops"]

_HEADER = re.compile(
    r"^create\s+or\s+replace\s+(function|procedure|view)\s+(\w+)\.(\w+)", re.IGNORECASE | re.MULTILINE
)

# An object that PostgreSQL declines to change in place.
_NOT_REPLACEABLE = (
    errors.InvalidFunctionDefinition,  # another result type, name of an argument, default removed
    errors.InvalidTableDefinition,  # a view's column renamed, removed or of another type
    errors.WrongObjectType,  # a function that becomes a procedure
)
# An object that names one which a later file makes.
_NOT_THERE_YET = (
    errors.UndefinedTable,
    errors.UndefinedFunction,
    errors.UndefinedObject,
    errors.UndefinedColumn,
)


class SqlError(Refusal):
    """PostgreSQL's objection to a file, with the place in it."""

    def __init__(self, path: Path, text: str, error: psycopg.Error, body: str = "") -> None:
        diag = error.diag
        line = _line_of(text, diag, body)
        parts = [f"{path}{f':{line}' if line else ''}: {diag.message_primary or error}"]
        more = {"detail": diag.message_detail, "hint": diag.message_hint}
        parts += [f"{label}: {said}" for label, said in more.items() if said]
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
    """The files of sql/ in the order they are loaded."""
    files = []
    for path in sql_files(directory):
        text = path.read_text()
        headers = _HEADER.findall(text)
        if len(headers) != 1:
            raise Refusal(
                f"{path}: must create or replace one function, procedure or view, not {len(headers)}"
            )
        kind, schema, name = (word.lower() for word in headers[0])
        if schema not in SCHEMAS or name != path.stem:
            raise Refusal(f"{path}: is named after what it defines, but defines {schema}.{name}")
        files.append(SqlFile(path, text, "view" if kind == "view" else "routine", schema, name))
    return files


def load(conn: psycopg.Connection, directory: Path) -> None:
    """Make functions and views equal to the files of `directory`, or change nothing and raise SqlError."""
    files = read_files(directory)
    with conn.transaction():
        conn.execute(sql.SQL("set local role {}").format(sql.Identifier(OWNER)))
        # Bodies are checked at the end, when all that they name is there.
        conn.execute("set local check_function_bodies = off")
        conn.execute("set local search_path = pg_catalog, pg_temp")
        _revoke(conn, GRANTEES)
        try:
            with conn.transaction():
                made = _replace_all(conn, files)
        except errors.DependentObjectsStillExist:
            # A view stands on something that cannot be replaced under it. Views come last: all of them go.
            _drop_together(conn, [(kind, oid) for kind, oid in _existing(conn) if kind == "view"])
            made = _replace_all(conn, files)
        _drop_together(conn, [found for found in _existing(conn) if found not in made])
        # A file that forgot to say so must not open its function to everybody.
        _revoke(conn, ["public"])
        _check_bodies(conn, made)


def _revoke(conn: psycopg.Connection, grantees: list[str]) -> None:
    names = sql.SQL(", ").join(
        sql.SQL("public") if name == "public" else sql.Identifier(name) for name in grantees
    )
    schemas = sql.SQL(", ").join(map(sql.Identifier, SCHEMAS))
    conn.execute(sql.SQL("revoke all on all routines in schema {} from {}").format(schemas, names))
    # The schema that callers see has no tables: these are its views.
    conn.execute(
        sql.SQL("revoke all on all tables in schema {} from {}").format(sql.Identifier(SCHEMAS[0]), names)
    )


def _replace_all(conn: psycopg.Connection, files: list[SqlFile]) -> dict[tuple[str, int], SqlFile]:
    """Run every file, putting off those that name what is not there yet; what they made, with its file."""
    made: dict[tuple[str, int], SqlFile] = {}
    waiting = files
    while waiting:
        put_off: list[tuple[SqlFile, psycopg.Error]] = []
        for file in waiting:
            try:
                made[file.kind, _replace(conn, file)] = file
            except _NOT_THERE_YET as error:
                put_off.append((file, error))
        if len(put_off) == len(waiting):
            file, error = put_off[0]
            raise SqlError(file.path, file.text, error)
        waiting = [file for file, _ in put_off]
    return made


def _replace(conn: psycopg.Connection, file: SqlFile) -> int:
    """Run one file and drop what it has replaced under other arguments; the object id of what it made."""
    before = _versions(conn, file)
    try:
        try:
            with conn.transaction():
                conn.execute(file.text)
        except _NOT_REPLACEABLE:
            with conn.transaction():
                _drop(conn, [(file.kind, oid) for oid in before])
                conn.execute(file.text)
    except (*_NOT_THERE_YET, errors.DependentObjectsStillExist):
        raise
    except psycopg.Error as error:
        raise SqlError(file.path, file.text, error) from error
    after = _versions(conn, file)
    made = [oid for oid, version in after.items() if before.get(oid) != version]
    if len(made) != 1:
        raise Refusal(f"{file.path}: made {len(made)} objects of its name")
    _drop(conn, [(file.kind, oid) for oid in after if oid not in made])
    return made[0]


def _versions(conn: psycopg.Connection, file: SqlFile) -> dict[int, str]:
    """Object id and row version of everything that bears the file's name."""
    query = {
        "routine": "select oid::bigint, xmin::text from pg_proc"
        " where pronamespace = to_regnamespace(%s) and proname = %s",
        "view": "select oid::bigint, xmin::text from pg_class"
        " where relnamespace = to_regnamespace(%s) and relname = %s and relkind = 'v'",
    }
    return dict(conn.execute(query[file.kind], (file.schema, file.name)).fetchall())


def _existing(conn: psycopg.Connection) -> list[tuple[str, int]]:
    """Every function, procedure and view of the two schemas that no extension owns."""
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


def _drop(conn: psycopg.Connection, objects: list[tuple[str, int]]) -> None:
    for kind, oid in objects:
        cast = "regclass" if kind == "view" else "regprocedure"
        name = conn.execute(f"select %s::oid::{cast}::text", (oid,)).fetchone()[0]
        conn.execute(f"drop {kind} {name}")  # type: ignore[arg-type]  # quoted by PostgreSQL itself


def _drop_together(conn: psycopg.Connection, objects: list[tuple[str, int]]) -> None:
    """Drop objects that may stand on one another, but nothing that stands on them: never cascade."""
    while objects:
        left = []
        for found in objects:
            try:
                with conn.transaction():
                    _drop(conn, [found])
            except errors.DependentObjectsStillExist as error:
                left.append(found)
                reason = error
        if len(left) == len(objects):
            raise Refusal(
                "sql/ no longer has, or cannot replace, what something else still uses;"
                f" a migration must remove that first: {reason.diag.message_primary}"
                f"\n  {reason.diag.message_detail}"
            )
        objects = left


def _check_bodies(conn: psycopg.Connection, made: dict[tuple[str, int], SqlFile]) -> None:
    """Have each language's validator read each function, as `create function` would have done."""
    routines = conn.execute(
        """
        select p.oid::bigint, p.prosrc, coalesce(p.proconfig, '{}'), l.lanvalidator::regproc::text
          from pg_proc p join pg_language l on l.oid = p.prolang
         where p.oid::bigint = any (%s) and l.lanvalidator <> 0
        """,
        ([oid for kind, oid in made if kind == "routine"],),
    ).fetchall()
    for oid, body, settings, validator in routines:
        file = made["routine", oid]
        with _as_sql_error(file, body), conn.transaction(force_rollback=True):
            conn.execute("set local check_function_bodies = on")
            for setting in settings:
                conn.execute("select set_config(%s, %s, true)", setting.split("=", 1))
            conn.execute(f"select {validator}(%s::oid)", (oid,))  # type: ignore[arg-type]


@contextmanager
def _as_sql_error(file: SqlFile, body: str) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise SqlError(file.path, file.text, error, body) from error
