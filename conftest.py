"""One PostgreSQL cluster for the run, a migrated template in it, a clone of that for each test.

Fixtures
--------
database_url    superuser's URL of a fresh database, migrated, empty
db              a psycopg connection to it: superuser, autocommit
connect         opens more: connect(), connect("flashsale_app"), connect(autocommit=False); closed at the end
server          base URL of gunicorn serving that database, logged in as the role flashsale_app
cron            superuser's autocommit connection to the database of pg_cron
empty_database  superuser's URL of a fresh database with nothing in it
cluster         the cluster itself (for the whole run)

Waiting for something to happen, and other things tests share, are in tests/support.
"""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from pytest_postgresql import factories
from pytest_postgresql.janitor import DatabaseJanitor

from flashsale.database.migrations import migrate
from flashsale.database.seed import APP_ROLE, create_app_role
from flashsale.local.cluster import PORT, SUPERUSER, Cluster
from tests.support import clusters, servers
from tests.support.http import running_server

# The run's data is thrown away: nothing is gained by waiting for the disk.
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_connections": "300",
    # More than the sessions of proof/test_transactions.py leave prepared.
    "max_prepared_transactions": "20",
    # Away from the databases that tests clone and drop.
    "cron.database_name": "postgres",
}


def pytest_configure() -> None:
    """A shell lets what it starts in the background ignore SIGINT, and all that this starts: no test could
    interrupt a command."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """What `make proof` passes to the campaigns in proof/, and another version of PostgreSQL."""
    parser.addoption(
        "--postgresql", metavar="VERSION", choices=servers.VERSIONS,
        help="run on a version that `bin/bootstrap servers` has added; it is without pg_cron",
    )  # fmt: skip
    group = parser.getgroup("proof")
    group.addoption("--proof-full", action="store_true", help="run campaigns at full size")
    group.addoption("--proof-guard", metavar="NAME", help="only the mutations of this guard")
    group.addoption("--proof-seed", type=int, default=1, help="seed of all random choices")
    group.addoption("--proof-report", metavar="FILE", help="append what was tried, a JSON object a line")


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """A private cluster as `make up` makes them, so that the suite runs as root too."""
    with clusters.running_cluster(SETTINGS, version=pytestconfig.getoption("postgresql")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def running_cluster(cluster: Cluster) -> SimpleNamespace:
    """The cluster in the words of pytest-postgresql."""
    return SimpleNamespace(
        host=str(cluster.socket_directory),
        port=PORT,
        user=SUPERUSER,
        password=None,
        options="",
        maintenance_dbname="postgres",
        template_dbname=None,
    )


def migrate_template(*, host: str, port: int, user: str, dbname: str, **_: object) -> None:
    """Fill the template. Nothing is scheduled: pg_cron's visits would keep it from being cloned."""
    url = psycopg.conninfo.make_conninfo(host=host, port=port, user=user, dbname=dbname)
    migrate(url, schedule=False, say=lambda _: None)
    with psycopg.connect(url, autocommit=True) as conn:
        create_app_role(conn)


template = factories.postgresql_noproc(
    depends_on="running_cluster", dbname="flashsale_test", load=[migrate_template]
)
postgresql = factories.postgresql("template")


@pytest.fixture
def database_url(postgresql: psycopg.Connection, cluster: Cluster) -> str:
    return cluster.url(SUPERUSER, postgresql.info.dbname)


@pytest.fixture
def connect(postgresql: psycopg.Connection, cluster: Cluster) -> Iterator[Callable[..., psycopg.Connection]]:
    opened: list[psycopg.Connection] = []

    def open_connection(user: str = SUPERUSER, **options: object) -> psycopg.Connection:
        conn = psycopg.connect(cluster.url(user, postgresql.info.dbname), **{"autocommit": True, **options})
        opened.append(conn)
        return conn

    yield open_connection
    for conn in opened:
        conn.close()


@pytest.fixture
def db(connect: Callable[..., psycopg.Connection]) -> psycopg.Connection:
    return connect()


@pytest.fixture
def cron(cluster: Cluster) -> Iterator[psycopg.Connection]:
    with psycopg.connect(cluster.url(SUPERUSER, "postgres"), autocommit=True) as conn:
        yield conn


@pytest.fixture
def server(postgresql: psycopg.Connection, cluster: Cluster, tmp_path: Path) -> Iterator[str]:
    with running_server(cluster.url(APP_ROLE, postgresql.info.dbname), tmp_path / "gunicorn.log") as url:
        yield url


@pytest.fixture
def empty_database(cluster: Cluster) -> Iterator[str]:
    name = "flashsale_empty"
    with DatabaseJanitor(user=SUPERUSER, host=str(cluster.socket_directory), port=PORT, dbname=name):
        yield cluster.url(SUPERUSER, name)
