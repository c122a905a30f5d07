"""The functions and views of a database are those of sql/ after each `flashsale migrate`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from api.database.schema_version import digest
from flashsale.database.migrations import migrate
from flashsale.database.sql_loader import SqlError
from flashsale.errors import UserError
from tests.support.database import routines

Write = Callable[[str, str], Path]


def answer(value: object, type: str = "int") -> str:
    return f"""
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
def deploy(database_url: str, sql: Path, write: Write) -> Callable[..., list[str]]:
    """deploy() migrates the test's database with the test's own sql/, deploy(name, text) after writing that
    file; both return the messages."""

    def run(*file: str) -> list[str]:
        if file:
            write(*file)
        said: list[str] = []
        migrate(database_url, sql=sql, schedule=False, say=said.append)
        return said

    return run


def test_an_edited_function_is_loaded_without_a_pending_migration(db, deploy):
    deploy("public/answer.sql", answer(41))
    assert deploy("public/answer.sql", answer(42)) == ["loaded sql/"]
    assert db.execute("select flashsale.answer()").fetchone() == (42,)


def test_a_function_is_replaced_in_place_if_possible(db, deploy):
    deploy("public/answer.sql", answer(41))
    before = db.execute("select 'flashsale.answer()'::regprocedure::oid").fetchone()
    deploy("public/answer.sql", answer(42))
    assert db.execute("select 'flashsale.answer()'::regprocedure::oid").fetchone() == before


def test_a_function_with_a_changed_result_type_keeps_its_grants(db, deploy):
    deploy("public/answer.sql", answer(41))
    deploy("public/answer.sql", answer("'forty-two'", "text"))
    assert db.execute("select flashsale.answer()").fetchone() == ("forty-two",)
    granted = "select has_function_privilege('flashsale_api', 'flashsale.answer()', 'execute')"
    assert db.execute(granted).fetchone() == (True,)


def test_changed_arguments_leave_no_overload(db, deploy):
    deploy(
        "internal/twice.sql",
        "create or replace function flashsale_data.twice(p int) returns int language sql as 'select 2*p';",
    )
    deploy(
        "internal/twice.sql",
        "create or replace function flashsale_data.twice(p bigint, q int default 2) returns bigint"
        " language sql as 'select q*p';",
    )
    assert routines(db) == ["flashsale_data.twice(bigint,integer)"]


def test_a_function_can_become_a_procedure(db, deploy):
    deploy("public/answer.sql", answer(41))
    deploy(
        "public/answer.sql", "create or replace procedure flashsale.answer() language plpgsql as 'begin end';"
    )
    db.execute("call flashsale.answer()")


def test_views_on_a_changed_function_are_recreated(db, write, deploy):
    write("public/answer.sql", answer(41))
    write(
        "views/answers.sql",
        "create or replace view flashsale.answers as select flashsale.answer() as answer;",
    )
    deploy(
        "views/all_answers.sql",
        "create or replace view flashsale.all_answers as select answer from flashsale.answers;",
    )
    deploy("public/answer.sql", answer("'forty-two'", "text"))
    assert db.execute("select answer from flashsale.all_answers").fetchone() == ("forty-two",)


def test_a_view_can_lose_a_column(db, deploy):
    deploy("views/pair.sql", "create or replace view flashsale.pair as select 1 as one, 2 as two;")
    deploy("views/pair.sql", "create or replace view flashsale.pair as select 2 as two;")
    assert db.execute("select * from flashsale.pair").fetchall() == [(2,)]


def test_an_object_without_a_file_is_dropped(db, write, deploy):
    path = write("public/answer.sql", answer(41))
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
    path = write("public/answer.sql", answer(41))
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
    deploy(
        "internal/f.sql",
        "create or replace function flashsale_data.f() returns setof flashsale.b"
        " language sql as 'table flashsale.a';",
    )
    assert db.execute("select * from flashsale_data.f()").fetchall() == [(1,)]


def test_grants_are_exactly_those_of_the_files(db, write, deploy):
    deploy("public/answer.sql", answer(41))
    write("public/answer.sql", answer(41).replace("flashsale_api", "flashsale_ops"))
    db.execute("grant execute on function flashsale.answer() to public, flashsale_api")
    deploy()
    may = "select has_function_privilege(%s, 'flashsale.answer()', 'execute')"
    assert db.execute(may, ("flashsale_ops",)).fetchone() == (True,)
    assert db.execute(may, ("flashsale_api",)).fetchone() == (False,)
    assert db.execute("select proacl::text from pg_proc where proname = 'answer'").fetchone() == (
        "{flashsale_owner=X/flashsale_owner,flashsale_ops=X/flashsale_owner}",
    )


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
    deploy("public/answer.sql", answer(41))
    state = db.execute("select * from flashsale_data.schema_state").fetchall()
    write("public/answer.sql", answer(42))
    path = write(name, text)
    with pytest.raises(SqlError) as raised:
        deploy()
    assert str(raised.value).startswith(f"{path}:{line}: ")
    assert says in str(raised.value)
    assert db.execute("select flashsale.answer()").fetchone() == (41,)
    assert db.execute("select * from flashsale_data.schema_state").fetchall() == state


def test_a_file_must_have_the_name_of_its_object(write, deploy):
    write("public/other.sql", answer(41))
    with pytest.raises(UserError, match=r"must have the name of .* flashsale\.answer"):
        deploy()


def test_the_digest_of_the_loaded_files_is_recorded(db, sql, write, deploy):
    path = write("public/answer.sql", answer(41))
    deploy()
    first = digest(sql)
    assert db.execute("select digest from flashsale_data.schema_state").fetchall() == [(first,)]
    path.write_text(answer(42))
    assert digest(sql) != first


def test_callers_are_not_blocked_while_functions_are_replaced(db, connect, deploy):
    deploy("public/answer.sql", answer(41))
    caller = connect("flashsale_app", autocommit=False)
    assert caller.execute("select flashsale.answer()").fetchone() == (41,)
    deploy("public/answer.sql", answer(42))  # the caller's transaction is still open
    assert caller.execute("select flashsale.answer()").fetchone()[0] in (41, 42)
    caller.commit()
    assert caller.execute("select flashsale.answer()").fetchone() == (42,)
