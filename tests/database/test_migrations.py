"""`flashsale migrate`: migrations applied once, functions always equal to sql/."""

import threading
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from api.database.schema_version import MIGRATIONS_DIRECTORY, digest, migration_ids
from flashsale.database.migrations import apply, migrate
from flashsale.database.sql_loader import SqlError
from flashsale.errors import UserError

Write = Callable[[str, str], Path]

ANSWER = """
create or replace function flashsale.answer() returns {type}
language sql immutable as $$ select {value} $$;
grant execute on function flashsale.answer() to flashsale_api;
"""


@pytest.fixture
def sql(tmp_path: Path) -> Path:
    """An empty directory with the structure of sql/."""
    for folder in ("internal", "public", "operators", "views"):
        (tmp_path / "sql" / folder).mkdir(parents=True)
    return tmp_path / "sql"


@pytest.fixture
def write(sql: Path) -> Write:
    def write_file(name: str, text: str) -> Path:
        path = sql / name
        path.write_text(text)
        return path

    return write_file


@pytest.fixture
def deploy(database_url: str, sql: Path) -> Callable[[], list[str]]:
    """Migrates the test's database with the test's own sql/; returns the messages."""

    def run() -> list[str]:
        said: list[str] = []
        migrate(database_url, sql=sql, schedule=False, say=said.append)
        return said

    return run


def routines(db: psycopg.Connection) -> list[str]:
    """Every routine of the two schemas with its arguments."""
    found = db.execute(
        "select oid::regprocedure::text from pg_proc"
        " where pronamespace in ('flashsale'::regnamespace, 'flashsale_data'::regnamespace) order by 1"
    )
    return [name for (name,) in found]


def test_a_second_run_applies_nothing_and_changes_nothing(empty_database):
    first, second = [], []
    migrate(empty_database, schedule=False, say=first.append)
    with psycopg.connect(empty_database) as db:
        before = routines(db)
    migrate(empty_database, schedule=False, say=second.append)
    with psycopg.connect(empty_database) as db:
        assert routines(db) == before
    assert first == [f"applied {name}" for name in migration_ids()] + ["loaded sql/"]
    assert second == ["loaded sql/"]


def test_the_tables_of_yoyo_have_a_schema_of_their_own(db):
    homes = db.execute("select distinct schemaname from pg_tables where tablename like '%yoyo%'").fetchall()
    assert homes == [("flashsale_migrations",)]
    assert db.execute(
        "select count(*) from pg_tables where schemaname in ('flashsale', 'public')"
    ).fetchone() == (0,)


def test_upto_stops_after_that_migration(empty_database):
    names = migration_ids()
    assert apply(empty_database, names[0]) == names[:1]
    assert apply(empty_database) == names[1:]
    with pytest.raises(UserError, match="no migration 9999"):
        apply(empty_database, "9999")


def test_an_edited_function_is_loaded_without_a_pending_migration(db, write, deploy):
    write("public/answer.sql", ANSWER.format(type="int", value=41))
    deploy()
    write("public/answer.sql", ANSWER.format(type="int", value=42))
    assert deploy() == ["loaded sql/"]
    assert db.execute("select flashsale.answer()").fetchone() == (42,)


def test_a_function_is_replaced_in_place_if_possible(db, write, deploy):
    write("public/answer.sql", ANSWER.format(type="int", value=41))
    deploy()
    before = db.execute("select 'flashsale.answer()'::regprocedure::oid").fetchone()
    write("public/answer.sql", ANSWER.format(type="int", value=42))
    deploy()
    assert db.execute("select 'flashsale.answer()'::regprocedure::oid").fetchone() == before


def test_a_function_with_a_changed_result_type_keeps_its_grants(db, write, deploy):
    write("public/answer.sql", ANSWER.format(type="int", value=41))
    deploy()
    write("public/answer.sql", ANSWER.format(type="text", value="'forty-two'"))
    deploy()
    assert db.execute("select flashsale.answer()").fetchone() == ("forty-two",)
    granted = "select has_function_privilege('flashsale_api', 'flashsale.answer()', 'execute')"
    assert db.execute(granted).fetchone() == (True,)


def test_changed_arguments_leave_no_overload(db, write, deploy):
    write(
        "internal/twice.sql",
        "create or replace function flashsale_data.twice(p int) returns int language sql as 'select 2*p';",
    )
    deploy()
    write(
        "internal/twice.sql",
        "create or replace function flashsale_data.twice(p bigint, q int default 2) returns bigint"
        " language sql as 'select q*p';",
    )
    deploy()
    assert routines(db) == ["flashsale_data.twice(bigint,integer)"]


def test_a_function_can_become_a_procedure(db, write, deploy):
    write("public/answer.sql", ANSWER.format(type="int", value=41))
    deploy()
    write(
        "public/answer.sql", "create or replace procedure flashsale.answer() language plpgsql as 'begin end';"
    )
    deploy()
    db.execute("call flashsale.answer()")


def test_views_on_a_changed_function_are_recreated(db, write, deploy):
    write("public/answer.sql", ANSWER.format(type="int", value=41))
    write(
        "views/answers.sql",
        "create or replace view flashsale.answers as select flashsale.answer() as answer;",
    )
    write(
        "views/all_answers.sql",
        "create or replace view flashsale.all_answers as select answer from flashsale.answers;",
    )
    deploy()
    write("public/answer.sql", ANSWER.format(type="text", value="'forty-two'"))
    deploy()
    assert db.execute("select answer from flashsale.all_answers").fetchone() == ("forty-two",)


def test_a_view_can_lose_a_column(db, write, deploy):
    write("views/pair.sql", "create or replace view flashsale.pair as select 1 as one, 2 as two;")
    deploy()
    write("views/pair.sql", "create or replace view flashsale.pair as select 2 as two;")
    deploy()
    assert db.execute("select * from flashsale.pair").fetchall() == [(2,)]


def test_an_object_without_a_file_is_dropped(db, write, deploy):
    path = write("public/answer.sql", ANSWER.format(type="int", value=41))
    view = write(
        "views/answers.sql", "create or replace view flashsale.answers as select flashsale.answer();"
    )
    deploy()
    path.unlink()
    view.unlink()
    deploy()
    assert routines(db) == []
    assert db.execute("select to_regclass('flashsale.answers')").fetchone() == (None,)


def test_an_object_in_use_is_not_dropped(db, write, deploy):
    path = write("public/answer.sql", ANSWER.format(type="int", value=41))
    deploy()
    db.execute("create schema theirs")
    db.execute("create view theirs.report as select flashsale.answer()")
    path.unlink()
    with pytest.raises(
        UserError, match=r"still uses.*\n.*view theirs\.report depends on function flashsale\.answer"
    ):
        deploy()
    assert db.execute("select * from theirs.report").fetchone() == (41,)


def test_files_can_refer_to_objects_of_later_files(db, write, deploy):
    write("views/a.sql", "create or replace view flashsale.a as select * from flashsale.b;")
    write("views/b.sql", "create or replace view flashsale.b as select 1 as one;")
    write(
        "internal/f.sql",
        "create or replace function flashsale_data.f() returns setof flashsale.b"
        " language sql as 'table flashsale.a';",
    )
    deploy()
    assert db.execute("select * from flashsale_data.f()").fetchall() == [(1,)]


def test_grants_are_exactly_those_of_the_files(db, write, deploy):
    write("public/answer.sql", ANSWER.format(type="int", value=41))
    deploy()
    write("public/answer.sql", ANSWER.format(type="int", value=41).replace("flashsale_api", "flashsale_ops"))
    db.execute("grant execute on function flashsale.answer() to public, flashsale_api")
    deploy()
    may = "select has_function_privilege(%s, 'flashsale.answer()', 'execute')"
    assert db.execute(may, ("flashsale_ops",)).fetchone() == (True,)
    assert db.execute(may, ("flashsale_api",)).fetchone() == (False,)
    assert db.execute("select proacl::text from pg_proc where proname = 'answer'").fetchone() == (
        "{flashsale_owner=X/flashsale_owner,flashsale_ops=X/flashsale_owner}",
    )


def test_everything_belongs_to_the_owner(db):
    strangers = db.execute(
        """
        select oid::regclass::text from pg_class
         where relnamespace in ('flashsale'::regnamespace, 'flashsale_data'::regnamespace)
           and relowner <> 'flashsale_owner'::regrole
        union all
        select oid::regprocedure::text from pg_proc
         where pronamespace in ('flashsale'::regnamespace, 'flashsale_data'::regnamespace)
           and proowner <> 'flashsale_owner'::regrole
        """
    ).fetchall()
    assert strangers == []


WRONG_VIEW = """-- One.
create or replace view flashsale.wrong as
select 1 from nowhere;
"""


def wrong_function(language: str, body: str) -> str:
    return f"""-- One.
create or replace function flashsale.wrong() returns int
language {language} as $$
{body}
$$;
"""


@pytest.mark.parametrize(
    ("name", "text", "line", "says"),
    [
        ("views/wrong.sql", WRONG_VIEW, 3, "nowhere"),
        ("public/wrong.sql", wrong_function("sql", "  select nothing"), 4, "nothing"),
        ("public/wrong.sql", wrong_function("plpgsql", "begin\n  retrun 1;\nend"), 5, "retrun"),
        ("public/wrong.sql", wrong_function("plpgsql", "begin\n  return;\nend"), 5, "missing"),
        ("public/wrong.sql", wrong_function("sql", "  select 1") + "nonsense;", 6, "nonsense"),
    ],
    ids=["view", "sql body", "plpgsql syntax", "plpgsql meaning", "after the function"],
)  # fmt: skip
def test_an_error_in_sql_names_file_and_line_and_changes_nothing(db, write, deploy, name, text, line, says):
    write("public/answer.sql", ANSWER.format(type="int", value=41))
    deploy()
    state = db.execute("select * from flashsale_data.schema_state").fetchall()
    write("public/answer.sql", ANSWER.format(type="int", value=42))
    path = write(name, text)
    with pytest.raises(SqlError) as raised:
        deploy()
    assert str(raised.value).startswith(f"{path}:{line}: ")
    assert says in str(raised.value)
    assert db.execute("select flashsale.answer()").fetchone() == (41,)
    assert db.execute("select * from flashsale_data.schema_state").fetchall() == state


def test_a_file_must_have_the_name_of_its_object(write, deploy):
    write("public/other.sql", ANSWER.format(type="int", value=41))
    with pytest.raises(UserError, match=r"must have the name of .* flashsale\.answer"):
        deploy()


def test_an_error_in_a_migration_names_file_and_line_and_rolls_back(database_url, db, tmp_path):
    folder = tmp_path / "migrations"
    folder.mkdir()
    for path in MIGRATIONS_DIRECTORY.glob("*.sql"):
        (folder / path.name).write_text(path.read_text())
    bad = folder / "9999.bad.sql"
    bad.write_text("create table public.half_made ();\n\ninsert into nowhere values (1);\n")
    for _ in range(2):
        with pytest.raises(SqlError) as raised:
            apply(database_url, migrations=folder)
        assert str(raised.value).startswith(f"{bad}:3: ")
        assert db.execute("select to_regclass('public.half_made')").fetchone() == (None,)
    bad.write_text("create table public.whole ();")
    assert apply(database_url, migrations=folder) == ["9999.bad"]


def test_a_stale_lock_of_yoyo_is_ignored(database_url, db, deploy):
    db.execute("insert into flashsale_migrations.yoyo_lock (locked, ctime, pid) values (1, now(), 1)")
    assert deploy() == ["loaded sql/"]


def test_concurrent_runs_both_succeed(empty_database):
    said: list[str] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            migrate(empty_database, schedule=False, say=said.append)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert sorted(line for line in said if "waiting" not in line) == sorted(
        [f"applied {name}" for name in migration_ids()] + 2 * ["loaded sql/"]
    )


def test_the_digest_of_the_loaded_files_is_recorded(db, sql, write, deploy):
    path = write("public/answer.sql", ANSWER.format(type="int", value=41))
    deploy()
    first = digest(sql)
    assert db.execute("select digest from flashsale_data.schema_state").fetchall() == [(first,)]
    path.write_text(ANSWER.format(type="int", value=42))
    assert digest(sql) != first


def test_callers_are_not_blocked_while_functions_are_replaced(db, connect, write, deploy):
    write("public/answer.sql", ANSWER.format(type="int", value=41))
    deploy()
    caller = connect("flashsale_app", autocommit=False)
    assert caller.execute("select flashsale.answer()").fetchone() == (41,)
    write("public/answer.sql", ANSWER.format(type="int", value=42))
    deploy()  # the caller's transaction is still open
    assert caller.execute("select flashsale.answer()").fetchone()[0] in (41, 42)
    caller.commit()
    assert caller.execute("select flashsale.answer()").fetchone() == (42,)


def test_a_role_without_rights_gets_the_commands_for_a_superuser(cluster, empty_database):
    with psycopg.connect(empty_database, autocommit=True) as admin:
        admin.execute("create role test_migrator login")
        try:
            url = cluster.url("test_migrator", "flashsale_empty")
            with pytest.raises(UserError, match="role test_migrator lacks rights to migrate") as refused:
                migrate(url, schedule=False, say=lambda _: None)
            advice = str(refused.value).split("must run: ")[1]
            assert advice.startswith("alter role test_migrator createrole;")
            assert advice.endswith("grant create on database flashsale_empty to test_migrator;")
            admin.execute(advice)
            migrate(url, schedule=False, say=lambda _: None)
            # Later migrations require membership in the owner only.
            admin.execute("alter role test_migrator nocreaterole")
            migrate(url, schedule=False, say=lambda _: None)
        finally:
            admin.execute("reassign owned by test_migrator to postgres")
            admin.execute("drop owned by test_migrator cascade")
            admin.execute("drop role test_migrator")


def test_an_unreachable_database_is_an_error():
    with pytest.raises(UserError, match="cannot connect to the database"):
        migrate("postgresql:///x?host=/nowhere", say=lambda _: None)


def test_only_the_owner_can_access_the_tables(connect):
    with pytest.raises(errors.InsufficientPrivilege):
        connect("flashsale_app").execute("select from flashsale_data.settings")


def test_a_stored_webhook_gets_a_deadline_and_one_that_was_passed_over_waits_no_longer(empty_database):
    apply(empty_database, "0002.tables", say=lambda _: None)
    with psycopg.connect(empty_database, autocommit=True) as conn:
        conn.execute(
            """
            insert into flashsale_data.products (name, price, currency, created_at)
              values ('Shoe', 1, 'USD', now());
            insert into flashsale_data.holds (hold_id, product_id, qty, status, placed_at, expires_at)
              values (1, 1, 1, 'ordered', now(), now());
            insert into flashsale_data.orders
              (order_id, hold_id, product_id, qty, amount, currency, created_at, payment_due_at)
              values (1, 1, 1, 1, 1, 'USD', '2026-01-01 12:00Z', '2026-01-01 13:00Z');
            insert into flashsale_data.payments
              (idempotency_key, order_id, status, payload, received_at, result, order_status)
              values ('passed over', 1, 'success', '{}', '2026-01-01 11:00Z', 'stored', null),
                     ('waits', 2, 'success', '{}', '2026-01-01 11:00Z', 'stored', null),
                     ('known', 1, 'success', '{}', '2026-01-01 11:00Z', 'refund_due', 'paid')
            """
        )
        apply(empty_database, "0003.inbox-deadlines", say=lambda _: None)
        deadlines = conn.execute(
            "select idempotency_key, wait_ends_at at time zone 'UTC' from flashsale_data.payments order by 1"
        ).fetchall()
    assert [(key, str(at)) for key, at in deadlines] == [
        ("known", "None"),
        ("passed over", "2026-01-01 12:00:00"),
        ("waits", "2026-01-02 11:00:00"),
    ]


def test_a_wait_that_has_not_ended_ends_on_a_whole_tenth_of_a_second(empty_database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as conn:
        apply(empty_database, "0003.inbox-deadlines", say=lambda _: None)
        conn.execute(
            "insert into flashsale_data.payments"
            " (idempotency_key, order_id, status, payload, received_at, result, wait_ends_at)"
            " values ('waits', 1, 'failed', '{}', now(), 'stored', '2100-01-01 12:00:00.01Z'),"
            " ('waits to a tenth', 1, 'failed', '{}', now(), 'stored', '2100-01-01 12:00:00.1Z'),"
            " ('ended', 1, 'failed', '{}', now(), 'stored', '2026-01-01 12:00:00.01Z')"
        )
        apply(empty_database, "0004.deadlines-on-tenths", say=lambda _: None)
        deadlines = conn.execute(
            "select idempotency_key, wait_ends_at at time zone 'UTC' from flashsale_data.payments order by 1"
        ).fetchall()
    assert [(key, str(at)) for key, at in deadlines] == [
        ("ended", "2026-01-01 12:00:00.010000"),
        ("waits", "2100-01-01 12:00:00.100000"),
        ("waits to a tenth", "2100-01-01 12:00:00.100000"),
    ]
