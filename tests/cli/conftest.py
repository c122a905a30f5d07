"""The command as a user types it. Every test shares one database, emptied before each."""

import os
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from flashsale.cli import main
from tests.operators.emptied import emptied_database

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
