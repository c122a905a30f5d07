"""Fixtures of the campaigns."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import psycopg
import pytest
from pytest_postgresql.executors import NoopExecutor
from pytest_postgresql.janitor import DatabaseJanitor

from flashsale.database.seed import APP_ROLE
from flashsale.local.cluster import Cluster
from proof.campaign import Campaign
from tests.support.database import session_of_new_role
from tests.support.http import running_server


@pytest.fixture
def campaign(request: pytest.FixtureRequest) -> Campaign:
    """This test's share of the campaign."""
    report = request.config.getoption("--proof-report")
    return Campaign(
        request.node.nodeid,
        request.config.getoption("--proof-seed"),
        full=request.config.getoption("--proof-full"),
        report=None if report is None else Path(report),
    )


@pytest.fixture
def clone(template: NoopExecutor, cluster: Cluster) -> Iterator[Callable[[], str]]:
    """clone() creates one more fresh database and returns the superuser's URL of it."""
    numbers = itertools.count(1)
    with ExitStack() as clones:

        def create() -> str:
            name = f"flashsale_clone_{next(numbers)}"
            clones.enter_context(
                DatabaseJanitor(
                    user=template.user,
                    host=template.host,
                    port=template.port,
                    dbname=name,
                    template_dbname=template.template_dbname,
                )
            )
            return cluster.url(template.user, name)

        yield create


@pytest.fixture
def unprivileged(
    db: psycopg.Connection, connect: Callable[..., psycopg.Connection]
) -> Iterator[psycopg.Connection]:
    """A session of a role whose only privilege is membership in flashsale_api."""
    with session_of_new_role(db, connect, "flashsale_proof_unprivileged", "flashsale_api") as conn:
        yield conn


@pytest.fixture
def serve_signed(
    cluster: Cluster, database_url: str, tmp_path: Path
) -> Callable[..., AbstractContextManager[str]]:
    """serve_signed(*secrets) runs a server that accepts webhooks signed with those, and no others."""
    dbname = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    return lambda *secrets: running_server(
        cluster.url(APP_ROLE, dbname),
        tmp_path / "gunicorn.log",
        FLASHSALE_WEBHOOK_SECRETS=",".join(secrets),
        FLASHSALE_ALLOW_UNSIGNED_WEBHOOKS="",
    )
