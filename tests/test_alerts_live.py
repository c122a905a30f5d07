"""The alerts of ops/alerts.yml in a real Prometheus that scrapes a real server.

`watching` divides the interval of evaluation and all windows and durations of the rules by one number, so
that minutes take seconds; expressions and thresholds are those of the file. test_alerts.py checks the true
durations with promtool.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import psycopg
import pytest

from flashsale.database.migrations import migrate
from flashsale.database.seed import APP_ROLE, create_app_role
from flashsale.local import processes
from flashsale.local.cluster import SUPERUSER, Cluster, stop_server
from tests.support import servers
from tests.support.clusters import cluster_folder
from tests.support.database import unreachable
from tests.support.http import free_port, running_server
from tests.support.prometheus import Prometheus, rules, watching
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, servers.needs("prometheus")]

IN_OTHER_TESTS = {"FlashsaleDown", "FlashsaleCpuSaturated"}
"""alerts that a test of their own, below, provokes"""


class Shop:
    """A server, its database and the Prometheus that watches it."""

    def __init__(self, client: httpx.Client, db: psycopg.Connection, prometheus: Prometheus) -> None:
        self.base = str(client.base_url)
        self.client = client
        self.db = db
        self.prometheus = prometheus
        self.provoked: set[str] = set()

    def provoke(self, act: Callable[[], object], *alerts: str) -> None:
        """Act again and again, until all of the alerts have been seen to fire."""
        missing = {*alerts}

        def fire() -> bool:
            with suppress(httpx.HTTPError):
                act()
            missing.difference_update(self.prometheus.firing())
            return not missing

        try:
            wait_until(fire, "the alerts fire", timeout=60)
        except AssertionError as error:
            raise AssertionError(f"{missing} did not fire") from error
        self.provoked |= {*alerts}

    def hold(self, product: int = 1) -> int:
        answer = self.client.post("/api/holds", json={"product_id": product, "qty": 1})
        return answer.json()["hold_id"] if answer.status_code == 201 else 0

    def order(self) -> int:
        return self.client.post("/api/orders", json={"hold_id": self.hold()}).json()["order_id"]

    def pay(self, key: str, order: int, **members: str) -> httpx.Response:
        event = {"idempotency_key": key, "order_id": order, "status": "success", **members}
        return self.client.post("/api/payments/webhook", json=event)

    def end_sessions(self, function: str) -> None:
        """Those of the server that call a function."""
        self.db.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and application_name like %s",
            (f"flashsale {function} %",),
        )

    def workers(self) -> list[int]:
        port = f"FLASHSALE_PORT={httpx.URL(self.base).port}\0".encode()
        found = []
        for pid in processes.with_arguments("gunicorn", "gunicorn.conf.py"):
            with suppress(OSError):
                parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
                is_worker = b"gunicorn" in Path(f"/proc/{parent}/cmdline").read_bytes()
                if is_worker and port in Path(f"/proc/{pid}/environ").read_bytes():
                    found.append(pid)
        return found


@contextmanager
def watched_shop(db: psycopg.Connection, cluster: Cluster, folder: Path, times_faster: int) -> Iterator[Shop]:
    db.execute("select flashsale.create_product('Shoe', 100000, 99, 'USD')")
    sweeps(db)
    port = free_port()
    url = cluster.url(APP_ROLE, db.info.dbname)
    with (
        running_server(url, folder / "gunicorn.log", FLASHSALE_METRICS_PORT=str(port)) as base,
        httpx.Client(base_url=base, timeout=10) as client,
        watching(folder, port, times_faster) as prometheus,
    ):
        yield Shop(client, db, prometheus)


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
            with suppress(httpx.HTTPError, OSError):
                act()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def test_alerts_fire_and_are_resolved(
    db: psycopg.Connection, connect: Callable[..., psycopg.Connection], cluster: Cluster, tmp_path: Path
) -> None:
    with watched_shop(db, cluster, tmp_path, times_faster=20) as shop:
        provoke_by_payments(shop)
        provoke_by_the_scheduler(shop)
        provoke_by_broken_sql(shop)
        provoke_by_locks(shop, connect(autocommit=False))
        with unreachable(db):
            shop.provoke(lambda: None, "FlashsaleDatabaseDown")
        provoke_by_crashes(shop)
        sweeps(db)
        wait_until(lambda: not shop.prometheus.alerts(), "all alerts are resolved", timeout=90)
        assert shop.provoked | IN_OTHER_TESTS == {rule["alert"] for rule in rules()}


def provoke_by_payments(shop: Shop) -> None:
    numbers = iter(range(10**6))
    order = shop.order()
    shop.pay("paid", order)
    # Second payments of one order, and of another amount than it has.
    shop.provoke(
        lambda: shop.pay(f"more {next(numbers)}", order, amount="1.00"),
        "FlashsaleAmountMismatch",
    )
    shop.provoke(lambda: shop.pay(f"again {next(numbers)}", order), "FlashsaleRefundsDue")
    # One key for several payments; and a payment whose order does not exist, in a small inbox.
    shop.db.execute("select flashsale.change_settings(p_inbox_limit => 1, p_rejected_limit => 1)")
    shop.pay("early", 10**9)
    shop.provoke(
        lambda: shop.pay("paid", order, amount=f"{next(numbers)}.00"),
        "FlashsaleWebhooksRefused", "FlashsaleInboxFilling",
    )  # fmt: skip
    # What the server does with a signed webhook that names no order, when one may be kept.
    shop.provoke(
        lambda: shop.db.execute(
            "select flashsale.record_rejected_webhook(%s, '{}', 'invalid_request', 'no order')",
            (f"msg_{next(numbers)}",),
        ),
        "FlashsaleWebhooksRejected", "FlashsaleRejectedWebhooksDropped",
    )  # fmt: skip
    # A sale that opens in 5 minutes, until it is put off.
    shop.db.execute(
        "select flashsale.create_product('Drop', 1, 1, p_starts_at => now() + interval '5 minutes')"
    )
    shop.provoke(lambda: None, "FlashsaleNotReadyForSale")
    shop.db.execute("select flashsale.change_terms(array[2], p_starts_at => now() + interval '1 day')")
    shop.db.execute("select flashsale.change_settings(p_inbox_limit => 100)")
    shop.db.execute(
        "select flashsale.dismiss_rejected_webhooks(array_agg(webhook_id)) from flashsale.rejected_webhooks"
    )


def provoke_by_the_scheduler(shop: Shop) -> None:
    shop.hold()
    shop.db.execute("update flashsale_data.lapses set lapses_at = lapses_at - interval '1 hour'")
    shop.db.execute(
        "update flashsale_data.scheduler set scheduled_at = null, last_run_at = now() - interval '1 hour'"
    )
    shop.provoke(lambda: None, "FlashsaleSchedulerDead", "FlashsaleSweepBehind")
    shop.db.execute("update flashsale_data.lapses set lapses_at = lapses_at + interval '1 hour'")
    sweeps(shop.db)


def provoke_by_broken_sql(shop: Shop) -> None:
    # A function that is missing: its connection cannot be opened again.
    arguments = "(int[], bigint[], bigint[])"
    shop.db.execute(f"alter function flashsale.get_orders{arguments} rename to gone")
    shop.end_sessions("get_orders")
    # What a superuser has written past the constraints: no input causes a 500.
    shop.db.execute("alter table flashsale_data.products alter price drop not null")
    shop.db.execute("update flashsale_data.products set price = null where product_id = 2")
    shop.provoke(
        lambda: shop.client.get("/api/products/2"), "FlashsaleInternalErrors", "FlashsaleConnectionDown"
    )
    shop.db.execute("update flashsale_data.products set price = 1 where product_id = 2")
    shop.db.execute(f"alter function flashsale.gone{arguments} rename to get_orders")


def provoke_by_locks(shop: Shop, operator: psycopg.Connection) -> None:
    hold = shop.hold()
    operator.execute("select from flashsale_data.stock where product_id = 1 for update")
    with repeating(shop.hold), repeating(shop.hold):
        shop.provoke(lambda: None, "FlashsaleLocked", "FlashsaleHighErrorRate", "FlashsaleSlow")
        shop.provoke(lambda: shop.end_sessions("place_holds"), "FlashsaleOutcomeUnknown")
    # Reads, which wait for no row, wait for a table: one in its call, and those behind it in their queue.
    operator.execute("lock table flashsale_data.holds in access exclusive mode")
    with ExitStack() as readers:
        for _ in range(4):
            readers.enter_context(repeating(lambda: shop.client.get(f"/api/holds/{hold}")))
        shop.provoke(lambda: None, "FlashsaleOverloaded")
    operator.rollback()


def provoke_by_crashes(shop: Shop) -> None:
    def started() -> list[str]:
        found = shop.prometheus.query("flashsale_worker_start_time_seconds")
        return [sample["value"][1] for sample in found]

    def kill_worker() -> None:
        before = started()
        for pid in shop.workers():
            os.kill(pid, 9)
        wait_until(lambda: started() not in ([], before), "the next worker has been scraped")

    shop.provoke(kill_worker, "FlashsaleWorkersRestarting")


def test_a_saturated_worker_fires_an_alert(db: psycopg.Connection, cluster: Cluster, tmp_path: Path) -> None:
    with watched_shop(db, cluster, tmp_path, times_faster=8) as shop:
        (worker,) = shop.workers()
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, worker, -20)
        waited, began = seconds_without_core(worker), time.monotonic()
        with repeating(lambda: pipeline(shop.base)), repeating(lambda: pipeline(shop.base)):
            try:
                shop.provoke(lambda: None, "FlashsaleCpuSaturated")
            except AssertionError:
                share = (seconds_without_core(worker) - waited) / (time.monotonic() - began)
                if share > 0.05:
                    pytest.skip(f"other processes had the worker's core for {share:.0%} of the time")
                raise
        wait_until(lambda: not shop.prometheus.alerts(), "the alert is resolved", timeout=90)


def seconds_without_core(pid: int) -> float:
    """For which the process could have run, and another one did."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def pipeline(base: str) -> None:
    """Many requests over one connection, sent before their responses come: that costs a client little."""
    url = httpx.URL(base)
    count, end, seen, rest = 500, b'{"status":"alive"}', 0, b""
    with socket.create_connection((url.host, url.port), timeout=30) as conn:
        for _ in range(20):
            conn.sendall(b"GET /healthz HTTP/1.1\r\nHost: shop\r\n\r\n" * count)
            while seen < count and (data := conn.recv(1 << 20)):
                data = rest + data
                seen += data.count(end)
                rest = data[1 - len(end) :]
            seen -= count


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
