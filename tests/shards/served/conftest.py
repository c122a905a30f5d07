"""Shops on two databases, and commands for them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result
from pytest_postgresql.executors import NoopExecutor

from flashsale.cli.main import main
from flashsale.local.cluster import Cluster
from tests.shards.served.shop import Shop, new_shop
from tests.support.cli import unset_settings

__all__ = ["unset_settings"]


@pytest.fixture
def shop(cluster: Cluster, template: NoopExecutor) -> Iterator[Shop]:
    with new_shop(cluster, template) as shop:
        yield shop


@pytest.fixture
def client(shop: Shop, tmp_path: Path) -> Iterator[httpx.Client]:
    with shop.server(tmp_path / "gunicorn.log") as client:
        yield client


@pytest.fixture
def flashsale(shop: Shop) -> Callable[..., Result]:
    """flashsale("product", "list", SOME_VARIABLE="…") runs the command on both shards."""

    def run(*arguments: object, **environment: str) -> Result:
        settings = {"FLASHSALE_DATABASE_URLS": shop.urls()} | environment
        result = CliRunner().invoke(main, [str(argument) for argument in arguments], env=settings)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run
