"""A PostgreSQL whose clock is set to the microsecond and does not advance (libfaketime)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from unittest import mock

import psycopg

from flashsale.database.migrations import migrate
from flashsale.database.seed import create_app_role
from flashsale.local.cluster import SUPERUSER, Cluster, stop_server
from tests.support.clusters import cluster_folder

LIBRARIES = [str(path) for path in Path("/usr/lib").glob("*/faketime/libfaketime.so.1")]
MICROSECOND = timedelta(microseconds=1)


class Clock:
    """The wall clock of a cluster. The monotonic clock, by which PostgreSQL waits, runs on."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def set(self, instant: datetime) -> None:
        """From now on it is `instant`, in UTC."""
        # Half a microsecond more: the library truncates what a binary fraction may have put just below.
        text = instant.strftime("%Y-%m-%d %H:%M:%S.%f") + "5"
        fresh = self._file.with_suffix(".new")
        fresh.write_text(text)
        fresh.chmod(0o644)
        fresh.rename(self._file)


class FaketimeCluster:
    """A cluster under such a clock, with a migrated template."""

    def __init__(self, cluster: Cluster, clock: Clock) -> None:
        self.cluster = cluster
        self.clock = clock
        self._count = 0

    def new_database(self) -> str:
        """A migrated database; the superuser's URL."""
        self._count += 1
        name = f"flashsale_{self._count}"
        with psycopg.connect(self.cluster.url(SUPERUSER, "postgres"), autocommit=True) as conn:
            conn.execute(f"create database {name} template flashsale")
        return self.cluster.url(SUPERUSER, name)


@contextmanager
def faketime_cluster(start: datetime) -> Iterator[FaketimeCluster]:
    """Needs one of LIBRARIES. No job is scheduled: time only passes when it is set."""
    with cluster_folder() as folder:
        cluster, clock = Cluster(folder), Clock(folder / "clock")
        clock.set(start)
        cluster.create()
        environment = {
            "LD_PRELOAD": LIBRARIES[0],
            "FAKETIME_TIMESTAMP_FILE": str(folder / "clock"),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",
            "TZ": "UTC",
        }
        settings = {"fsync": "off", "synchronous_commit": "off", "autovacuum": "off"}
        with mock.patch.dict(os.environ, environment):
            server = cluster.start(settings, with_pg_cron=False)
        try:
            with psycopg.connect(cluster.url(SUPERUSER, "postgres"), autocommit=True) as conn:
                conn.execute("create database flashsale")
            template = cluster.url(SUPERUSER, "flashsale")
            migrate(template, schedule=False, say=lambda _: None)
            with psycopg.connect(template, autocommit=True) as conn:
                create_app_role(conn)
            yield FaketimeCluster(cluster, clock)
        finally:
            stop_server(server)
