"""An unprivileged role: with flashsale_api alone it can call the public functions and do nothing else.

Like any session it can also hold advisory locks; the last test shows the effect.
"""

from collections.abc import Callable
from contextlib import suppress

import psycopg
import pytest
from psycopg import errors, sql

from flashsale.database.seed import APP_ROLE
from proof.campaign import Campaign
from proof.unprivileged_actions import ACTIONS, ESCALATIONS
from tests.support import ROOT
from tests.support.sale_steps import audit, create_order, create_product, one, order, place_hold

PUBLIC = {path.stem for path in (ROOT / "sql" / "public").glob("*.sql")}
REJECTED = (errors.InsufficientPrivilege, errors.UndefinedObject, errors.WrongObjectType)

Connect = Callable[..., psycopg.Connection]


def assert_rejected(
    conn: psycopg.Connection, statement: str | sql.Composable, *errors_: type[psycopg.Error]
) -> None:
    """The statement fails with one of these errors; without any, with InsufficientPrivilege."""
    text = statement if isinstance(statement, str) else statement.as_string(conn)
    with pytest.raises(errors_ or errors.InsufficientPrivilege):
        conn.execute(statement)
        pytest.fail(f"not rejected: {text}")
    conn.rollback()


# --- every object there is ---

OBJECTS = """
    select 'relation', c.oid, c.relkind::text, n.nspname, c.relname, null::text
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname in ('flashsale', 'flashsale_data', 'flashsale_migrations')
       and c.relkind in ('r', 'v', 'S')
    union all
    select 'routine', p.oid, p.prokind::text, n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)
      from pg_proc p join pg_namespace n on n.oid = p.pronamespace
     where n.nspname in ('flashsale', 'flashsale_data', 'flashsale_migrations')
    order by 1, 4, 5
"""
# Statements that only warn, and do nothing.
ONLY_WARN = ("vacuum", "analyze", "grant")


def test_every_action_on_every_object(
    db: psycopg.Connection, unprivileged: psycopg.Connection, campaign: Campaign
) -> None:
    objects = db.execute(OBJECTS).fetchall()
    assert len(objects) > 60
    tried = 0
    before = acls(db)
    for _, oid, kind, schema, name, arguments in objects:
        identifier = sql.Identifier(schema, name)
        column = None
        if kind in "rv":
            column = one(
                db,
                "select attname from pg_attribute where attrelid = %s and attnum > 0 order by 1 limit 1",
                oid,
            )
        named = sql.SQL("{}({})").format(identifier, sql.SQL(arguments)) if kind in "fp" else identifier
        for action in ACTIONS[kind]:
            reads_refusals = (schema, name) == ("flashsale", "refusals") and action.startswith(
                ("select", "copy", "explain")
            )
            statement = sql.SQL(action).format(
                named,
                column=sql.Identifier(column or "none"),
                literal=sql.Literal(f'"{schema}"."{name}"'),
                oid=sql.Literal(oid),
            )
            tried += 1
            if reads_refusals:
                if not action.startswith("copy"):
                    unprivileged.execute(statement)
            elif action.startswith(ONLY_WARN) and schema == "flashsale":
                execute_or_reject(unprivileged, statement)
            else:
                assert_rejected(unprivileged, statement, *REJECTED, errors.ObjectNotInPrerequisiteState)
        if kind in "fp" and not (schema == "flashsale" and name in PUBLIC):
            nulls = ", ".join(
                f"null::{type_}"
                for (type_,) in db.execute(
                    "select format_type(t, null) from pg_proc p, unnest(p.proargtypes) t where p.oid = %s",
                    (oid,),
                )
            )
            word = "call" if kind == "p" else "select"
            assert_rejected(unprivileged, f'{word} "{schema}"."{name}"({nulls})')
            tried += 1
    assert acls(db) == before
    campaign.record(
        f"{tried:,} actions on all {len(objects)} objects, by a role with flashsale_api",
        "all rejected",
        actions=tried,
    )


def execute_or_reject(conn: psycopg.Connection, statement: sql.Composable) -> None:
    with suppress(*REJECTED):
        conn.execute(statement)


def acls(db: psycopg.Connection) -> list[tuple]:
    """Owners and access privileges of everything in our schemas."""
    return db.execute(
        "select oid::regclass::text, relowner, relacl::text, relnamespace from pg_class"
        " where relnamespace::regnamespace::text ~ '^flashsale'"
        " union all select oid::regprocedure::text, proowner, proacl::text, pronamespace from pg_proc"
        " where pronamespace::regnamespace::text ~ '^flashsale' order by 1"
    ).fetchall()


# --- privilege escalation ---


def test_every_escalation_is_rejected(
    db: psycopg.Connection, unprivileged: psycopg.Connection, connect: Connect, campaign: Campaign
) -> None:
    victim = connect(APP_ROLE)
    role = sql.Identifier("flashsale_proof_unprivileged")
    database = sql.Identifier(unprivileged.info.dbname)
    holds = one(db, "select 'flashsale_data.holds'::regclass::oid")
    unprivileged.execute("create temp table lure (a text)")
    succeeded = []
    for attempt in ESCALATIONS:
        statement = sql.SQL(attempt).format(
            role=role,
            database=database,
            victim=sql.Literal(victim.info.backend_pid),
            holds=sql.Literal(holds),
        )
        try:
            unprivileged.execute(statement)
        except errors.Error as error:
            assert error.sqlstate[:2] in ("42", "0A", "22", "3F", "58"), (attempt, error)
        else:
            succeeded.append(attempt)
        assert (
            one(unprivileged, "select current_user::text || session_user")
            == "flashsale_proof_unprivileged" * 2
        )
    assert succeeded == []
    assert one(victim, "select 1") == 1
    campaign.record(
        f"{len(ESCALATIONS)} statements that escalate privileges or read files",
        "all rejected",
        escalations=len(ESCALATIONS),
    )


# --- information leaks ---


def test_other_sessions_data_is_not_visible(
    db: psycopg.Connection, unprivileged: psycopg.Connection, connect: Connect
) -> None:
    """In statistics, activity, errors, plans and messages."""
    secret = "a secret key"
    product = create_product(db)
    victim = connect(APP_ROLE, autocommit=False)
    hold = place_hold(victim, product, 1, secret)
    victim.execute("select pg_notify('mine', 'x')")
    db.execute("analyze")
    visible = []
    for view in (
        "pg_stat_activity", "pg_stats", "pg_stats_ext", "pg_prepared_statements", "pg_cursors",
        "pg_prepared_xacts",
        "pg_sequences", "pg_stat_statements", "pg_stat_progress_copy", "pg_stat_ssl", "pg_locks",
    ):  # fmt: skip
        if one(db, "select to_regclass(%s) is not null", view):
            visible.append(str(unprivileged.execute(f"select * from {view}").fetchall()))
    visible.append(one(unprivileged, "select database_to_xml(true, true, '')::text"))
    text = "\n".join(visible)
    assert secret not in text
    assert str(hold) not in text
    rows = unprivileged.execute("select schemaname, sequencename, last_value from pg_sequences").fetchall()
    assert [row for row in rows if row[2] is not None] == []
    # Neither plans nor debug messages show what the functions execute.
    notices: list[str] = []
    unprivileged.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
    unprivileged.execute("set client_min_messages = debug5")
    unprivileged.execute("set debug_print_plan = on")
    for statement in (
        f"explain (verbose, costs off) select * from flashsale.get_order({hold})",
        "select * from flashsale.list_products()",
    ):
        notices += [str(row) for row in unprivileged.execute(statement).fetchall()]
    victim.commit()
    assert secret not in "\n".join(notices)
    assert str(hold) not in "\n".join(notices).replace(f"get_order({hold})", "").replace(f"'{hold}'", "")
    # A refusal contains nothing but the arguments of the call.
    for statement in (
        "select flashsale.get_hold(1)", "select flashsale.release_hold(1)",
        "select flashsale.create_order(1)",
        f"select flashsale.place_hold({product}, 2, '{secret}')", "select flashsale.get_order(1)",
    ):  # fmt: skip
        with pytest.raises(errors.Error) as raised:
            unprivileged.execute(statement)
        diag = raised.value.diag
        text = " ".join(
            filter(None, (diag.message_primary, diag.message_detail, diag.message_hint, diag.context))
        )
        assert str(hold) not in text


FOUND = "select count(*) filter (where sqlstate is distinct from {}) from flashsale.{}"
NOTHING = "array_fill(null::text, array[cardinality(%(ids)s::bigint[])])"
GUESSES = [
    FOUND.format("'SA003'", "get_holds(%(numbers)s, %(ids)s)"),
    FOUND.format("'SA003'", "release_holds(%(numbers)s, %(ids)s)"),
    FOUND.format("'SA003'", f"create_orders(%(numbers)s, %(ids)s, {NOTHING})"),
    FOUND.format(
        "'SA007'",
        "get_orders(%(numbers)s,"
        " array_fill(%(order)s::bigint, array[cardinality(%(ids)s::bigint[])]), %(ids)s)",
    ),
]


def count_found(conn: psycopg.Connection, statement: str, ids: list[int], order_id: int) -> int:
    """How many of these ids a function gives any information about."""
    numbers = list(range(len(ids)))
    return conn.execute(statement, {"numbers": numbers, "ids": ids, "order": order_id}).fetchone()[0]


def test_guessing_hold_ids_finds_none(
    db: psycopg.Connection, unprivileged: psycopg.Connection, campaign: Campaign
) -> None:
    holds, guesses = campaign.size((1_000, 8_000), (10_000, 1_000_000))
    product = create_product(db, stock=holds + 1)
    made = order(db, product)
    for _ in range(0, holds, 100):
        db.execute(
            "select count(*) from flashsale.place_holds(array(select generate_series(1, 100)),"
            " array_fill(%s::bigint, array[100]), array_fill(1, array[100]),"
            " array_fill(null::text, array[100]))",
            (product,),
        )
    known = [hold for (hold,) in db.execute("select hold_id from flashsale_data.holds")]
    found = 0
    for batch in range(guesses // 1000):
        # Random ids, the neighbours of a known one, and small numbers.
        own = campaign.random.choice(known)
        ids = [
            *(campaign.random.randrange(1, 2**53) for _ in range(900)),
            *(own + step for step in range(-25, 26) if step and 0 < own + step < 2**53),
            *(campaign.random.randrange(1, 10**6) for _ in range(50)),
        ]
        ids = (ids + ids)[:1000]
        found += count_found(unprivileged, GUESSES[batch % len(GUESSES)], ids, made)
    assert found == 0
    # The control: a known id is found.
    owner = one(db, "select hold_id from flashsale_data.orders where order_id = %s", made)
    for statement in reversed(GUESSES):
        assert count_found(unprivileged, statement, [owner], made) == 1
    assert audit(db) == []
    campaign.record(
        f"{guesses:,} guesses at {holds:,} hold ids, by four functions", "none found", guesses=guesses
    )


# --- what no privilege can forbid ---


def test_a_held_advisory_lock_delays_others_until_lock_timeout(
    db: psycopg.Connection, unprivileged: psycopg.Connection, connect: Connect, campaign: Campaign
) -> None:
    """Every session can take the advisory locks that our functions use: PostgreSQL grants them to PUBLIC.

    A call that waits for one fails after lock_timeout and has no effect. The remedy is to end the session.
    """
    product = create_product(db)
    caller = connect(APP_ROLE)
    caller.execute("set lock_timeout = '100ms'")
    hold = place_hold(caller, product)
    # Exclusively, every announcement that a writer might make next.
    last = one(db, "select last_value from flashsale_data.event_ids")
    unprivileged.execute(
        "select pg_advisory_lock(hashtext('flashsale.ledger'), n) from generate_series(%s::int, %s) n",
        (last, last + 20),
    )
    with pytest.raises(errors.LockNotAvailable):
        place_hold(caller, product)
    with pytest.raises(errors.LockNotAvailable):
        create_order(caller, hold)
    assert one(caller, "select available_stock from flashsale.get_product(%s)", product) == 9, (
        "reads are not delayed"
    )
    unprivileged.execute("select pg_advisory_unlock_all()")
    made = create_order(caller, hold)
    # The next order's id, and a key.
    unprivileged.execute("select pg_advisory_lock(hashtext('flashsale.order_id'), %s)", (made + 1,))
    unprivileged.execute("select pg_advisory_lock(hashtext('flashsale.hold'), hashtext('key'))")
    with pytest.raises(errors.LockNotAvailable):
        create_order(caller, place_hold(caller, product))
    with pytest.raises(errors.LockNotAvailable):
        place_hold(caller, product, 1, "key")
    place_hold(caller, product, 1, "another key")
    unprivileged.execute("select pg_advisory_unlock_all()")
    place_hold(caller, product, 1, "key")
    # An announcement that stays delays the readers of the ledger; no event is lost.
    unprivileged.execute("select pg_advisory_lock_shared(hashtext('flashsale.ledger'), 1)")
    assert db.execute("select event_id from flashsale.read_events(0, 100)").fetchall() == [(1,)]
    unprivileged.execute("select pg_advisory_unlock_all()")
    assert len(db.execute("select event_id from flashsale.read_events(0, 100)").fetchall()) > 4
    assert audit(db) == []
    campaign.record(
        "every advisory lock that the functions use, hold by a role with flashsale_api",
        "writers and readers of the ledger wait until lock_timeout (docs/operations.md)",
    )
