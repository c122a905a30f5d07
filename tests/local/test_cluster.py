"""The private cluster: its directories, its account, and leftovers of earlier runs."""

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from flashsale.errors import UserError
from flashsale.local import processes
from flashsale.local.cluster import SUPERUSER, Cluster, stop_server
from tests.support.clusters import cluster_folder

pytestmark = pytest.mark.slow
FAST = {"fsync": "off", "shared_buffers": "16MB"}


@pytest.fixture
def directory() -> Iterator[Path]:
    """An empty directory that other accounts can enter, so that root's cluster can run as postgres."""
    with cluster_folder() as made:
        yield made


def ask(cluster: Cluster, query: str) -> object:
    with psycopg.connect(cluster.url(SUPERUSER, "postgres")) as conn:
        return conn.execute(query).fetchone()[0]


def test_it_is_private_and_listens_on_no_port(directory):
    cluster = Cluster(directory)
    cluster.create()
    server = cluster.start(FAST, with_pg_cron=False)
    try:
        assert ask(cluster, "show listen_addresses") == ""
        assert ask(cluster, "show data_directory") == str(cluster.data)
        for private in (cluster.data, cluster.socket_directory):
            assert stat.S_IMODE(private.stat().st_mode) == 0o700
            assert private.stat().st_uid == cluster.account.uid
        assert Path(f"/proc/{server.pid}").stat().st_uid == cluster.account.uid != 0
    finally:
        stop_server(server)


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's cluster runs as that user everywhere")
def test_the_cluster_of_root_runs_in_a_directory_that_only_root_can_enter(directory):
    directory.chmod(0o700)
    cluster = Cluster(directory / "inside")
    cluster.create()
    server = cluster.start(FAST, with_pg_cron=False)
    try:
        assert ask(cluster, "select 1") == 1
    finally:
        stop_server(server)


@pytest.mark.parametrize("name", ["x" * 100, "a,b c%20'd"], ids=["too long", "special characters"])
def test_the_socket_is_below_tmp_if_libpq_cannot_use_the_path(directory, name):
    cluster = Cluster(directory / name)
    cluster.create()
    server = cluster.start(FAST, with_pg_cron=False)
    try:
        assert ask(cluster, "select 1") == 1
        assert cluster.socket_directory.parent == Path("/tmp")
    finally:
        stop_server(server)
        cluster.remove()
    assert not cluster.socket_directory.exists()


def test_a_socket_directory_that_others_can_enter_is_refused(directory):
    cluster = Cluster(directory / ("x" * 100))
    cluster.create()
    cluster.socket_directory.mkdir(mode=0o755)
    cluster.socket_directory.chmod(0o755)
    try:
        with pytest.raises(UserError, match="that only user id"):
            cluster.start(FAST, with_pg_cron=False)
    finally:
        cluster.socket_directory.rmdir()


def test_a_leftover_server_is_stopped(directory):
    cluster = Cluster(directory)
    cluster.create()
    left = cluster.start(FAST, with_pg_cron=False)
    assert Cluster(directory).stop_leftover() is True
    assert left.wait() == 0
    assert Cluster(directory).stop_leftover() is False


def test_it_starts_after_a_crash_if_the_pid_file_names_an_unrelated_process(directory):
    cluster = Cluster(directory)
    cluster.create()
    server = cluster.start(FAST, with_pg_cron=False)
    with psycopg.connect(cluster.url(SUPERUSER, "postgres"), autocommit=True) as conn:
        conn.execute("create table kept as select 42 as answer")
    server.kill()
    server.wait()
    pidfile = cluster.data / "postmaster.pid"
    # As the same account, so that PostgreSQL itself would take it for a running server.
    with subprocess.Popen(cluster.account.command("sleep", "60"), cwd="/") as unrelated:
        try:
            pidfile.write_text("\n".join([str(unrelated.pid), *pidfile.read_text().split("\n")[1:]]))
            cluster.stop_leftover()
            assert unrelated.poll() is None
            server = cluster.start(FAST, with_pg_cron=False)
            assert ask(cluster, "select answer from kept") == 42
            stop_server(server)
        finally:
            unrelated.kill()
    assert processes.with_cwd(cluster.data) == []


def test_an_interrupted_initdb_is_repeated(directory):
    (directory / "postgres.new").mkdir()
    (directory / "postgres.new" / "PG_VERSION").write_text("half")
    cluster = Cluster(directory)
    assert not cluster.exists
    cluster.create()
    assert cluster.exists


def test_a_start_failure_shows_the_log(directory):
    cluster = Cluster(directory)
    cluster.create()
    with pytest.raises(
        UserError, match=r'(?s)did not start.*unrecognized configuration parameter "no_such_setting"'
    ):
        cluster.start({"no_such_setting": "1"})
