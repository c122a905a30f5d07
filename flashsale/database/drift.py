"""Whether the functions and views in a database are those of sql/: what they do, and who may use them.

A function is compared as PostgreSQL itself spells it. For that each file is loaded once more, under pg_temp,
in a transaction that is rolled back: nothing that others use is locked or touched.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from flashsale.database.sql_loader import GRANTEES, SCHEMAS, SqlFile, read_files

_MADE_OR_NAMED = re.compile(
    r"^((?:create or replace|comment on|(?:revoke|grant) \w+ on)(?: function| procedure| view)? )"
    r"(?:flashsale|flashsale_data)\.",
    re.IGNORECASE | re.MULTILINE,
)
_GRANTED = re.compile(r"^grant \w+ on .* to (\w+);", re.IGNORECASE | re.MULTILINE)

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


def differences(conn: psycopg.Connection[Any], directory: Path) -> Iterator[str]:
    """What the functions and views of the database have that the files of `directory` do not, and conversely.

    :param conn: autocommit; a role that owns the schemas, or a superuser
    """
    files = read_files(directory)
    known = {(file.kind, file.schema, file.name) for file in files}
    for kind, schema, name in conn.execute(_IN_DATABASE, (SCHEMAS,)).fetchall():
        if (kind, schema, name) not in known:
            yield f"{schema}.{name} has no file"
    with conn.transaction(force_rollback=True):
        conn.execute("set local check_function_bodies = off")
        conn.execute("set local search_path = pg_catalog, pg_temp")
        for file in files:
            found = _definition(conn, file, sql.SQL("{}::regnamespace").format(file.schema))
            if not found:
                yield f"{file.schema}.{file.name} is missing"
            elif found != _as_loaded(conn, file):
                yield f"{file.schema}.{file.name} is not what its file says"


def _definition(conn: psycopg.Connection[Any], file: SqlFile, namespace: sql.Composable) -> list[Any]:
    query = sql.SQL(_DEFINITION[file.kind]).format(namespace)
    return conn.execute(query, {"name": file.name}).fetchall()


def _as_loaded(conn: psycopg.Connection[Any], file: SqlFile) -> list[Any] | None:
    """The file's definition; None if it does not fit what is in the database."""
    try:
        with conn.transaction(force_rollback=True):
            conn.execute(_MADE_OR_NAMED.sub(r"\1pg_temp.", file.text))
            return _definition(conn, file, sql.SQL("pg_my_temp_schema()"))
    except psycopg.errors.InsufficientPrivilege:
        raise
    except psycopg.errors.Error:
        return None


def wrong_grants(conn: psycopg.Connection[Any], directory: Path) -> Iterator[str]:
    """Who may use a function or view though its file does not say so, and who may not though it does.

    Roles of one's own may have been granted more: that is for whoever runs the database to say.
    """
    granted = {(name, role) for name, role in conn.execute(_GRANTS, (SCHEMAS,)) if role in GRANTEES}
    wanted = {
        (f"{file.schema}.{file.name}", role.lower())
        for file in read_files(directory)
        for role in _GRANTED.findall(file.text)
    }
    for name, role in sorted(granted - wanted):
        yield f"{role} may use {name}"
    for name, role in sorted(wanted - granted):
        yield f"{role} may not use {name}"
