"""plpgsql_check reads every PL/pgSQL function of the project and finds nothing."""

import pytest

FINDINGS = """
    select p.oid::regprocedure::text, c.message, c.level, c.lineno, c.statement
    from pg_proc p
    join pg_language l on l.oid = p.prolang and l.lanname = 'plpgsql'
    cross join lateral plpgsql_check_function_tb(
      p.oid, fatal_errors => false, other_warnings => true, extra_warnings => true,
      performance_warnings => true, security_warnings => true) c
    where p.pronamespace in ('flashsale'::regnamespace, 'flashsale_data'::regnamespace)
"""


@pytest.fixture
def checker(db):
    """A superuser's session in whose transaction plpgsql_check is installed."""
    if not db.execute("select from pg_available_extensions where name = 'plpgsql_check'").rowcount:
        pytest.skip("plpgsql_check is not installed for this server; bin/bootstrap test offers it")
    with db.transaction(force_rollback=True):
        db.execute("create extension plpgsql_check")
        yield db


def test_plpgsql_check_reports_nothing(checker):
    assert checker.execute(FINDINGS).fetchall() == []


def test_plpgsql_check_reads_every_function(checker):
    """plpgsql_check finds nothing in languages that it cannot read."""
    others = checker.execute(
        "select p.oid::regprocedure::text, l.lanname from pg_proc p join pg_language l on l.oid = p.prolang"
        " where p.pronamespace in ('flashsale'::regnamespace, 'flashsale_data'::regnamespace)"
        " and l.lanname not in ('plpgsql', 'sql')"
    ).fetchall()
    assert others == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("begin perform hold_idd from flashsale_data.holds; end", 'column "hold_idd" does not exist'),
        ("declare v_unused int; begin null; end", 'unused variable "v_unused"'),
        (
            "declare v_id int; begin select hold_id into v_id from flashsale_data.holds; return; end",
            "never read",
        ),
    ],
)
def test_control_plpgsql_check_reports_a_defect(checker, body, message):
    checker.execute(f"create function flashsale.wrong() returns void language plpgsql as $${body}$$")
    found = checker.execute(FINDINGS).fetchall()
    assert any(name == "flashsale.wrong()" and message in said for name, said, *_ in found), found
