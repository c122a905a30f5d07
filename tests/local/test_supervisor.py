"""`flashsale up` and `make up`: start, stop, and start after crashes."""

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from flashsale.database import pg_cron
from flashsale.local import processes
from flashsale.local.cluster import Cluster
from tests.support.flashsale_up import FLASHSALE, Up, data_folder
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

Start = Callable[..., Up]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """The data directory that the tests of this file share."""
    with data_folder() as made:
        yield made


@pytest.fixture(scope="module")
def left_running(folder: Path) -> Iterator[list[Up]]:
    """One at the most."""
    left: list[Up] = []
    yield left
    for up in left:
        up.stop()


@pytest.fixture
def running(folder: Path, left_running: list[Up]) -> Up:
    """One for the tests that leave it as it is: those up to the first that asks for `start`."""
    if not left_running:
        left_running.append(Up(folder, [*FLASHSALE, "up"]).wait_until_it_is_up())
    return left_running[0]


@pytest.fixture
def start(folder: Path, left_running: list[Up]) -> Iterator[Start]:
    while left_running:
        left_running.pop().stop()
    started: list[Up] = []

    def run(command: list[str] = [*FLASHSALE, "up"], **environment: str) -> Up:  # noqa: B006
        started.append(Up(folder, command, **environment))
        return started[-1]

    yield run
    for up in started:
        if up.process.poll() is None:
            up.stop()


def test_it_serves_product_1_with_50_in_stock(running):
    assert running.get("/api/products/1")["total_stock"] == 50


def test_it_trusts_its_callers_with_a_warning(running):
    assert "WARNING: FLASHSALE_BUYER_KEYS is not set: anyone who can reach the port" in running.said()
    assert running.get("/api/products/1/allowance?buyer=ada")["max_per_buyer"] is None


def test_the_printed_commands_work(running):
    commands = [line.strip() for line in running.said().splitlines() if line.startswith("  ")]
    assert [shlex.split(command)[0] for command in commands] == ["curl", "curl", "psql"]
    for command in commands:
        if shutil.which(shlex.split(command)[0]) is None:
            continue
        if command.startswith("psql"):
            command += " --csv -t -c 'select id from flashsale.get_product(1)'"
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
        assert "1" in done.stdout, done


def test_the_server_logs_in_as_flashsale_app(running, folder):
    with psycopg.connect(Cluster(folder).url("postgres", "flashsale")) as conn:
        users = conn.execute(
            "select distinct usename from pg_stat_activity"
            " where datname = 'flashsale' and pid <> pg_backend_pid()"
        ).fetchall()
    assert users == [("flashsale_app",)]


def test_a_second_run_on_the_same_directory_is_refused(running):
    second = Up(running.folder, [*FLASHSALE, "up"])
    assert second.process.wait(30) == 1
    assert f"is already running on {running.folder} (process {running.process.pid})" in second.said()
    running.get("/api/products/1")


def test_a_port_in_use_is_refused_before_anything_starts(running, folder):
    other = Up(folder.parent / "other", [*FLASHSALE, "up"], FLASHSALE_PORT=str(running.port))
    assert other.process.wait(30) == 1
    assert f"127.0.0.1:{running.port} is in use by another program; set FLASHSALE_PORT" in other.said()
    assert not (other.folder / "postgres").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_signal_stops_everything_cleanly(start, folder, number):
    up = start().wait_until_it_is_up()
    assert up.stop(number) == 0, up.said()
    assert up.is_gone()
    assert up.said().endswith("stopped\n")
    assert "database system is shut down" in (folder / "postgres.log").read_text().splitlines()[-1]


def test_a_second_ctrl_c_does_not_interrupt_the_shutdown(start):
    up = start().wait_until_it_is_up()
    up.process.send_signal(signal.SIGINT)
    assert up.stop(signal.SIGINT) == 0
    assert up.is_gone()


def test_a_stop_signal_during_the_start_leaves_no_process(start):
    up = start()
    wait_until(lambda: up.postgres() or up.process.poll() is not None, "PostgreSQL is starting")
    assert up.stop() == 0, up.said()
    assert up.is_gone()


def test_data_survives_a_restart(start):
    up = start().wait_until_it_is_up()
    before = up.get("/api/products/1")["available_stock"]
    up.hold(3)
    assert up.stop() == 0
    assert start().wait_until_it_is_up().get("/api/products/1")["available_stock"] == before - 3


def test_its_children_end_if_it_is_killed_and_it_starts_again(start):
    up = start().wait_until_it_is_up()
    up.hold(1)
    up.stop(signal.SIGKILL)
    again = start(FLASHSALE_PORT=str(up.port)).wait_until_it_is_up()  # while the others are still stopping
    again.get("/api/products/1")
    assert again.stop() == 0
    assert up.is_gone()


def test_it_starts_again_after_everything_was_killed(start):
    up = start().wait_until_it_is_up()
    up.hold(1)
    for pid in [up.process.pid, *up.gunicorns(), *up.postgres()]:
        processes.send_signal(pid, signal.SIGKILL)
    up.process.wait()
    wait_until(up.is_gone, "no process is left")
    assert (up.folder / "postgres/postmaster.pid").exists()
    start(FLASHSALE_PORT=str(up.port)).wait_until_it_is_up().get("/api/products/1")


def test_orphaned_workers_are_stopped(start):
    up = start().wait_until_it_is_up()
    master, *workers = up.gunicorns()
    # Stopped first, so that the master cannot stop its workers, which keep the port.
    for pid in (up.process.pid, master):
        processes.send_signal(pid, signal.SIGSTOP)
    for pid in (up.process.pid, master):
        processes.send_signal(pid, signal.SIGKILL)
    up.process.wait()
    assert workers
    start(FLASHSALE_PORT=str(up.port)).wait_until_it_is_up().get("/api/products/1")


@pytest.mark.parametrize("part", ["gunicorn", "PostgreSQL"])
def test_it_stops_with_status_1_if_a_child_dies(start, part):
    up = start().wait_until_it_is_up()
    victim = up.gunicorns()[0] if part == "gunicorn" else up.postgres()[0]
    processes.send_signal(victim, signal.SIGKILL)
    assert up.process.wait(60) == 1
    assert f"{part} ended unexpectedly (killed by SIGKILL)" in up.said()
    assert up.is_gone()


def test_with_a_database_url_it_starts_no_postgresql(start, folder, empty_database):
    own = Up(folder.parent / "own", [*FLASHSALE, "up"], FLASHSALE_DATABASE_URL=empty_database)
    try:
        assert own.wait_until_it_is_up().get("/api/products/1")["available_stock"] == 50
        assert not (own.folder / "postgres").exists()
    finally:
        assert own.stop() == 0
        with psycopg.connect(empty_database, autocommit=True) as conn:
            pg_cron.unschedule(conn, empty_database)


def test_make_up_stops_with_ctrl_c_in_its_terminal(start):
    up = start(["make", "up"]).wait_until_it_is_up()
    os.killpg(up.process.pid, signal.SIGINT)
    up.process.wait(60)
    wait_until(up.is_gone, "no process is left")
    assert up.said().count("stopped\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_make_up_passes_signals_on(start, number):
    up = start(["make", "up"]).wait_until_it_is_up()
    up.stop(number)
    start(FLASHSALE_PORT=str(up.port)).wait_until_it_is_up().get("/api/products/1")


def test_destroy_stops_it_and_removes_the_data(start, folder):
    up = start().wait_until_it_is_up()
    subprocess.run([*FLASHSALE, "destroy"], env=os.environ | {"FLASHSALE_DATA_DIR": str(folder)}, check=True)
    assert up.process.wait(30) == 0
    assert up.is_gone()
    assert not folder.exists()
