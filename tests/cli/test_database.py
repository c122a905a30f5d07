"""`flashsale psql` and `migrate`. `up` and `destroy` are tested in tests/local/test_supervisor.py."""

import os
import subprocess

import psycopg
import pytest

from tests.support import ROOT
from tests.support.sale_steps import create_product

PROGRAM = str(ROOT / ".venv/bin/flashsale")


def psql(url: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [PROGRAM, "psql", *arguments],
        env=os.environ | {"FLASHSALE_DATABASE_URL": url},
        capture_output=True,
        text=True,
        input="select 'from standard input'",
    )


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (["-X", "-At", "-c", "select name from flashsale.stock"], "Sneaker\n"),
        (["--no-psqlrc", "--csv", "-tc", "select 1 as a, 2 as b"], "1,2\n"),
        (["-XAt", "-v", "n=7", "--command=select 1", "-c", "select 2"], "1\n2\n"),
        (["-XAtq", "--set", "ON_ERROR_STOP=1"], "from standard input\n"),
    ],
)
def test_options_are_passed_to_psql(db, database_url, arguments, printed):
    create_product(db)
    done = psql(database_url, *arguments)
    assert (done.stdout, done.stderr, done.returncode) == (printed, "", 0)


def test_the_exit_status_is_that_of_psql(database_url):
    assert psql(database_url, "-Xc", "select nonsense").returncode == 1


def test_a_missing_psql_is_an_error(flashsale, monkeypatch):
    monkeypatch.setenv("PATH", "")
    result = flashsale("psql")
    assert result.exit_code == 1
    assert "psql is not installed" in result.stderr


def test_migrate_brings_an_empty_database_up_to_date(flashsale, empty_database):
    result = flashsale("migrate", "--no-schedule", FLASHSALE_DATABASE_URL=empty_database)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "loaded sql/"
    with psycopg.connect(empty_database) as conn:
        assert conn.execute("select count(*) from flashsale.refusals").fetchone()[0] > 10


def test_migrate_without_a_database_is_a_one_line_error(flashsale):
    result = flashsale("migrate", FLASHSALE_DATABASE_URL="postgresql://127.0.0.1:1/none?connect_timeout=2")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: cannot connect to the database: ")
