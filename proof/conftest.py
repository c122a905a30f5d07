"""What the tests of the promises know of the campaign."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pytest_postgresql.executors import NoopExecutor
from pytest_postgresql.janitor import DatabaseJanitor

from flashsale.local.cluster import Cluster
from proof.campaign import Campaign


@pytest.fixture
def campaign(request: pytest.FixtureRequest) -> Campaign:
    """How far this test goes, its seed and random numbers, and where it reports."""
    report = request.config.getoption("--proof-report")
    return Campaign(
        request.path.stem.removeprefix("test_"),
        request.node.nodeid,
        request.config.getoption("--proof-seed"),
        full=request.config.getoption("--proof-full"),
        report=None if report is None else Path(report),
    )


@pytest.fixture
def clone(template: NoopExecutor, cluster: Cluster) -> Iterator[Callable[[], str]]:
    """clone() is the superuser's URL of one more fresh database, for what would stand in the way of
    another."""
    numbers = itertools.count(1)
    with ExitStack() as made:

        def one_more() -> str:
            name = f"flashsale_clone_{next(numbers)}"
            made.enter_context(
                DatabaseJanitor(
                    user=template.user,
                    host=template.host,
                    port=template.port,
                    dbname=name,
                    template_dbname=template.template_dbname,
                )
            )
            return cluster.url(template.user, name)

        yield one_more
