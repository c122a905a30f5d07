"""Privileges: flashsale_api has the public functions, flashsale_ops also those of operators, PUBLIC none."""

import psycopg
import pytest
from psycopg import errors, sql

from tests.support import ROOT
from tests.support.database import session_of_new_role
from tests.support.sale_steps import create_product, one, order, pay, place_hold

SCHEMAS = ["flashsale", "flashsale_data"]
ROUTINES = """
    select n.nspname || '.' || p.proname
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname = any (%s)
"""
# Schemas other than those of PostgreSQL.
FOREIGN = "select nspname from pg_namespace where nspname not in ('pg_catalog', 'information_schema')"


def names(folder):
    return {f"flashsale.{path.stem}" for path in (ROOT / "sql" / folder).glob("*.sql")}


PUBLIC, OPERATORS, VIEWS = names("public"), names("operators"), names("views")


@pytest.fixture
def operator(db, connect):
    """A session of a login role that is a member of flashsale_ops only."""
    with session_of_new_role(db, connect, "flashsale_test_operator", "flashsale_ops") as conn:
        yield conn


@pytest.fixture
def caller(connect):
    """A session of the HTTP server's role, which is a member of flashsale_api only."""
    return connect("flashsale_app")


@pytest.fixture
def stranger(db, connect):
    """A session of a role without any grant."""
    with session_of_new_role(db, connect, "flashsale_test_stranger") as conn:
        yield conn


def found(conn, query, *args):
    return {row[0] for row in conn.execute(query, args).fetchall()}


def callable_by(conn):
    """The routines that this session can execute."""
    return found(
        conn,
        ROUTINES + " and has_schema_privilege(n.oid, 'usage') and has_function_privilege(p.oid, 'execute')",
        SCHEMAS,
    )


def readable_by(conn):
    """The relations of both schemas on which this session has any privilege."""
    return found(
        conn,
        """
        select c.oid::regclass::text from pg_class c
        where c.relnamespace::regnamespace::text = any (%s) and (
          c.relkind in ('r', 'p', 'v', 'm', 'f') and (
            has_table_privilege(c.oid, 'select, insert, update, delete, truncate, references, trigger')
            or has_any_column_privilege(c.oid, 'select, insert, update, references'))
          or c.relkind = 'S' and has_sequence_privilege(c.oid, 'usage, select, update'))
        """,
        SCHEMAS,
    )


def test_api_may_call_exactly_the_public_functions(caller):
    assert callable_by(caller) == PUBLIC


def test_api_may_read_the_refusals_and_no_table(caller):
    assert readable_by(caller) == {"flashsale.refusals"}


def test_operators_may_also_call_the_operators_functions(operator):
    assert callable_by(operator) == PUBLIC | OPERATORS


def test_operators_may_read_the_views_and_no_table(operator):
    assert readable_by(operator) == VIEWS


def test_operators_may_change_nothing_but_by_functions(operator):
    changeable = """
        select c.oid::regclass::text from pg_class c
        where c.relnamespace::regnamespace::text = any (%s) and c.relkind in ('r', 'v')
          and has_table_privilege(c.oid, 'insert, update, delete, truncate')
    """
    assert found(operator, changeable, SCHEMAS) == set()


def test_a_role_without_grants_may_do_nothing(stranger):
    assert callable_by(stranger) == set()
    assert readable_by(stranger) == set()
    with pytest.raises(errors.InsufficientPrivilege):
        stranger.execute("select * from flashsale.get_product(1)")


def test_roles_cannot_log_in_and_have_no_other_attributes(db):
    rows = db.execute(
        """
        select r.rolname, r.rolcanlogin or r.rolsuper or r.rolcreaterole or r.rolcreatedb or r.rolbypassrls,
               array(select m.roleid::regrole::text from pg_auth_members m where m.member = r.oid)
        from pg_roles r where r.rolname in ('flashsale_owner', 'flashsale_api', 'flashsale_ops') order by 1
        """
    ).fetchall()
    assert rows == [
        ("flashsale_api", False, []),
        ("flashsale_ops", False, ["flashsale_api"]),
        ("flashsale_owner", False, []),
    ]


def test_public_may_execute_nothing(db):
    granted = """
        select p.oid::regprocedure::text from pg_proc p,
          aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
        where p.pronamespace::regnamespace::text = any (%s) and a.grantee = 0
    """
    assert found(db, granted, SCHEMAS) == set()


def test_a_new_function_is_not_executable_by_public(db):
    with db.transaction(force_rollback=True):
        db.execute("set local role flashsale_owner")
        db.execute("create function flashsale.forgotten() returns int language sql as 'select 1'")
        acl = one(db, "select proacl::text from pg_proc where oid = 'flashsale.forgotten()'::regprocedure")
    assert acl == "{flashsale_owner=X/flashsale_owner}"


def test_granted_roles_may_not_create_objects_in_the_schemas(caller, operator):
    for conn in (caller, operator):
        for schema in SCHEMAS:
            assert one(conn, "select has_schema_privilege(%s, 'create')", schema) is False
    for conn in (caller, operator):
        assert one(conn, "select has_schema_privilege('flashsale_data', 'usage')") is False


def test_flashsale_api_may_use_no_other_schema(caller):
    """The tables of the migration tool are not readable either."""
    usable = found(caller, FOREIGN + " and has_schema_privilege(oid, 'usage') and nspname !~ '^pg_'")
    assert usable == {"flashsale", "public"}


def test_schema_flashsale_has_no_tables(db):
    kinds = found(
        db, "select distinct relkind::text from pg_class where relnamespace = 'flashsale'::regnamespace"
    )
    assert kinds == {"v"}


def test_every_function_belongs_to_the_owner(db):
    others = ROUTINES + " and p.proowner <> 'flashsale_owner'::regrole"
    assert found(db, others, SCHEMAS) == set()


def test_every_table_view_and_sequence_belongs_to_the_owner(db):
    others = """
        select oid::regclass::text from pg_class
        where relnamespace::regnamespace::text = any (%s) and relowner <> 'flashsale_owner'::regrole
    """
    assert found(db, others, SCHEMAS) == set()


def test_every_security_definer_function_pins_its_search_path(db):
    loose = """
        and p.prosecdef and not exists (
          select from unnest(p.proconfig) setting
          where setting ~ '^search_path=' and setting ~ 'pg_temp$')
    """
    assert found(db, ROUTINES + loose, SCHEMAS) == set()


def test_only_functions_for_callers_are_security_definer(db):
    definers = found(db, ROUTINES + " and p.prosecdef", SCHEMAS)
    assert definers == (PUBLIC | OPERATORS) - {"flashsale.sweep"}


def test_readers_of_a_view_may_call_its_functions(operator, caller):
    """A view uses its owner's privileges for tables, but its reader's for functions."""
    for view in VIEWS:
        operator.execute(f"select * from {view}")
    caller.execute("select * from flashsale.refusals")


def test_a_sale_runs_with_the_rights_of_flashsale_api(db, caller):
    product = create_product(db)
    hold = place_hold(caller, product)
    made = one(caller, "select order_id from flashsale.create_order(%s)", hold)
    assert pay(caller, made) == "applied"
    for read, number in [("get_product", product), ("get_hold", hold), ("get_order", made)]:
        caller.execute(f"select * from flashsale.{read}(%s)", (number,))
    caller.execute("select * from flashsale.list_products()")
    caller.execute("select * from flashsale.get_orders(array[1], array[%s], array[%s])", (made, hold))
    caller.execute("select * from flashsale.get_sale_metrics()")
    caller.execute("select * from flashsale.readiness()")
    caller.execute("select flashsale.record_rejected_webhook('msg_1', '{}', 'code', 'detail')")
    released = place_hold(caller, product)
    caller.execute("select flashsale.release_hold(%s)", (released,))


def test_operators_calls_run_with_the_rights_of_flashsale_ops(operator):
    product = create_product(operator)
    pay(operator, order(operator, product), "failed")
    operator.execute("select * from flashsale.adjust_stock(%s, 5)", (product,))
    operator.execute("select * from flashsale.change_settings(p_inbox_limit => 10)")
    operator.execute("call flashsale.sweep()")
    assert operator.execute("select * from flashsale.read_events(0, 10)").rowcount > 1
    assert operator.execute("select * from flashsale.audit()").fetchall() == []
    operator.execute("select flashsale.record_rejected_webhook('msg_1', '{}', 'code', 'detail')")
    assert one(operator, "select flashsale.dismiss_rejected_webhooks(array['msg_1'])") == 1
    operator.execute("select * from flashsale.purge('1 day')")


@pytest.mark.parametrize("folder", ["internal", "operators"])
def test_flashsale_api_is_denied(db, caller, folder):
    schema = {"internal": "flashsale_data", "operators": "flashsale"}[folder]
    for path in (ROOT / "sql" / folder).glob("*.sql"):
        routine = db.execute(
            "select p.proname, p.prokind, p.oid from pg_proc p"
            " where p.pronamespace = %s::regnamespace and p.proname = %s",
            (schema, path.stem),
        ).fetchone()
        if routine is None:
            statement = f"select * from {schema}.{path.stem}"
        else:
            name, kind, oid = routine
            arguments = ", ".join(
                f"null::{kind}"
                for (kind,) in db.execute(
                    "select format_type(t, null) from pg_proc p, unnest(p.proargtypes) t where p.oid = %s",
                    (oid,),
                )
            )
            statement = f"{'call' if kind == 'p' else 'select'} {schema}.{name}({arguments})"
        with pytest.raises(errors.InsufficientPrivilege):
            caller.execute(statement)


# An attacker creates objects that shadow those of pg_catalog, and calls the functions.

BAIT = [
    "create table {schema}.bait (caught text)",
    "grant insert on {schema}.bait to public",
    *(
        f"create function {{schema}}.{name} language plpgsql as "
        f"'begin raise exception using errcode = ''XX999'', message = current_user; end'"
        for name in [
            "clock_timestamp() returns timestamptz",
            "statement_timestamp() returns timestamptz",
            "now() returns timestamptz",
            "cardinality(bigint[]) returns int",
            "cardinality(int[]) returns int",
            "cardinality(text[]) returns int",
            "array_dims(bigint[]) returns text",
            "array_dims(int[]) returns text",
            "array_dims(text[]) returns text",
            "length(text) returns int",
            "btrim(text) returns text",
            "format(text, bigint) returns text",
            "round(numeric, int) returns numeric",
            "hashtext(text) returns int",
            "current_setting(text) returns text",
            "array_position(bigint[], bigint) returns int",
            "caught(bigint, bigint) returns boolean",
            "caught(text, text) returns boolean",
            "caught(timestamptz, timestamptz) returns boolean",
        ]
    ),
    *(
        f"create operator {{schema}}.{symbol}"
        f" (function = {{schema}}.caught, leftarg = {kind}, rightarg = {kind})"
        for kind in ("bigint", "text", "timestamptz")
        for symbol in ("=", "<>", "<", "<=", ">", ">=")
    ),
    "create table {schema}.holds (hold_id bigint)",
    "create table {schema}.settings (hold_time interval)",
]

A_HOLD = "(select hold_id from flashsale.place_hold(1, 1))"
CALLS = [
    "select * from flashsale.place_holds(array[1, 2], array[1, 1]::bigint[], array[1, 1], array['a', null])",
    f"select * from flashsale.release_holds(array[1], array[{A_HOLD}])",
    f"select * from flashsale.create_orders(array[1], array[{A_HOLD}], array['b'])",
    "select * from flashsale.apply_payments(array[1, 2], array['c', 'd'], array[1, 99]::bigint[],"
    " array['success', 'failed'], array['{}', '{}']::jsonb[])",
    "select * from flashsale.record_rejected_webhooks(array[1, 2], array['m', repeat('m', 300)],"
    " array['{}', '{}']::bytea[], array['c', 'c'], array['d', 'd'], array['k', 'k'], array[1, 1],"
    " array['x', null])",
    "select * from flashsale.apply_payments(array[1], array['c'], array[1]::bigint[], array['success'],"
    " array['{}']::jsonb[], array['m'])",
    "select * from flashsale.get_product(1)",
    "select * from flashsale.list_products()",
    "select * from flashsale.get_orders(array[1], array[1]::bigint[], array[1]::bigint[])",
    "select * from flashsale.get_order(1)",
    "select * from flashsale.get_sale_metrics()",
    "select * from flashsale.readiness()",
]
OPERATOR_CALLS = [
    "select flashsale.create_product('x', 1, 1)",
    "select flashsale.adjust_stock(1, 1)",
    "select flashsale.change_settings(p_inbox_limit => 100)",
    "select flashsale.expire_due()",
    "select flashsale.read_events(0, 10)",
    "select flashsale.audit()",
    "select flashsale.purge('0')",
    "select flashsale.dismiss_rejected_webhooks(array['m'])",
    *(f"select * from {view}" for view in sorted(VIEWS)),
]


@pytest.mark.parametrize("home", ["attack", "pg_temp"])
def test_objects_that_shadow_pg_catalog_are_never_used(db, connect, home):
    create_product(db)
    attacker = connect()  # a superuser: may create objects of every kind, more than a caller could
    with attacker.transaction(force_rollback=True):
        if home == "attack":
            attacker.execute("create schema attack; grant all on schema attack to public")
        for statement in BAIT:
            attacker.execute(statement.format(schema=home))
        attacker.execute(
            "create function flashsale.unpinned(text) returns int security definer"
            " language sql as 'select length($1)';"
            " alter function flashsale.unpinned(text) owner to flashsale_owner;"
            " grant execute on function flashsale.unpinned(text) to public"
        )
        attacker.execute("set local role flashsale_ops")
        attacker.execute(sql.SQL("set local search_path = {}, pg_catalog").format(sql.Identifier(home)))
        for statement in CALLS + OPERATOR_CALLS:
            attacker.execute(statement)
        if home == "attack":  # functions in pg_temp are never found without their schema's name
            with pytest.raises(psycopg.Error, match="flashsale_owner") as caught, attacker.transaction():
                attacker.execute("select flashsale.unpinned('x')")
            assert caught.value.sqlstate == "XX999", "the control is caught, as the owner"
