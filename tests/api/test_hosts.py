"""Several hosts in FLASHSALE_DATABASE_URL: the primary is found, wherever it is, whatever the others do."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from api.database.connection import connection_string
from api.database.hosts import PrimaryConnection, split_hosts
from flashsale.database.connection import connect
from flashsale.local import processes
from flashsale.local.cluster import DATABASE, PORT, SUPERUSER, Cluster
from tests.support.clusters import standby_of
from tests.support.http import running_server
from tests.support.sale_steps import one
from tests.support.shops import ROLE, running_shop
from tests.support.waiting import wait_until

LISTS = {
    "host=a,b dbname=x": ["host=a dbname=x", "host=b dbname=x"],
    "postgresql://u@a:1,b:2/x": ["host=a port=1 user=u dbname=x", "host=b port=2 user=u dbname=x"],
    "host=a,b port=3": ["host=a port=3", "host=b port=3"],
    "host=a,b port=1,": ["host=a port=1", "host=b"],
    "hostaddr=127.0.0.1,127.0.0.2": ["hostaddr=127.0.0.1", "hostaddr=127.0.0.2"],
    "host=a,b hostaddr=127.0.0.1,127.0.0.2": ["host=a hostaddr=127.0.0.1", "host=b hostaddr=127.0.0.2"],
    "host=a dbname=x": ["host=a dbname=x"],
    "dbname=x": ["dbname=x"],
    # libpq says what is wrong.
    "host=a,b port=1,2,3": ["host=a,b port=1,2,3"],
    "host=a,b hostaddr=127.0.0.1": ["host=a,b hostaddr=127.0.0.1"],
}


@pytest.mark.parametrize(("conninfo", "hosts"), LISTS.items(), ids=LISTS)
def test_each_host_has_a_connection_string(conninfo: str, hosts: list[str]) -> None:
    assert [set(host.split()) for host in split_hosts(conninfo)] == [set(host.split()) for host in hosts]


def test_several_hosts_lead_to_the_primary_unless_told_otherwise() -> None:
    def attributes(url: str) -> str | None:
        return psycopg.conninfo.conninfo_to_dict(connection_string(url, "test")).get("target_session_attrs")

    assert attributes("host=a,b") == "primary"
    assert attributes("host=a,b target_session_attrs=read-write") == "read-write"
    assert attributes("host=a") is None


def hosts_of(*directories: Path, user: str = SUPERUSER) -> str:
    return make_conninfo(user=user, dbname=DATABASE, host=",".join(map(str, directories)), port=PORT)


@contextmanager
def silent_host(folder: Path) -> Iterator[Path]:
    """It accepts connections and does not answer, as a machine behind a broken network seems to do."""
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / f".s.PGSQL.{PORT}"))
        listener.listen()
        yield folder


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(scope="module")
def shop() -> Iterator[Cluster]:
    with running_shop() as cluster:
        yield cluster


@pytest.mark.slow
@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)], ids=["silent first", "silent last"])
def test_a_host_that_does_not_answer_delays_nothing(shop: Cluster, tmp_path: Path, order: slice) -> None:
    async def run() -> None:
        with silent_host(tmp_path / "silent") as silent:
            url = hosts_of(*(silent, tmp_path / "none", shop.socket_directory)[order])
            files = []
            for _ in range(3):
                async with asyncio.timeout(5):
                    connection = await PrimaryConnection.connect(url)
                assert isinstance(connection, PrimaryConnection)
                assert connection.info.host == str(shop.socket_directory)
                await connection.close()
                files.append(open_files())
            assert len({*files}) == 1, files

    asyncio.run(run())


def test_the_error_names_every_host(tmp_path: Path) -> None:
    with pytest.raises(psycopg.OperationalError) as raised:
        asyncio.run(PrimaryConnection.connect(hosts_of(tmp_path / "a", tmp_path / "b")))
    assert all(str(tmp_path / name) in str(raised.value) for name in "ab")
    assert "\n" not in str(raised.value)


def kill(cluster: Cluster) -> None:
    _signal(cluster, signal.SIGKILL)


def freeze(cluster: Cluster) -> None:
    _signal(cluster, signal.SIGSTOP)


def _signal(cluster: Cluster, number: signal.Signals) -> None:
    for pid in processes.with_cwd(cluster.data):
        with suppress(ProcessLookupError):  # a backend that has just ended
            os.kill(pid, number)


@pytest.mark.slow
@pytest.mark.parametrize("fail", [kill, freeze])
def test_the_server_finds_the_new_primary_by_itself(tmp_path: Path, fail: Callable[[Cluster], None]) -> None:
    """The standby is the first host, and is never read from while it is one."""
    hold = {"product_id": 1, "qty": 1}
    with running_shop() as primary, standby_of(primary) as standby:
        url = hosts_of(standby.socket_directory, primary.socket_directory, user=ROLE)
        try:
            with (
                psycopg.connect(standby.url(SUPERUSER, DATABASE), autocommit=True) as promoted,
                running_server(url, tmp_path / "log") as base,
                httpx.Client(base_url=base, timeout=10) as client,
            ):
                assert client.post("/api/holds", json=hold).status_code == 201
                with psycopg.connect(primary.url(SUPERUSER, DATABASE)) as conn:
                    lsn = one(conn, "select pg_current_wal_lsn()")
                wait_until(
                    lambda: one(promoted, "select pg_last_wal_replay_lsn() >= %s::pg_lsn", lsn), "caught up"
                )
                fail(primary)
                for _ in range(2):  # the second time over a new connection
                    for refused in (
                        client.get("/api/products/1"),
                        client.get("/api/products"),
                        client.post("/api/holds", json=hold),
                        client.get("/readyz"),
                    ):
                        assert refused.status_code == 503, refused.text
                        assert int(refused.headers["retry-after"]) >= 1
                promoted.execute("select pg_promote()")
                wait_until(
                    lambda: client.post("/api/holds", json=hold).status_code == 201, "it serves buyers"
                )
                wait_until(lambda: client.get("/readyz").json()["status"] == "ready", "it is ready")
                held = one(promoted, "select held from flashsale.stock")
                assert held >= 2
                assert client.get("/api/products/1").json()["available_stock"] == 50 - held
        finally:
            _signal(primary, signal.SIGCONT)


@pytest.mark.slow
def test_commands_go_to_the_primary(monkeypatch: pytest.MonkeyPatch, shop: Cluster) -> None:
    with standby_of(shop) as standby:
        monkeypatch.setenv(
            "FLASHSALE_DATABASE_URL", hosts_of(standby.socket_directory, shop.socket_directory)
        )
        with connect("test") as conn:
            assert one(conn, "select pg_is_in_recovery()") is False
