"""Objects with the names of those of PostgreSQL that our functions use."""

from collections.abc import Iterator

import psycopg

from tests.support.sale_steps import one

RAISES = "language plpgsql as 'begin raise exception using errcode = ''XX999'', message = current_user; end'"
OPERANDS = [
    "bigint", "integer", "text", "timestamp with time zone", "numeric", "interval", "boolean", "jsonb",
    "anyarray",
]  # fmt: skip


def shadowing_objects(db: psycopg.Connection, schema: str) -> Iterator[str]:
    """Statements that create, in a schema, an object for every such name; to use one is an error."""
    source = one(
        db,
        "select string_agg(prosrc, ' ') from pg_proc where pronamespace::regnamespace::text ~ '^flashsale'",
    )
    functions = db.execute(
        r"""
        select p.proname, pg_get_function_identity_arguments(p.oid), format_type(p.prorettype, null)
        from pg_proc p join pg_type r on r.oid = p.prorettype
        where p.pronamespace = 'pg_catalog'::regnamespace and p.prokind = 'f' and not p.proretset
          and p.provariadic = 0 and r.typtype <> 'p' and %s ~ ('\m' || p.proname || '\(')
          and not exists (
            select from unnest(p.proargtypes) a join pg_type t on t.oid = a
            where t.typtype = 'p' and t.typname !~ '^any')
        """,
        (source,),
    ).fetchall()
    for name, arguments, returns in functions:
        yield f"create function {schema}.{name}({arguments}) returns {returns} {RAISES}"
    operators = db.execute(
        """
        select o.oprname, format_type(o.oprleft, null), format_type(o.oprright, null),
               format_type(o.oprresult, null)
        from pg_operator o join pg_type r on r.oid = o.oprresult
        where o.oprnamespace = 'pg_catalog'::regnamespace and r.typtype <> 'p'
          and format_type(o.oprleft, null) = any (%(kinds)s)
          and format_type(o.oprright, null) = any (%(kinds)s)
        """,
        {"kinds": OPERANDS},
    ).fetchall()
    for number, (symbol, left, right, returns) in enumerate(operators):
        function = f"{schema}.shadow_{number}"
        yield f"create function {function}({left}, {right}) returns {returns} {RAISES}"
        yield (
            f"create operator {schema}.{symbol} (leftarg = {left}, rightarg = {right}, function = {function})"
        )
    tables = db.execute(
        "select relname from pg_class where relkind in ('r', 'v')"
        " and (relnamespace = 'flashsale_data'::regnamespace"
        r" or relnamespace = 'pg_catalog'::regnamespace and %s ~ ('\m' || relname || '\M'))",
        (source,),
    ).fetchall()
    for (name,) in tables:
        yield f"create table {schema}.{name} (shadow int)"
    for name in ("text", "int4", "int8", "bool", "timestamptz", "jsonb", "numeric", "record"):
        yield f"create domain {schema}.{name} as pg_catalog.text check (false)"
