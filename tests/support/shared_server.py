"""One server and its database for many tests: starting them takes two seconds, emptying the database 20 ms.

For tests that look only at responses and tables. One that reads the server's log or metrics, ends its
connections or changes functions has a server of its own (conftest.py).
"""

from collections.abc import Callable, Iterator

import psycopg
import pytest

from flashsale.database.seed import APP_ROLE
from flashsale.local.cluster import Cluster
from tests.support.database import emptied_database
from tests.support.http import running_server


def shared_server(dbname: str, scope: str = "package", **environment: str) -> tuple[Callable, ...]:
    """Four fixtures: the two of emptied_database(), the server, and its URL once the database is empty.

    :param scope: of the database and the server: package in a conftest.py, module in a file of tests; none
        outlives its tests, some of which look for the server that they have started
    :param environment: the server's, as in running_server()
    """
    shared, postgresql = emptied_database(dbname, scope)

    @pytest.fixture(scope=scope)
    def started(
        shared: tuple[str, dict[str, list]], cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[str]:
        log = tmp_path_factory.mktemp(dbname) / "gunicorn.log"
        with running_server(cluster.url(APP_ROLE, dbname), log, **environment) as url:
            yield url
        assert "Traceback" not in log.read_text()

    @pytest.fixture
    def server(started: str, postgresql: psycopg.Connection) -> str:
        return started

    return shared, postgresql, started, server
