"""The command as a user types it. Every test shares one database, emptied before each."""

import os
from collections.abc import Callable, Iterator

import psycopg
import pytest
from click.testing import CliRunner, Result

from flashsale.cli.main import main
from flashsale.database import pg_cron as scheduler
from flashsale.local.cluster import SUPERUSER, Cluster
from tests.support.database import emptied_database

shared, postgresql = emptied_database("flashsale_cli")

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def no_settings_of_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FLASHSALE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def flashsale(database_url: str) -> Run:
    """flashsale("product", "list", SOME_VARIABLE="…"): the result, with what went to stdout and stderr."""

    def run(*arguments: object, **environment: str) -> Result:
        settings = {"FLASHSALE_DATABASE_URL": database_url} | environment
        result = CliRunner().invoke(main, [str(argument) for argument in arguments], env=settings)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def cron(cluster: Cluster) -> Iterator[psycopg.Connection]:
    """A superuser's connection to the database that pg_cron lives in."""
    with psycopg.connect(cluster.url(SUPERUSER, "postgres"), autocommit=True) as conn:
        yield conn


@pytest.fixture
def scheduled(
    db: psycopg.Connection, database_url: str, cron: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The test's database with its jobs; their names' end."""
    monkeypatch.setenv("FLASHSALE_DATABASE_URL", database_url)
    scheduler.schedule(db, database_url)
    # On a day that no year has: a run of pg_cron's own, each full minute, would be in the way.
    never = "update cron.job set schedule = '0 0 30 2 *' where jobname like '%% ' || %s"
    cron.execute(never, (db.info.dbname,))
    yield db.info.dbname
    scheduler.unschedule(db, database_url)
