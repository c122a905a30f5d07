"""PostgreSQL as `make up` runs it: commits wait for the disk, unlike the suite's own cluster."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from flashsale.database.migrations import migrate
from flashsale.database.seed import APP_ROLE, create_app_role
from flashsale.local.cluster import SUPERUSER, Cluster, stop_server

DATABASE = "flashsale"


class Durable:
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
        """Start it, clearing up behind one that was killed, as whatever supervises it would."""
        self.cluster.stop_leftover()
        self.postgres: subprocess.Popen[bytes] = self.cluster.start()

    def connect(self, **options: object) -> psycopg.Connection:
        return psycopg.connect(self.url, **{"autocommit": True, **options})

    def accepts(self) -> bool:
        """Whether PostgreSQL lets anybody in."""
        try:
            with self.connect(connect_timeout=2) as conn:
                conn.execute("select")
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def durable_database() -> Iterator[Durable]:
    # Not pytest's own temporary folder: that one shuts out the account PostgreSQL runs as.
    directory = Path(tempfile.mkdtemp(prefix="flashsale-proof-"))
    directory.chmod(0o711)
    made = Durable(directory)
    try:
        made.cluster.create()
        made.start()
        with psycopg.connect(made.cluster.url(SUPERUSER, "postgres"), autocommit=True) as conn:
            conn.execute(f"create database {DATABASE}")
        migrate(made.url, say=lambda _: None)
        with made.connect() as conn:
            create_app_role(conn)
        yield made
    finally:
        if hasattr(made, "postgres"):
            stop_server(made.postgres)
        made.cluster.stop_leftover()
        shutil.rmtree(directory)
