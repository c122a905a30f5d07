"""Fixtures for commands that run in this process, with the database of the test and no other setting."""

import os
from collections.abc import Callable, Iterator

import psycopg
import pytest
from click.testing import CliRunner, Result

from flashsale.cli.main import main
from flashsale.database import pg_cron

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def unset_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FLASHSALE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def flashsale(database_url: str) -> Run:
    """flashsale("product", "list", SOME_VARIABLE="…") runs the command; the result has its output."""

    def run(*arguments: object, **environment: str) -> Result:
        settings = {"FLASHSALE_DATABASE_URL": database_url} | environment
        result = CliRunner().invoke(main, [str(argument) for argument in arguments], env=settings)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def scheduled(
    db: psycopg.Connection, database_url: str, cron: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Schedules the jobs of the test's database; the name of that database, which ends the names of jobs."""
    monkeypatch.setenv("FLASHSALE_DATABASE_URL", database_url)
    pg_cron.schedule(db, database_url)
    # On February 30th: pg_cron must not run them during the test.
    never = "update cron.job set schedule = '0 0 30 2 *' where jobname like '%% ' || %s"
    cron.execute(never, (db.info.dbname,))
    yield db.info.dbname
    pg_cron.unschedule(db, database_url)
