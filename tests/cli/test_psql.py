"""`flashsale psql`: options, standard input and the exit status are those of psql."""

import os
import subprocess

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
