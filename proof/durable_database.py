"""PostgreSQL as `make up` runs it: commits wait for the disk, unlike in the suite's own cluster."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from flashsale.database.migrations import migrate
from flashsale.database.seed import APP_ROLE, create_app_role
from flashsale.local.cluster import SUPERUSER, Cluster, stop_server
from tests.support.clusters import cluster_folder

DATABASE = "flashsale"


class DurableDatabase:
    """A cluster with one migrated database, which may be killed and started again."""

    def __init__(self, directory: Path) -> None:
        self.cluster = Cluster(directory)
        self.log = directory / "gunicorn.log"

    @property
    def url(self) -> str:
        """The superuser's."""
        return self.cluster.url(SUPERUSER, DATABASE)

    @property
    def app_url(self) -> str:
        """The HTTP server's."""
        return self.cluster.url(APP_ROLE, DATABASE)

    def start(self) -> None:
        """Start the server, after removing what a killed one left, as a supervisor does."""
        self.cluster.stop_leftover()
        self.postgres: subprocess.Popen[bytes] = self.cluster.start()

    def connect(self, **options: object) -> psycopg.Connection:
        return psycopg.connect(self.url, **{"autocommit": True, **options})

    def accepts_connections(self) -> bool:
        try:
            with self.connect(connect_timeout=2) as conn:
                conn.execute("select")
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def durable_database() -> Iterator[DurableDatabase]:
    with cluster_folder() as folder:
        database = DurableDatabase(folder)
        try:
            database.cluster.create()
            database.start()
            with psycopg.connect(database.cluster.url(SUPERUSER, "postgres"), autocommit=True) as conn:
                conn.execute(f"create database {DATABASE}")
            migrate(database.url, say=lambda _: None)
            with database.connect() as conn:
                create_app_role(conn)
            yield database
        finally:
            if hasattr(database, "postgres"):
                stop_server(database.postgres)
            database.cluster.stop_leftover()
