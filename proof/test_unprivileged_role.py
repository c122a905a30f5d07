"""Strangers: a role with only flashsale_api calls the public functions, and can do nothing else to the sale.

What it can do to others is what any session of PostgreSQL can: use the machine up, and hold locks. The last
tests here pin down how far that goes.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress

import psycopg
import pytest
from psycopg import errors, sql

from flashsale.database.seed import APP_ROLE
from proof.campaign import Campaign
from proof.shadowing_objects import bait
from proof.unprivileged_actions import ACTIONS, ESCALATIONS
from tests.support import ROOT
from tests.support.sale_steps import audit, create_order, create_product, one, order, pay, place_hold

PUBLIC = {path.stem for path in (ROOT / "sql" / "public").glob("*.sql")}
CLOSED = (errors.InsufficientPrivilege,)
TURNED_AWAY = (errors.InsufficientPrivilege, errors.UndefinedObject, errors.WrongObjectType)

Connect = Callable[..., psycopg.Connection]


@pytest.fixture
def stranger(db: psycopg.Connection, connect: Connect) -> Iterator[psycopg.Connection]:
    """A session of a role of its own that is in flashsale_api, nothing else."""
    db.execute("create role flashsale_proof_stranger login in role flashsale_api")
    conn = connect("flashsale_proof_stranger")
    yield conn
    conn.close()
    db.execute("drop owned by flashsale_proof_stranger")
    db.execute("drop role flashsale_proof_stranger")


def refused(conn: psycopg.Connection, statement: str | sql.Composable, *why: type[psycopg.Error]) -> None:
    """The statement fails, for one of these reasons (InsufficientPrivilege, if none is given)."""
    told = statement if isinstance(statement, str) else statement.as_string(conn)
    with pytest.raises(why or CLOSED):
        conn.execute(statement)
        pytest.fail(f"not refused: {told}")
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
# Statements that say no by a warning, and do nothing.
SAY_NO_SOFTLY = ("vacuum", "analyze", "grant")


def test_every_action_on_every_object(
    db: psycopg.Connection, stranger: psycopg.Connection, campaign: Campaign
) -> None:
    objects = db.execute(OBJECTS).fetchall()
    assert len(objects) > 60
    tried = 0
    before = acls(db)
    for _, oid, kind, schema, name, arguments in objects:
        whole = sql.Identifier(schema, name)
        column = None
        if kind in "rv":
            column = one(
                db,
                "select attname from pg_attribute where attrelid = %s and attnum > 0 order by 1 limit 1",
                oid,
            )
        named = sql.SQL("{}({})").format(whole, sql.SQL(arguments)) if kind in "fp" else whole
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
                    stranger.execute(statement)
            elif action.startswith(SAY_NO_SOFTLY) and schema == "flashsale":
                try_softly(stranger, statement)
            else:
                refused(stranger, statement, *TURNED_AWAY, errors.ObjectNotInPrerequisiteState)
        if kind in "fp" and not (schema == "flashsale" and name in PUBLIC):
            nulls = ", ".join(
                f"null::{type_}"
                for (type_,) in db.execute(
                    "select format_type(t, null) from pg_proc p, unnest(p.proargtypes) t where p.oid = %s",
                    (oid,),
                )
            )
            word = "call" if kind == "p" else "select"
            refused(stranger, f'{word} "{schema}"."{name}"({nulls})')
            tried += 1
    assert acls(db) == before
    campaign.tried(
        f"{tried:,} actions on all {len(objects)} objects, as a role with flashsale_api", "all refused"
    )


def try_softly(conn: psycopg.Connection, statement: sql.Composable) -> None:
    with suppress(*TURNED_AWAY):
        conn.execute(statement)


def acls(db: psycopg.Connection) -> list[tuple]:
    """Who owns what and who was given what."""
    return db.execute(
        "select oid::regclass::text, relowner, relacl::text, relnamespace from pg_class"
        " where relnamespace::regnamespace::text ~ '^flashsale'"
        " union all select oid::regprocedure::text, proowner, proacl::text, pronamespace from pg_proc"
        " where pronamespace::regnamespace::text ~ '^flashsale' order by 1"
    ).fetchall()


# --- ways to become somebody else ---


def test_every_way_to_become_somebody_else(
    db: psycopg.Connection, stranger: psycopg.Connection, connect: Connect, campaign: Campaign
) -> None:
    victim = connect(APP_ROLE)
    database = sql.Identifier(stranger.info.dbname)
    holds = one(db, "select 'flashsale_data.holds'::regclass::oid")
    stranger.execute("create temp table lure (a text)")
    done = []
    for attempt in ESCALATIONS:
        statement = sql.SQL(attempt).format(
            database=database, victim=sql.Literal(victim.info.backend_pid), holds=sql.Literal(holds)
        )
        try:
            stranger.execute(statement)
        except errors.Error as error:
            assert error.sqlstate[:2] in ("42", "0A", "22", "3F", "58"), (attempt, error)
        else:
            done.append(attempt)
        assert one(stranger, "select current_user::text || session_user") == "flashsale_proof_stranger" * 2
    assert done == []
    assert one(victim, "select 1") == 1
    campaign.tried(f"{len(ESCALATIONS)} ways to become somebody else, or to read files", "all refused")


# --- what functions could be made to do ---


def test_no_function_has_an_open_search_path(db: psycopg.Connection, campaign: Campaign) -> None:
    """Neither those that lend rights nor what they call, which runs with the path that they have pinned."""
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
    for schema, name, lends_rights, is_pinned, may_be_called in routines:
        if lends_rights:
            assert is_pinned, f"{schema}.{name} runs with the owner's rights under its caller's path"
        elif may_be_called:
            # A procedure that commits cannot have a path of its own. It runs with its caller's rights.
            assert name == "sweep"
        else:
            assert schema == "flashsale_data", f"{name} has no caller"
    campaign.tried(f"the search_path of all {len(routines)} functions", "pinned wherever rights are lent")


def whole_sale(conn: psycopg.Connection, product: int) -> None:
    """Every public function at least once, with the caller's rights."""
    held = place_hold(conn, product, 1, None)
    made = create_order(conn, held)
    assert pay(conn, made) == "applied"
    assert pay(conn, made + 1000) == "stored"
    released = place_hold(conn, product)
    conn.execute("select flashsale.release_hold(%s)", (released,))
    conn.execute("select * from flashsale.release_holds(array[1, 2], array[%s, 1])", (released,))
    conn.execute(
        "select * from flashsale.place_holds("
        "array[1, 2], array[%s, %s]::bigint[], array[1, 1], array[%s, null])",
        (product, product, f"key {held}"),
    )
    conn.execute("select * from flashsale.create_orders(array[1], array[%s], array['b'])", (released,))
    for read, number in [("get_product", product), ("get_hold", held), ("get_order", made)]:
        conn.execute(f"select * from flashsale.{read}(%s)", (number,))
    conn.execute("select * from flashsale.list_products()")
    conn.execute("select * from flashsale.get_products(array[1], array[%s::bigint])", (product,))
    conn.execute("select * from flashsale.get_holds(array[1], array[%s::bigint])", (held,))
    conn.execute(
        "select * from flashsale.get_orders(array[1], array[%s::bigint], array[%s::bigint])", (made, held)
    )
    conn.execute("select * from flashsale.get_stock(array[%s::bigint])", (product,))
    conn.execute("select * from flashsale.readiness()")


@pytest.mark.parametrize("home", ["mine", "pg_temp"])
def test_bait_catches_nobody(
    home: str, db: psycopg.Connection, stranger: psycopg.Connection, campaign: Campaign
) -> None:
    """In temporary objects, which any session may make, and in a schema of one's own, if given one."""
    product = create_product(db, stock=100)
    if home == "mine":
        db.execute("create schema mine authorization flashsale_proof_stranger")
        stranger.execute("grant usage on schema mine to public")
    laid = 0
    for statement in bait(db, home):
        stranger.execute(statement)
        laid += 1
    assert laid > 300
    stranger.execute(
        f"grant insert, select on all tables in schema {home} to public" if home == "mine" else "select"
    )
    # Where pg_catalog is not named, it is looked at first.
    for path in (f"{home}, pg_catalog", f"{home}, pg_catalog, flashsale_data, flashsale"):
        stranger.execute(f"set search_path = {path}")
        # The control: what is not pinned walks into it. Nobody looks for functions in pg_temp.
        caught = "select 1::bigint = 1::bigint" if home == "mine" else "select 'x'::text"
        with pytest.raises(errors.Error) as raised:
            stranger.execute(caught)
        assert raised.value.sqlstate in ("XX999", "23514")
        whole_sale(stranger, product)
    assert audit(db) == []
    campaign.tried(
        f"the whole sale behind {laid} names of PostgreSQL's own, made again in {home}", "nobody caught"
    )


def test_every_setting_that_a_caller_may_change(
    db: psycopg.Connection, connect: Connect, stranger: psycopg.Connection, campaign: Campaign
) -> None:
    product = create_product(db, stock=10_000_000)
    settings = stranger.execute(
        "select name, vartype, min_val, max_val, enumvals, setting from pg_settings"
        " where context = 'user' order by name"
    ).fetchall()
    tries = []
    for name, kind, least, most, values, now in settings:
        match kind:
            case "bool":
                tries.append((name, "off" if now == "on" else "on"))
            case "enum":
                tries += [(name, value) for value in values if value != now]
            case "integer" | "real":
                tries += [(name, least), (name, most)]
            case _:
                tries += [(name, value) for value in STRINGS.get(name, ("", "x", "sql_standard"))]
    # Known only once PL/pgSQL is loaded, and set before.
    tries += [("plpgsql.variable_conflict", "use_variable"), ("plpgsql.extra_errors", "all")]
    tries = campaign.random.sample(tries, min(len(tries), campaign.size(15, len(tries))))
    served = 0
    for name, value in tries:
        conn = connect("flashsale_proof_stranger")
        try:
            conn.execute("select set_config(%s, %s, false)", (name, value))
        except errors.Error as error:
            assert error.sqlstate[:2] in DECLINED, (name, value, error)
            conn.close()
            continue
        try:
            whole_sale(conn, product)
            served += 1
        except errors.Error as error:
            # psycopg, which has no SQLSTATE, understands not every way to write a time.
            # One makes the session end at any error, also at those that a function expects.
            ends = name == "exit_on_error" and conn.closed
            assert ends or error.sqlstate in (None, *CUT_SHORT), (name, value, error, error.diag.context)
        conn.close()
    assert audit(db) == []
    campaign.tried(
        f"the whole sale under {len(tries)} values of {len({name for name, _ in tries})} settings",
        f"served under {served}, cut short by PostgreSQL under the rest; the books balance",
    )


DECLINED = ("0A", "22", "25", "42")
"""SQLSTATE classes in which PostgreSQL declines a setting"""
CUT_SHORT = ("25006", "40001", "53400", "55P03", "57014")
"""read only, another isolation, no file for what memory does not hold, out of time"""

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


# --- what could be learnt ---


def test_nobody_elses_words_are_to_be_seen(
    db: psycopg.Connection, stranger: psycopg.Connection, connect: Connect
) -> None:
    """Not in the statistics, not in what others are running, not in errors, plans or messages."""
    secret = "a key that nobody else knows"
    product = create_product(db)
    victim = connect(APP_ROLE, autocommit=False)
    held = place_hold(victim, product, 1, secret)
    victim.execute("select pg_notify('mine', 'x')")
    db.execute("analyze")
    seen = []
    for view in (
        "pg_stat_activity", "pg_stats", "pg_stats_ext", "pg_prepared_statements", "pg_cursors",
        "pg_prepared_xacts",
        "pg_sequences", "pg_stat_statements", "pg_stat_progress_copy", "pg_stat_ssl", "pg_locks",
    ):  # fmt: skip
        if one(db, "select to_regclass(%s) is not null", view):
            seen.append(str(stranger.execute(f"select * from {view}").fetchall()))
    seen.append(one(stranger, "select database_to_xml(true, true, '')::text"))
    text = "\n".join(seen)
    assert secret not in text
    assert str(held) not in text
    rows = stranger.execute("select schemaname, sequencename, last_value from pg_sequences").fetchall()
    assert [row for row in rows if row[2] is not None] == []
    # What the functions do inside shows in no plan, and no level of messages brings it up.
    notices: list[str] = []
    stranger.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
    stranger.execute("set client_min_messages = debug5")
    stranger.execute("set debug_print_plan = on")
    for statement in (
        f"explain (verbose, costs off) select * from flashsale.get_order({held})",
        "select * from flashsale.list_products()",
    ):
        notices += [str(row) for row in stranger.execute(statement).fetchall()]
    victim.commit()
    assert secret not in "\n".join(notices)
    assert str(held) not in "\n".join(notices).replace(f"get_order({held})", "").replace(f"'{held}'", "")
    # A refusal tells of nothing but what was asked for.
    for statement in (
        "select flashsale.get_hold(1)", "select flashsale.release_hold(1)",
        "select flashsale.create_order(1)",
        f"select flashsale.place_hold({product}, 2, '{secret}')", "select flashsale.get_order(1)",
    ):  # fmt: skip
        with pytest.raises(errors.Error) as raised:
            stranger.execute(statement)
        diag = raised.value.diag
        said = " ".join(
            filter(None, (diag.message_primary, diag.message_detail, diag.message_hint, diag.context))
        )
        assert str(held) not in said


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


def look(conn: psycopg.Connection, statement: str, ids: list[int], order_id: int) -> int:
    """How many of these ids a stranger learns anything about."""
    numbers = list(range(len(ids)))
    return conn.execute(statement, {"numbers": numbers, "ids": ids, "order": order_id}).fetchone()[0]


def test_guessing_hold_ids_finds_none(
    db: psycopg.Connection, stranger: psycopg.Connection, campaign: Campaign
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
        # By chance, by counting on from one's own, and by small numbers.
        own = campaign.random.choice(known)
        ids = [
            *(campaign.random.randrange(1, 2**53) for _ in range(900)),
            *(own + step for step in range(-25, 26) if step and 0 < own + step < 2**53),
            *(campaign.random.randrange(1, 10**6) for _ in range(50)),
        ]
        ids = (ids + ids)[:1000]
        found += look(stranger, GUESSES[batch % len(GUESSES)], ids, made)
    assert found == 0
    # The control: what is no guess is found.
    owner = one(db, "select hold_id from flashsale_data.orders where order_id = %s", made)
    for statement in reversed(GUESSES):
        assert look(stranger, statement, [owner], made) == 1
    assert audit(db) == []
    campaign.tried(f"{guesses:,} guesses at {holds:,} hold ids, by four functions", "none found")


# --- what a session can do to others, and no privilege can forbid ---


def test_what_a_held_lock_costs(
    db: psycopg.Connection, stranger: psycopg.Connection, connect: Connect, campaign: Campaign
) -> None:
    """Anybody who may connect can take the advisory locks by which our functions wait for each other.

    PostgreSQL lets PUBLIC. Whoever waits for one is told so after lock_timeout, nothing is done wrongly, and
    all goes on as soon as the session ends. Against it helps only who may connect, and ending the session.
    """
    product = create_product(db)
    caller = connect(APP_ROLE)
    caller.execute("set lock_timeout = '100ms'")
    held = place_hold(caller, product)
    # Exclusively, every mark that a writer might leave next.
    last = one(db, "select last_value from flashsale_data.event_ids")
    stranger.execute(
        "select pg_advisory_lock(hashtext('flashsale.ledger'), n) from generate_series(%s::int, %s) n",
        (last, last + 20),
    )
    with pytest.raises(errors.LockNotAvailable):
        place_hold(caller, product)
    with pytest.raises(errors.LockNotAvailable):
        create_order(caller, held)
    assert one(caller, "select available_stock from flashsale.get_product(%s)", product) == 9, "reads go on"
    stranger.execute("select pg_advisory_unlock_all()")
    made = create_order(caller, held)
    # The next order's id, and a key.
    stranger.execute("select pg_advisory_lock(hashtext('flashsale.order_id'), %s)", (made + 1,))
    stranger.execute("select pg_advisory_lock(hashtext('flashsale.hold'), hashtext('key'))")
    with pytest.raises(errors.LockNotAvailable):
        create_order(caller, place_hold(caller, product))
    with pytest.raises(errors.LockNotAvailable):
        place_hold(caller, product, 1, "key")
    place_hold(caller, product, 1, "another key")
    stranger.execute("select pg_advisory_unlock_all()")
    place_hold(caller, product, 1, "key")
    # A mark that stays keeps the ledger's readers from going on; they lose nothing.
    stranger.execute("select pg_advisory_lock_shared(hashtext('flashsale.ledger'), 1)")
    assert db.execute("select event_id from flashsale.read_events(0, 100)").fetchall() == [(1,)]
    stranger.execute("select pg_advisory_unlock_all()")
    assert len(db.execute("select event_id from flashsale.read_events(0, 100)").fetchall()) > 4
    assert audit(db) == []
    campaign.tried(
        "every advisory lock of ours, held by a role with flashsale_api",
        "writers and readers of the ledger wait, until lock_timeout; nothing else (docs/operations.md)",
    )
