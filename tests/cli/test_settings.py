"""Commands in a database, or as a role, with settings of another application."""

import json
import subprocess
import sys

import psycopg
import pytest

from flashsale.database.drift import differences
from flashsale.database.migrations import migrate
from tests.support import ROOT
from tests.support.sale_steps import create_product, one, order, pay, place_hold

SETTINGS = {
    "datestyle": ["ISO, YMD", "SQL, DMY", "German", "Postgres, MDY"],
    "intervalstyle": ["sql_standard", "postgres_verbose", "iso_8601"],
    "timezone": ["Asia/Tokyo"],
    "bytea_output": ["escape"],
    "array_nulls": ["off"],
    "standard_conforming_strings": ["off"],
    "extra_float_digits": ["-5"],
    "client_encoding": ["LATIN1"],
    "search_path": [""],
    "row_security": ["off"],
    "check_function_bodies": ["off"],
    "quote_all_identifiers": ["on"],
    "transform_null_equals": ["on"],
    "exit_on_error": ["on"],
    "statement_timeout": ["1s"],
    "default_transaction_isolation": ["serializable"],
    "plpgsql.extra_errors": ["all"],
}
COMMANDS = (
    "watch --once --json", "events --json", "events", "product list", "audit", "cron status --json",
    "product restock 1 1",
)  # fmt: skip


ROUNDS = [
    {setting: values[n] for setting, values in SETTINGS.items() if n < len(values)}
    for n in range(max(map(len, SETTINGS.values())))
]
"""every value once: the first of each setting, then the second of those that have one, and so on"""


@pytest.mark.parametrize("settings", ROUNDS, ids=lambda settings: f"{len(settings)} settings")
def test_commands_print_the_same_under_every_setting(flashsale, db, settings):
    create_product(db)
    place_hold(db, 1)
    pay(db, order(db, 1))
    before = [flashsale(*command.split()) for command in COMMANDS[:-1]]
    for setting, value in settings.items():
        db.execute(f"alter database {db.info.dbname} set {setting} to '{value}'")
    try:
        results = [flashsale(*command.split()) for command in COMMANDS]
        doctor = flashsale("doctor", "--json")
    finally:
        db.execute(f"alter database {db.info.dbname} reset all")
    codes = [result.exit_code for result in results]
    assert codes == [result.exit_code for result in before] + [0], [result.output for result in results]
    assert stable(results[0].stdout) == stable(before[0].stdout)
    assert [result.stdout for result in results[1:4]] == [result.stdout for result in before[1:4]]
    failed = [f for f in json.loads(doctor.stdout)["findings"] if f["status"] == "failed"]
    assert {f["check"] for f in failed} <= {"durability", "pg_cron"}, failed  # of the suite's server


def stable(snapshot: str) -> dict:
    """What does not change with time in `watch --once --json`."""
    found = json.loads(snapshot)
    found.pop("at")
    for product in found["products"]:
        for name in ("holds_per_second", "orders_per_second", "paid_per_second", "now"):
            product.pop(name)
    return found


def test_sql_is_loaded_the_same_under_all_settings(empty_database):
    """Patterns in function bodies, names in the catalog, checks of bodies."""
    odd = {name: values[-1] for name, values in SETTINGS.items()}
    with psycopg.connect(empty_database, autocommit=True) as conn:
        for setting, value in odd.items():
            conn.execute(f"alter database {conn.info.dbname} set {setting} to '{value}'")
    migrate(empty_database, schedule=False, say=lambda _: None)
    migrate(empty_database, schedule=False, say=lambda _: None)
    with psycopg.connect(empty_database, autocommit=True) as conn:
        conn.execute(f"alter database {conn.info.dbname} reset all")
    with psycopg.connect(empty_database, autocommit=True) as conn:
        assert list(differences(conn, ROOT / "sql")) == []
        pay(conn, order(conn, create_product(conn)))
        assert one(conn, "select count(*) from flashsale.audit()") == 0


def test_functions_judge_amounts_the_same_under_every_setting(db):
    """A pattern is compiled in the caller's session."""
    paid = order(db, create_product(db))
    caller = psycopg.connect(db.info.dsn, autocommit=True, options="-c standard_conforming_strings=off")
    with caller, pytest.raises(psycopg.Error) as raised:
        caller.execute(f"select flashsale.apply_payment('p', {paid}, 'success', '{{\"amount\": \"9x9\"}}')")
    assert raised.value.sqlstate == "SA009"


def test_the_sweep_runs_at_read_committed(db, connect):
    create_product(db)
    sweeper = connect(options="-c default_transaction_isolation=serializable")
    db.execute(
        "create or replace function flashsale.expire_due(p_limit int default 1000) returns int"
        " language plpgsql as $$ begin raise 'at %', current_setting('transaction_isolation'); end $$"
    )
    try:
        with pytest.raises(psycopg.errors.RaiseException, match="at read committed"):
            sweeper.execute("call flashsale.sweep()")
    finally:
        db.execute((ROOT / "sql/operators/expire_due.sql").read_text())


def test_a_write_to_a_read_only_database_names_the_setting(flashsale, db):
    create_product(db)
    db.execute(f"alter database {db.info.dbname} set default_transaction_read_only = on")
    try:
        result = flashsale("product", "restock", 1, 1)
        assert result.exit_code == 1
        assert "default_transaction_read_only is on; see flashsale doctor" in result.output
        found = json.loads(flashsale("doctor", "--json").stdout)["findings"]
        assert "functions" not in {f["check"] for f in found if f["status"] != "ok"}
    finally:
        db.execute("begin read write")
        db.execute(f"alter database {db.info.dbname} reset default_transaction_read_only")
        db.execute("commit")


def test_the_python_of_services_works_under_every_setting(db, database_url):
    """docs/services.md is run as printed in tests/docs; here its connections are."""
    create_product(db)
    example = next(
        block
        for block in (ROOT / "docs/services.md").read_text().split("```python\n")[1:]
        if "def connect(" in block
    ).partition("\ndef may_repeat")[0]
    script = example + (
        "\nwith connect() as conn:\n"
        "    print(conn.execute('select * from flashsale.read_events(0, 10)').fetchone()[2].isoformat())\n"
        "    print(conn.execute('select hold_time from flashsale.settings').fetchone()[0])\n"
    )
    for setting, values in SETTINGS.items():
        if setting != "statement_timeout":  # a limit for services, too
            db.execute(f"alter database {db.info.dbname} set {setting} to '{values[-1]}'")
    try:
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={"DATABASE_URL": database_url, "KEY_SECRET": "secret"}, capture_output=True, text=True,
        )  # fmt: skip
    finally:
        db.execute(f"alter database {db.info.dbname} reset all")
    assert done.returncode == 0, done.stderr
    at, hold_time = done.stdout.split()
    assert (at[-6:], hold_time) == ("+00:00", "0:02:00")
