"""Which alerts of ops/alerts.yml fire across restarts: a real Prometheus that scrapes a real server."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import psycopg
import pytest

from flashsale.database.migrations import migrate
from flashsale.database.seed import APP_ROLE, create_app_role
from flashsale.local.cluster import SUPERUSER, Cluster, stop_server
from tests.support import servers
from tests.support.clusters import cluster_folder
from tests.support.http import free_port, running_server
from tests.support.prometheus import Prometheus, watching
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, servers.needs("prometheus")]


def sweeps(db: psycopg.Connection) -> None:
    """What pg_cron would record."""
    db.execute(
        "update flashsale_data.scheduler"
        " set schedule = '* * * * *', scheduled_at = now(), last_run_at = now()"
    )


@contextmanager
def repeating(act: Callable[[], object]) -> Iterator[None]:
    """Do it again and again beside the block."""
    is_over = threading.Event()

    def run() -> None:
        while not is_over.wait(0.05):
            with suppress(httpx.HTTPError):
                act()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def test_no_alert_fires_in_a_quiet_shop_across_restarts(tmp_path: Path) -> None:
    """A load balancer polls it, without a buyer. Then the server stays away, which is an alert."""
    port = free_port()
    with cluster_folder() as folder:
        cluster = Cluster(folder)
        cluster.create()
        postgresql = cluster.start(with_pg_cron=False)
        try:
            url = cluster.url(SUPERUSER, "postgres")
            migrate(url, schedule=False, say=lambda _: None)
            with psycopg.connect(url, autocommit=True) as conn:
                create_app_role(conn)
                sweeps(conn)

            with ExitStack() as last, ExitStack() as first:
                start_server(first, cluster, tmp_path, port)
                prometheus = last.enter_context(watching(tmp_path, port, times_faster=4))
                stop_server(postgresql)
                postgresql = cluster.start(with_pg_cron=False)
                settle(prometheus)
                first.close()
                start_server(first, cluster, tmp_path, port)
                settle(prometheus)
                assert prometheus.fired() == set()
                first.close()
                prometheus.wait_until_fired("FlashsaleDown")
                start_server(first, cluster, tmp_path, port)
                prometheus.wait_until_resolved("FlashsaleDown")
                assert prometheus.fired() == {"FlashsaleDown"}
        finally:
            stop_server(postgresql)


def start_server(stack: ExitStack, cluster: Cluster, folder: Path, port: int) -> None:
    """A server whose /readyz and /healthz are polled."""
    base = stack.enter_context(
        running_server(
            cluster.url(APP_ROLE, "postgres"), folder / "gunicorn.log", FLASHSALE_METRICS_PORT=str(port)
        )
    )
    stack.enter_context(repeating(lambda: [httpx.get(f"{base}{path}") for path in ("/readyz", "/healthz")]))


def settle(prometheus: Prometheus) -> None:
    """Longer than the `for` of the alerts about connections, database and server, which is 15 seconds."""
    is_up = (
        "min_over_time(flashsale_database_up[18s]) == 1 and count_over_time(flashsale_database_up[18s]) > 12"
    )
    wait_until(lambda: prometheus.query(is_up), "all is well for a while", timeout=120)
