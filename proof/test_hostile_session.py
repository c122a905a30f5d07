"""A hostile session: its objects, its search_path and its settings do not change what the functions do."""

from collections.abc import Callable

import psycopg
import pytest
from psycopg import errors

from proof.campaign import Campaign
from proof.shadowing_objects import shadowing_objects
from tests.support.sale_steps import audit, create_order, create_product, pay, place_hold

Connect = Callable[..., psycopg.Connection]


def test_no_function_has_an_open_search_path(db: psycopg.Connection, campaign: Campaign) -> None:
    """Functions with the owner's rights set one; those that they call run with it."""
    routines = db.execute(
        """
        select n.nspname, p.proname, p.prosecdef,
               coalesce(p.proconfig @> array['search_path=pg_catalog, pg_temp'], false),
               exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
                        where a.grantee <> p.proowner)
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where n.nspname in ('flashsale', 'flashsale_data')
        """
    ).fetchall()
    for schema, name, security_definer, sets_path, is_callable in routines:
        if security_definer:
            assert sets_path, f"{schema}.{name} runs with the owner's rights under its caller's search_path"
        elif is_callable:
            # A procedure that commits cannot set a search_path. It runs with its caller's rights.
            assert name == "sweep"
        else:
            assert schema == "flashsale_data", f"{name} cannot be called"
    campaign.record(
        f"the search_path of all {len(routines)} functions", "set by each SECURITY DEFINER function"
    )


def call_every_function(conn: psycopg.Connection, product: int) -> None:
    """Every public function at least once."""
    hold = place_hold(conn, product, 1, None)
    order = create_order(conn, hold)
    assert pay(conn, order) == "applied"
    assert pay(conn, order + 1000) == "stored"
    released = place_hold(conn, product)
    conn.execute("select flashsale.release_hold(%s)", (released,))
    conn.execute("select * from flashsale.release_holds(array[1, 2], array[%s, 1])", (released,))
    conn.execute(
        "select * from flashsale.place_holds("
        "array[1, 2], array[%s, %s]::bigint[], array[1, 1], array[%s, null])",
        (product, product, f"key {hold}"),
    )
    conn.execute("select * from flashsale.create_orders(array[1], array[%s], array['b'])", (released,))
    for read, number in [("get_product", product), ("get_hold", hold), ("get_order", order)]:
        conn.execute(f"select * from flashsale.{read}(%s)", (number,))
    conn.execute("select * from flashsale.list_products()")
    conn.execute("select * from flashsale.get_products(array[1], array[%s::bigint])", (product,))
    conn.execute("select * from flashsale.get_holds(array[1], array[%s::bigint])", (hold,))
    conn.execute(
        "select * from flashsale.get_orders(array[1], array[%s::bigint], array[%s::bigint])", (order, hold)
    )
    conn.execute("select * from flashsale.get_stock(array[%s::bigint])", (product,))
    conn.execute("select * from flashsale.readiness()")


@pytest.mark.parametrize("schema", ["mine", "pg_temp"])
def test_shadowing_objects_are_not_used(
    schema: str, db: psycopg.Connection, unprivileged: psycopg.Connection, campaign: Campaign
) -> None:
    """In pg_temp, where any session may create objects, and in a schema of the caller's own."""
    product = create_product(db, stock=100)
    if schema == "mine":
        db.execute("create schema mine authorization flashsale_proof_unprivileged")
        unprivileged.execute("grant usage on schema mine to public")
    objects = 0
    for statement in shadowing_objects(db, schema):
        unprivileged.execute(statement)
        objects += 1
    assert objects > 300
    unprivileged.execute(
        f"grant insert, select on all tables in schema {schema} to public" if schema == "mine" else "select"
    )
    # A path that does not name pg_catalog has it first.
    for path in (f"{schema}, pg_catalog", f"{schema}, pg_catalog, flashsale_data, flashsale"):
        unprivileged.execute(f"set search_path = {path}")
        # The control: a statement of the session itself uses them. Functions are never looked up in pg_temp.
        control = "select 1::bigint = 1::bigint" if schema == "mine" else "select 'x'::text"
        with pytest.raises(errors.Error) as raised:
            unprivileged.execute(control)
        assert raised.value.sqlstate in ("XX999", "23514")
        call_every_function(unprivileged, product)
    assert audit(db) == []
    campaign.record(
        f"every function, with {objects} objects in {schema} that shadow PostgreSQL's own",
        "none was used",
        shadowing_objects=objects,
    )


def test_every_setting_that_a_caller_may_change(
    db: psycopg.Connection, connect: Connect, unprivileged: psycopg.Connection, campaign: Campaign
) -> None:
    product = create_product(db, stock=10_000_000)
    settings = unprivileged.execute(
        "select name, vartype, min_val, max_val, enumvals, setting from pg_settings"
        " where context = 'user' order by name"
    ).fetchall()
    tries = []
    for name, kind, lowest, highest, values, current in settings:
        match kind:
            case "bool":
                tries.append((name, "off" if current == "on" else "on"))
            case "enum":
                tries += [(name, value) for value in values if value != current]
            case "integer" | "real":
                tries += [(name, lowest), (name, highest)]
            case _:
                tries += [(name, value) for value in STRINGS.get(name, ("", "x", "sql_standard"))]
    # Defined only once PL/pgSQL is loaded.
    tries += [("plpgsql.variable_conflict", "use_variable"), ("plpgsql.extra_errors", "all")]
    tries = campaign.random.sample(tries, min(len(tries), campaign.size(15, len(tries))))
    served = 0
    for name, value in tries:
        conn = connect("flashsale_proof_unprivileged")
        try:
            conn.execute("select set_config(%s, %s, false)", (name, value))
        except errors.Error as error:
            assert error.sqlstate[:2] in INVALID_SETTING, (name, value, error)
            conn.close()
            continue
        try:
            call_every_function(conn, product)
            served += 1
        except errors.Error as error:
            # psycopg cannot parse every DateStyle and raises an error without an SQLSTATE. exit_on_error ends
            # the session at any error, also at those that a function catches.
            exited = name == "exit_on_error" and conn.closed
            assert exited or error.sqlstate in (None, *CANCELLED), (name, value, error, error.diag.context)
        conn.close()
    assert audit(db) == []
    campaign.record(
        f"every function under {len(tries)} values of {len({name for name, _ in tries})} settings",
        f"served under {served}, rejected or cancelled by PostgreSQL under the rest; audit() empty",
        values_of_settings=len(tries),
    )


INVALID_SETTING = ("0A", "22", "25", "42")
"""SQLSTATE classes in which PostgreSQL rejects a setting"""
CANCELLED = ("25006", "40001", "53400", "55P03", "57014")
"""read only, serialization failure, temporary files limited, lock timeout, statement timeout"""

STRINGS = {
    "search_path": ("", "pg_temp", "flashsale_data", '"$user"'),
    "timezone": ("Pacific/Kiritimati", "<+167>-167", "America/St_Johns"),
    "datestyle": ("sql, dmy", "german", "postgres, ymd"),
    "client_encoding": ("LATIN1", "EUC_JP"),
    "role": ("flashsale_api", "none"),
    "lc_monetary": ("C",),
    "lc_numeric": ("C",),
    "lc_time": ("C",),
    "default_tablespace": ("pg_default", "pg_global"),
    "temp_tablespaces": ("pg_default", "pg_global"),
}
