"""`flashsale up`: PostgreSQL and the HTTP server in the foreground, stopped together.

Both are children in sessions of their own, so that a terminal's Ctrl-C reaches only this process, which
stops them in order. Should this process be killed outright, the kernel tells both to stop; should they be
killed too, the next start clears up.
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
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg

from flashsale.database.migrations import ROOT, migrate
from flashsale.database.seed import APP_ROLE, create_app_role, create_first_product
from flashsale.errors import Refusal
from flashsale.local import processes
from flashsale.local.cluster import FOLDER_MODE, SUPERUSER, Cluster, stop_server
from flashsale.local.os_account import guard

DATABASE = "flashsale"
# Longer than gunicorn gives its own workers to finish.
GUNICORN_PATIENCE = 40.0
HEALTH_PATIENCE = 60.0


class StopRequested(Exception):
    """Raised wherever the process is when it is asked to stop."""


@dataclass(frozen=True)
class Settings:
    """What the environment says; the README lists the variables."""

    host: str
    port: int
    data_directory: Path
    database_url: str | None

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> "Settings":
        port = env.get("FLASHSALE_PORT") or "8000"
        if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise Refusal(f"FLASHSALE_PORT must be a port number from 1 to 65535, not {port!r}")
        return cls(
            host=env.get("FLASHSALE_HOST") or "127.0.0.1",
            port=int(port),
            data_directory=Path(env.get("FLASHSALE_DATA_DIR") or ROOT / ".flashsale").absolute(),
            database_url=env.get("FLASHSALE_DATABASE_URL") or None,
        )

    @property
    def base_url(self) -> str:
        """The address to type: one of this machine's own if the server listens on all."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def instance(self) -> str:
        """Distinguishes, in the data folder, servers of one checkout for databases of one's own."""
        return f"-{self.port}" if self.database_url else ""


def run(settings: Settings) -> int:
    """Start everything, stay until asked to stop (0) or until a part dies by itself (1)."""
    with _stop_on_signals() as ignore_signals:
        try:
            with _exclusive(settings) as lock, ExitStack() as started:
                try:
                    return _run(settings, started)
                finally:
                    ignore_signals()
                    lock.announce("stopping")
        except StopRequested:
            _say("stopped")
            return 0


def destroy(settings: Settings) -> None:
    """Stop what runs on the data folder and remove it with all its data."""
    folder = settings.data_directory
    if not folder.exists():
        return
    settings = replace(settings, database_url=None)
    with _exclusive(settings, stop_holder=True):
        _stop_leftover_gunicorn(_pidfile(settings))
        cluster = Cluster(folder)
        cluster.stop_leftover()
        cluster.remove()
        for path in [*folder.glob("gunicorn*.pid"), *folder.glob("lock*")]:
            path.unlink()
    # Not the whole tree: somebody may keep other things there.
    if not any(folder.iterdir()):
        folder.rmdir()


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
            _say("stopped the PostgreSQL that an earlier run had left behind")
        if not cluster.exists:
            _say(f"making a PostgreSQL cluster in {cluster.directory}")
            cluster.create()
        children["PostgreSQL"] = cluster.start()
        started.callback(stop_server, children["PostgreSQL"])
        _create_database(cluster)
        admin_url, server_url = cluster.url(SUPERUSER, DATABASE), cluster.url(APP_ROLE, DATABASE)

    migrate(admin_url, say=_say)
    with psycopg.connect(admin_url, autocommit=True) as conn:
        if not settings.database_url:
            create_app_role(conn)
        if create_first_product(conn):
            _say("created product 1 with 50 in stock")

    children["gunicorn"] = gunicorn = _start_gunicorn(settings, server_url, pidfile)
    started.callback(_stop_gunicorn, gunicorn)
    if _wait_until_healthy(settings, gunicorn):
        _print_welcome(settings, admin_url)
        _wait_for_any(children)
    dead = [name for name, child in children.items() if child.poll() is not None]
    for name in dead:
        _say(f"{name} ended by itself ({_describe_exit(children[name].returncode)}); stopping the rest")
    if not dead:
        _say(f"the server gives no answer on {settings.base_url}/healthz; stopping")
    return 1


def _say(text: str) -> None:
    print(text, flush=True)


@contextmanager
def _stop_on_signals() -> Iterator[Callable[[], None]]:
    """Turn the signals that ask for a stop into StopRequested. Yields what has them ignored from then on:
    a second Ctrl-C must not cut a clean stop short."""
    # Under nohup a hangup is ignored already, and stays so.
    wanted = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
    ]

    def ignore() -> None:
        for number in wanted:
            signal.signal(number, signal.SIG_IGN)

    def request(*_: object) -> None:
        ignore()
        raise StopRequested

    before = {number: signal.signal(number, request) for number in wanted}
    try:
        yield ignore
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Lock:
    """The lock file, and what it says of the run that holds it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def announce(self, state: str) -> None:
        self.path.write_text(f"{os.getpid()} {state}\n")

    def holder(self) -> tuple[int, str]:
        pid, _, state = self.path.read_text().strip().partition(" ")
        return int(pid or 0), state


@contextmanager
def _exclusive(settings: Settings, *, stop_holder: bool = False) -> Iterator[_Lock]:
    """Hold the data folder's lock; the kernel lets go of it when this process dies.

    Waits for a run that is stopping, or has it stop. Refuses if one goes on running.
    """
    folder = settings.data_directory
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
        lock = _Lock(folder / f"lock{settings.instance}")
        file = lock.path.open("a")
    except OSError as error:
        raise Refusal(
            f"cannot use {folder}: {error.strerror}; set FLASHSALE_DATA_DIR to a folder of yours"
        ) from error
    with file:
        asked = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                pid, state = lock.holder()
                if state == "running" and stop_holder and not asked:
                    asked = True
                    processes.send(pid, signal.SIGTERM)
                elif state == "running" and not stop_holder:
                    raise Refusal(
                        f"flashsale up runs already on {folder} (process {pid}); stop it,"
                        " or set FLASHSALE_DATA_DIR and FLASHSALE_PORT for another"
                    ) from None
                time.sleep(0.05)
        lock.announce("running")
        yield lock


def _pidfile(settings: Settings) -> str:
    """gunicorn's pid file, whose name on a command line also tells which gunicorn is this folder's."""
    return str(settings.data_directory / f"gunicorn{settings.instance}.pid")


def _stop_leftover_gunicorn(pidfile: str) -> None:
    def find() -> list[int]:
        return processes.with_arguments("gunicorn", pidfile)

    if not processes.stop(find, (signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        raise Refusal(f"an earlier gunicorn does not stop: {find()}")
    # gunicorn would refuse to start if a stranger or a zombie had the process id in it.
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
            raise Refusal(
                f"{where} is in use by another program; set FLASHSALE_PORT to a free port"
            ) from error
        raise Refusal(
            f"cannot listen on {where}: {error.strerror}; see FLASHSALE_HOST and FLASHSALE_PORT"
        ) from error


def _create_database(cluster: Cluster) -> None:
    with psycopg.connect(cluster.url(SUPERUSER, "postgres"), autocommit=True) as conn:
        if not conn.execute(
            "select exists (select from pg_database where datname = %s)", (DATABASE,)
        ).fetchone()[0]:
            conn.execute(f"create database {DATABASE}")


def _start_gunicorn(settings: Settings, database_url: str, pidfile: str) -> subprocess.Popen[bytes]:
    env = os.environ | {
        "FLASHSALE_DATABASE_URL": database_url,
        "FLASHSALE_HOST": settings.host,
        "FLASHSALE_PORT": str(settings.port),
    }
    if not env.get("FLASHSALE_WEBHOOK_SECRETS") and "FLASHSALE_ALLOW_UNSIGNED_WEBHOOKS" not in env:
        _say(
            "WARNING: FLASHSALE_WEBHOOK_SECRETS is not set; anybody who reaches the port can report a payment"
        )
        env["FLASHSALE_ALLOW_UNSIGNED_WEBHOOKS"] = "1"
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "-c",
        "gunicorn.conf.py",
        "--no-control-socket",
        "--pid",
        pidfile,
    ]
    return subprocess.Popen(
        [*guard(signal.SIGTERM), *command],
        cwd=ROOT, env=env, stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def _stop_gunicorn(gunicorn: subprocess.Popen[bytes]) -> None:
    if gunicorn.poll() is None:
        processes.send(gunicorn.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            gunicorn.wait(GUNICORN_PATIENCE)
    # A master that was killed leaves its workers behind, on the port.
    processes.send_group(gunicorn.pid, signal.SIGKILL)
    gunicorn.wait()


def _wait_until_healthy(settings: Settings, gunicorn: subprocess.Popen[bytes]) -> bool:
    host, port = settings.base_url.removeprefix("http://").rsplit(":", 1)
    deadline = time.monotonic() + HEALTH_PATIENCE
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
    _say(
        f"""
flashsale is up at {settings.base_url}    (Ctrl-C stops it)

  curl -s {api}/products/1
  curl -s {api}/holds -H 'Content-Type: application/json' -d '{{"product_id": 1, "qty": 1}}'
  psql {shlex.quote(admin_url)}
"""
    )


def _wait_for_any(children: Mapping[str, subprocess.Popen[bytes]]) -> None:
    """Return once a child has ended."""
    while all(child.poll() is None for child in children.values()):
        # Blocks until some child changes state, and leaves it for poll() to collect.
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)


def _describe_exit(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
