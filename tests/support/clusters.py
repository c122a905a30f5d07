"""PostgreSQL clusters that a test makes for itself."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from flashsale.local.cluster import Cluster, stop_server


@contextmanager
def cluster_folder() -> Iterator[Path]:
    """A temporary folder that the account of PostgreSQL can enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="flashsale-test-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def running_cluster(
    settings: Mapping[str, str] | None = None, *, with_pg_cron: bool = True
) -> Iterator[Cluster]:
    """A new cluster, stopped and removed at the end."""
    with cluster_folder() as folder:
        cluster = Cluster(folder)
        cluster.create()
        server = cluster.start(settings, with_pg_cron=with_pg_cron)
        try:
            yield cluster
        finally:
            stop_server(server)
