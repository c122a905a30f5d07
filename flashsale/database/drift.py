"""Drift: differences between the functions and views in a database and the files of sql/.

Definitions are compared in PostgreSQL's own spelling. To obtain it, each file is loaded again into pg_temp,
in a transaction that is rolled back; it locks no object that other sessions use.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from psycopg import errors, sql

from flashsale.database.connection import Connection, fetch_value
from flashsale.database.sql_loader import GRANTEES, SCHEMAS, SqlFile, read_files

_QUALIFIED_NAME = re.compile(
    r"^((?:create or replace|comment on|(?:revoke|grant) \w+ on)(?: function| procedure| view)? )"
    r"(?:flashsale|flashsale_data)\.",
    re.IGNORECASE | re.MULTILINE,
)
_GRANTED = re.compile(r"^grant \w+ on [^;]* to (\w+);", re.IGNORECASE | re.MULTILINE)

_DEFINITION = {
    "routine": """
        select regexp_replace(pg_get_functiondef(p.oid), '^(CREATE OR REPLACE \\w+ )\\w+\\.', '\\1'),
               obj_description(p.oid, 'pg_proc')
          from pg_proc p where p.pronamespace = {} and p.proname = %(name)s
    """,
    "view": """
        select pg_get_viewdef(c.oid), c.reloptions::text, obj_description(c.oid, 'pg_class'),
               array(select a.attname || ' ' || format_type(a.atttypid, a.atttypmod) from pg_attribute a
                      where a.attrelid = c.oid and a.attnum > 0 order by a.attnum)::text
          from pg_class c where c.relnamespace = {} and c.relname = %(name)s and c.relkind = 'v'
    """,
}

_IN_DATABASE = """
    select kind, namespace::regnamespace::text, name
      from (select 'routine', oid, 'pg_proc'::regclass, pronamespace, proname from pg_proc
            union all
            select 'view', oid, 'pg_class'::regclass, relnamespace, relname
              from pg_class where relkind in ('v', 'm')
           ) as found (kind, oid, catalog, namespace, name)
     where namespace::regnamespace::text = any (%s)
       and not exists (select from pg_depend d
                        where d.classid = catalog and d.objid = found.oid and d.deptype = 'e')
     order by 2, 3
"""

_GRANTS = """
    select n.nspname || '.' || o.name, coalesce(r.rolname, 'public')
      from (select oid, pronamespace, proname, coalesce(proacl, acldefault('f', proowner)), proowner
              from pg_proc
            union all
            select oid, relnamespace, relname, coalesce(relacl, acldefault('r', relowner)), relowner
              from pg_class where relkind in ('v', 'm')
           ) as o (oid, namespace, name, acl, owner)
      join pg_namespace n on n.oid = o.namespace
      cross join aclexplode(o.acl) a
      left join pg_roles r on r.oid = a.grantee
     where n.nspname = any (%s) and a.grantee <> o.owner
"""


def differences(conn: Connection, directory: Path) -> Iterator[str]:
    """Functions and views that differ from their file in `directory`, have none, or are missing.

    :param conn: autocommit; a role that owns the schemas, or a superuser
    """
    files = read_files(directory)
    known = {(file.kind, file.schema, file.name) for file in files}
    for kind, schema, name in conn.execute(_IN_DATABASE, (SCHEMAS,)).fetchall():
        if (kind, schema, name) not in known:
            yield f"{schema}.{name} has no file in sql/"
    is_primary = not fetch_value(conn, "select pg_is_in_recovery()")
    with conn.transaction(force_rollback=True):
        if is_primary:  # the database may be read-only by default
            conn.execute("set transaction read write")
        conn.execute("set local check_function_bodies = off")
        conn.execute("set local search_path = pg_catalog, pg_temp")
        for file in files:
            found = _definition(conn, file, sql.SQL("{}::regnamespace").format(file.schema))
            if not found:
                yield f"{file.schema}.{file.name} is missing"
            elif found != _as_loaded(conn, file):
                yield f"{file.schema}.{file.name} differs from its file"


def _definition(conn: Connection, file: SqlFile, namespace: sql.Composable) -> list[Any]:
    query = sql.SQL(_DEFINITION[file.kind]).format(namespace)
    return conn.execute(query, {"name": file.name}).fetchall()


def _as_loaded(conn: Connection, file: SqlFile) -> list[Any] | None:
    """The file's definition; None if it cannot be loaded into this database."""
    try:
        with conn.transaction(force_rollback=True):
            conn.execute(_QUALIFIED_NAME.sub(r"\1pg_temp.", file.text))
            return _definition(conn, file, sql.SQL("pg_my_temp_schema()"))
    except errors.InsufficientPrivilege:
        raise
    except errors.Error:
        return None


def wrong_grants(conn: Connection, directory: Path) -> Iterator[str]:
    """Grants on functions and views that differ from those in the files of `directory`, as sentences.

    Grants to roles that flashsale does not create are left to the database's administrator.
    """
    granted = {(name, role) for name, role in conn.execute(_GRANTS, (SCHEMAS,)) if role in GRANTEES}
    declared = {
        (f"{file.schema}.{file.name}", role.lower())
        for file in read_files(directory)
        for role in _GRANTED.findall(file.text)
    }
    for name, role in sorted(granted - declared):
        yield f"{role} may use {name}"
    for name, role in sorted(declared - granted):
        yield f"{role} may not use {name}"
