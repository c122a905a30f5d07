"""`flashsale up`: PostgreSQL and the HTTP server in the foreground.

Both are children in sessions of their own, so that a terminal's Ctrl-C reaches only this process, which stops
them in order. If this process is killed, the kernel signals both; the next run stops whatever still runs.
"""

import errno
import fcntl
import http.client
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psycopg

from flashsale.database.connection import connect, fetch_value
from flashsale.database.migrations import migrate
from flashsale.database.seed import APP_ROLE, create_app_role, create_first_product
from flashsale.errors import UserError
from flashsale.local import processes
from flashsale.local.cluster import DATABASE, DIRECTORY_MODE, SUPERUSER, Cluster, stop_server
from flashsale.local.os_account import with_pdeathsig
from flashsale.settings import Settings
from flashsale.webhooks import SECRETS_VARIABLE

GUNICORN_STOP_TIMEOUT_SECONDS = 40.0
"""seconds; gunicorn gives its workers fewer"""
HEALTH_TIMEOUT_SECONDS = 60.0

_PACKAGE = Path(__file__).resolve().parents[1]
_CONFIGURATIONS = [_PACKAGE / "gunicorn.conf.py", _PACKAGE.parent / "gunicorn.conf.py"]
"""in a wheel, in a checkout"""


class StopRequested(Exception):
    """Raised at any point when a signal requests a stop."""


def run(settings: Settings) -> int:
    """Start everything and wait; returns 0 after a stop signal, 1 if a child ended by itself."""
    with _stop_on_signals() as ignore_signals:
        try:
            with _directory_lock(settings) as lock, ExitStack() as started:
                try:
                    return _run(settings, started)
                finally:
                    ignore_signals()
                    lock.write_state("stopping")
        except StopRequested:
            _print("stopped")
            return 0


def destroy(settings: Settings) -> None:
    """Stop whatever runs on the data directory, and remove the cluster with its data."""
    directory = settings.data_directory
    if not directory.exists():
        return
    settings = replace(settings, database_url=None)
    with _directory_lock(settings, stop_holder=True):
        _stop_leftover_gunicorn(_pidfile(settings))
        cluster = Cluster(directory)
        cluster.stop_leftover()
        cluster.remove()
        for path in [*directory.glob("gunicorn*.pid"), *directory.glob("lock*")]:
            path.unlink()
    # Other files in the directory are kept.
    if not any(directory.iterdir()):
        directory.rmdir()


def _run(settings: Settings, started: ExitStack) -> int:
    pidfile = _pidfile(settings)
    _stop_leftover_gunicorn(pidfile)
    _check_port_is_free(settings)

    children: dict[str, subprocess.Popen[bytes]] = {}
    if settings.database_url:
        admin_url = server_url = settings.database_url
    else:
        cluster = Cluster(settings.data_directory)
        if cluster.stop_leftover():
            _print("stopped a PostgreSQL server that an earlier run left running")
        if not cluster.exists:
            _print(f"creating a PostgreSQL cluster in {cluster.directory}")
            cluster.create()
        children["PostgreSQL"] = cluster.start()
        started.callback(stop_server, children["PostgreSQL"])
        _create_database(cluster)
        admin_url, server_url = cluster.url(SUPERUSER, DATABASE), cluster.url(APP_ROLE, DATABASE)

    migrate(admin_url, say=_print)
    with connect("up", admin_url) as conn:
        if not settings.database_url:
            create_app_role(conn)
        if create_first_product(conn):
            _print("created product 1 with 50 in stock")

    children["gunicorn"] = gunicorn = _start_gunicorn(settings, server_url, pidfile)
    started.callback(_stop_gunicorn, gunicorn)
    if _wait_until_healthy(settings, gunicorn):
        _print_welcome(settings, admin_url)
        _wait_for_any(children)
    ended = [name for name, child in children.items() if child.poll() is not None]
    for name in ended:
        _print(f"{name} ended unexpectedly ({_describe_exit(children[name].returncode)}); stopping the rest")
    if not ended:
        _print(f"{settings.base_url}/healthz did not respond within {HEALTH_TIMEOUT_SECONDS:.0f} s; stopping")
    return 1


def _print(text: str) -> None:
    print(text, flush=True)


@contextmanager
def _stop_on_signals() -> Iterator[Callable[[], None]]:
    """Turn SIGINT, SIGTERM and SIGHUP into StopRequested.

    Yields a function that ignores them from then on: a second Ctrl-C must not interrupt the shutdown.
    """
    # nohup has SIGHUP ignored already; it stays ignored.
    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
    ]

    def ignore() -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)

    def request(*_: object) -> None:
        ignore()
        raise StopRequested

    before = {number: signal.signal(number, request) for number in numbers}
    try:
        yield ignore
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Lock:
    """The lock file; it contains the process id and the state of the run that holds it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write_state(self, state: str) -> None:
        self.path.write_text(f"{os.getpid()} {state}\n")

    def holder(self) -> tuple[int, str]:
        pid, _, state = self.path.read_text().strip().partition(" ")
        return int(pid or 0), state


@contextmanager
def _directory_lock(settings: Settings, *, stop_holder: bool = False) -> Iterator[_Lock]:
    """Hold the lock of the data directory; the kernel releases it when this process dies.

    Waits for a run that is stopping.

    :param stop_holder: stop a running run, too
    :raises UserError: a run holds the lock and is not to be stopped
    """
    directory = settings.data_directory
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=DIRECTORY_MODE)
        lock = _Lock(directory / f"lock{_instance(settings)}")
        file = lock.path.open("a")
    except OSError as error:
        raise UserError(
            f"cannot write to {directory}: {error.strerror}; set FLASHSALE_DATA_DIR to another directory"
        ) from error
    with file:
        signalled = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                pid, state = lock.holder()
                if state == "running" and stop_holder and not signalled:
                    signalled = True
                    processes.send_signal(pid, signal.SIGTERM)
                elif state == "running" and not stop_holder:
                    raise UserError(
                        f"flashsale up is already running on {directory} (process {pid}); stop it,"
                        " or set FLASHSALE_DATA_DIR and FLASHSALE_PORT to start another"
                    ) from None
                time.sleep(0.05)
        lock.write_state("running")
        yield lock


def _instance(settings: Settings) -> str:
    """A suffix for file names: runs on several FLASHSALE_DATABASE_URL may share a data directory."""
    return f"-{settings.port}" if settings.database_url else ""


def _pidfile(settings: Settings) -> str:
    """gunicorn's pid file; its path on a command line identifies the gunicorn of this directory."""
    return str(settings.data_directory / f"gunicorn{_instance(settings)}.pid")


def _stop_leftover_gunicorn(pidfile: str) -> None:
    def find() -> list[int]:
        return processes.with_arguments("gunicorn", pidfile)

    if not processes.stop(find, (signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        raise UserError(f"an earlier gunicorn does not stop: process {find()}")
    # gunicorn would refuse to start if an unrelated process or a zombie had the process id in it.
    Path(pidfile).unlink(missing_ok=True)


def _check_port_is_free(settings: Settings) -> None:
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"{where} is in use by another program; set FLASHSALE_PORT to a free port"
            ) from error
        raise UserError(
            f"cannot listen on {where}: {error.strerror}; see FLASHSALE_HOST and FLASHSALE_PORT"
        ) from error


def _create_database(cluster: Cluster) -> None:
    with psycopg.connect(cluster.url(SUPERUSER, "postgres"), autocommit=True) as conn:
        if not fetch_value(conn, "select exists (select from pg_database where datname = %s)", (DATABASE,)):
            conn.execute(f"create database {DATABASE}")


def _start_gunicorn(settings: Settings, database_url: str, pidfile: str) -> subprocess.Popen[bytes]:
    env = os.environ | {
        "FLASHSALE_DATABASE_URL": database_url,
        "FLASHSALE_HOST": settings.host,
        "FLASHSALE_PORT": str(settings.port),
        "FLASHSALE_PAGE": os.environ.get("FLASHSALE_PAGE", "") or "1",
    }
    if not env.get(SECRETS_VARIABLE) and "FLASHSALE_ALLOW_UNSIGNED_WEBHOOKS" not in env:
        _print(f"WARNING: {SECRETS_VARIABLE} is not set: anyone who can reach the port can report a payment")
        env["FLASHSALE_ALLOW_UNSIGNED_WEBHOOKS"] = "1"
    if not env.get("FLASHSALE_BUYER_KEYS") and "FLASHSALE_TRUST_BUYER" not in env:
        _print("WARNING: FLASHSALE_BUYER_KEYS is not set: anyone who can reach the port can name any buyer")
        env["FLASHSALE_TRUST_BUYER"] = "1"
    configuration = next(path for path in _CONFIGURATIONS if path.exists())
    command = [sys.executable, "-m", "gunicorn", "-c", str(configuration)]
    return subprocess.Popen(
        [*with_pdeathsig(signal.SIGTERM), *command, "--no-control-socket", "--pid", pidfile],
        # Python searches the current directory for modules first, so it must be one without any.
        cwd=settings.data_directory, env=env, stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def _stop_gunicorn(gunicorn: subprocess.Popen[bytes]) -> None:
    if gunicorn.poll() is None:
        processes.send_signal(gunicorn.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            gunicorn.wait(GUNICORN_STOP_TIMEOUT_SECONDS)
    # The workers of a master that was killed keep the port.
    processes.send_group_signal(gunicorn.pid, signal.SIGKILL)
    gunicorn.wait()


def _wait_until_healthy(settings: Settings, gunicorn: subprocess.Popen[bytes]) -> bool:
    host, port = settings.base_url.removeprefix("http://").rsplit(":", 1)
    deadline = time.monotonic() + HEALTH_TIMEOUT_SECONDS
    while gunicorn.poll() is None and time.monotonic() < deadline:
        conn = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=2)
        try:
            conn.request("GET", "/healthz")
            if conn.getresponse().status == 200:
                return True
        except (OSError, http.client.HTTPException):
            pass
        finally:
            conn.close()
        time.sleep(0.05)
    return False


def _print_welcome(settings: Settings, admin_url: str) -> None:
    api = f"{settings.base_url}/api"
    _print(
        f"""
flashsale is up at {settings.base_url}    (Ctrl-C stops it)

  curl -s {api}/products/1
  curl -s {api}/holds -H 'Content-Type: application/json' -d '{{"product_id": 1, "qty": 1}}'
  psql {shlex.quote(admin_url)}
"""
    )


def _wait_for_any(children: Mapping[str, subprocess.Popen[bytes]]) -> None:
    """Wait until a child has ended."""
    while all(child.poll() is None for child in children.values()):
        # Blocks until a child ends, and leaves it for poll() to reap.
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)


def _describe_exit(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
