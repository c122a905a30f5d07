"""PostgreSQL clusters that a test makes for itself."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from flashsale.local.cluster import CONFIGURATION, SUPERUSER, Cluster, find_binary, stop_server
from tests.support import servers

# The programs for other versions are built without lz4.
PORTABLE_CONFIGURATION = CONFIGURATION.replace("wal_compression = lz4\n", "")


@contextmanager
def cluster_folder() -> Iterator[Path]:
    """A temporary folder that the account of PostgreSQL can enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="flashsale-test-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def new_cluster(folder: Path, version: str | None = None) -> Cluster:
    """A new cluster in `folder`, with the settings of `make up`, that has not been started.

    :param version: of PostgreSQL, one of servers.VERSIONS; None: the installed one
    """
    if version is None:
        cluster = Cluster(folder)
        cluster.create()
    else:
        cluster = Cluster(folder / "cluster", servers.programs(version, folder / "programs"))
        cluster.create(PORTABLE_CONFIGURATION)
    return cluster


@contextmanager
def running_cluster(
    settings: Mapping[str, str] | None = None, *, with_pg_cron: bool = True, version: str | None = None
) -> Iterator[Cluster]:
    """A new cluster, stopped and removed at the end; `version` as in new_cluster()."""
    with cluster_folder() as folder:
        cluster = new_cluster(folder, version)
        server = cluster.start(settings, with_pg_cron=with_pg_cron)
        try:
            yield cluster
        finally:
            stop_server(server)


@contextmanager
def standby_of(primary: Cluster) -> Iterator[Cluster]:
    """A hot standby of a cluster, which follows it by streaming."""
    with cluster_folder() as folder:
        standby = Cluster(folder)
        account = standby.account
        account.make_private_directory(standby.data)
        subprocess.run(
            account.command(
                find_binary("pg_basebackup"), "-D", standby.data, "-R", "-X", "stream", "-c", "fast",
                "-d", primary.url(SUPERUSER, "postgres"),
            ),
            cwd="/", check=True, capture_output=True,
        )  # fmt: skip
        server = standby.start(with_pg_cron=False)
        try:
            yield standby
        finally:
            stop_server(server)
