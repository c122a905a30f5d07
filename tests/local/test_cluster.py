"""The private cluster: where it lives, as whom, and what it finds left behind."""

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from flashsale.errors import Refusal
from flashsale.local import processes
from flashsale.local.cluster import SUPERUSER, Cluster, stop_server

pytestmark = pytest.mark.slow
FAST = {"fsync": "off", "shared_buffers": "16MB"}


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder that other accounts can enter, so that root's cluster can run as postgres."""
    made = Path(tempfile.mkdtemp(prefix="flashsale-test-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


def ask(cluster: Cluster, query: str) -> object:
    with psycopg.connect(cluster.url(SUPERUSER, "postgres")) as conn:
        return conn.execute(query).fetchone()[0]


def test_nobody_else_can_enter_and_nothing_listens_on_a_port(folder):
    cluster = Cluster(folder)
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
def test_roots_cluster_runs_in_a_folder_only_root_can_enter(folder):
    folder.chmod(0o700)
    cluster = Cluster(folder / "inside")
    cluster.create()
    server = cluster.start(FAST, with_pg_cron=False)
    try:
        assert ask(cluster, "select 1") == 1
    finally:
        stop_server(server)


@pytest.mark.parametrize("name", ["x" * 100, "a,b c%20'd"], ids=["too long", "too odd"])
def test_a_folder_no_socket_can_be_named_in_has_it_elsewhere(folder, name):
    cluster = Cluster(folder / name)
    cluster.create()
    server = cluster.start(FAST, with_pg_cron=False)
    try:
        assert ask(cluster, "select 1") == 1
        assert cluster.socket_directory.parent == Path("/tmp")
    finally:
        stop_server(server)
        cluster.remove()
    assert not cluster.socket_directory.exists()


def test_a_strangers_folder_is_not_taken_for_the_socket(folder):
    cluster = Cluster(folder / ("x" * 100))
    cluster.create()
    cluster.socket_directory.mkdir(mode=0o755)
    cluster.socket_directory.chmod(0o755)
    try:
        with pytest.raises(Refusal, match="that nobody else can enter"):
            cluster.start(FAST, with_pg_cron=False)
    finally:
        cluster.socket_directory.rmdir()


def test_a_server_left_running_is_stopped(folder):
    cluster = Cluster(folder)
    cluster.create()
    left = cluster.start(FAST, with_pg_cron=False)
    assert Cluster(folder).stop_leftover() is True
    assert left.wait() == 0
    assert Cluster(folder).stop_leftover() is False


def test_after_a_crash_a_pid_file_that_names_a_stranger_is_no_obstacle(folder):
    cluster = Cluster(folder)
    cluster.create()
    server = cluster.start(FAST, with_pg_cron=False)
    with psycopg.connect(cluster.url(SUPERUSER, "postgres"), autocommit=True) as conn:
        conn.execute("create table kept as select 42 as answer")
    server.kill()
    server.wait()
    pidfile = cluster.data / "postmaster.pid"
    # As its own account, so that PostgreSQL itself would take it for a running server.
    with subprocess.Popen(cluster.account.command("sleep", "60"), cwd="/") as stranger:
        try:
            pidfile.write_text("\n".join([str(stranger.pid), *pidfile.read_text().split("\n")[1:]]))
            cluster.stop_leftover()
            assert stranger.poll() is None
            server = cluster.start(FAST, with_pg_cron=False)
            assert ask(cluster, "select answer from kept") == 42
            stop_server(server)
        finally:
            stranger.kill()
    assert processes.working_in(cluster.data) == []


def test_an_interrupted_initdb_is_made_again(folder):
    (folder / "postgres.new").mkdir()
    (folder / "postgres.new" / "PG_VERSION").write_text("half")
    cluster = Cluster(folder)
    assert not cluster.exists
    cluster.create()
    assert cluster.exists


def test_what_keeps_it_from_starting_is_said(folder):
    cluster = Cluster(folder)
    cluster.create()
    with pytest.raises(
        Refusal, match=r'(?s)did not start.*unrecognized configuration parameter "no_such_setting"'
    ):
        cluster.start({"no_such_setting": "1"})
