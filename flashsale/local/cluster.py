"""A private PostgreSQL cluster: a data directory, a unix socket, no TCP port.

`flashsale up` keeps one in FLASHSALE_DATA_DIR; the test suite creates one for each run.
"""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, urlencode

import psycopg

from flashsale.errors import UserError
from flashsale.local import processes
from flashsale.local.os_account import Account, account_for

OLDEST_POSTGRESQL = 15
SUPERUSER = "postgres"
DATABASE = "flashsale"
"""the database that `flashsale up` creates"""
PORT = 5432  # part of the socket's file name; the server does not listen on TCP
SUN_PATH_MAX = 107  # bytes in the path of a unix socket, unix(7)
# Of root's directory: the account postgres must be able to reach its own directory inside.
DIRECTORY_MODE = 0o711 if os.geteuid() == 0 else 0o700

# Written to postgresql.conf when the cluster is created; users may change them there.
# fsync and synchronous_commit keep their default, on: an acknowledged request survives a power failure.
CONFIGURATION = """
# flashsale
shared_buffers = 256MB
wal_compression = lz4
max_wal_size = 2GB
checkpoint_timeout = 15min
max_locks_per_transaction = 256
max_connections = 200
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %q%u@%d '
log_lock_waits = on
"""


class Cluster:
    """The cluster in `directory`, which may not exist yet.

    :param programs: folder of the server's programs; None: the installed ones of the cluster's version
    """

    def __init__(self, directory: Path, programs: Path | None = None) -> None:
        self.directory = directory.absolute()
        self._programs = programs
        self.data = self.directory / "postgres"
        self.log = self.directory / "postgres.log"

    @property
    def account(self) -> Account:
        """The account that the server runs as."""
        return account_for(self.directory, self.data)

    @property
    def socket_directory(self) -> Path:
        """Beside the data, or below /tmp if libpq cannot use that path."""
        directory = self.directory / "socket"
        path = os.fsencode(directory / f".s.PGSQL.{PORT}")
        if len(path) <= SUN_PATH_MAX and re.fullmatch(rb"[\w./+~ -]+", path):
            return directory
        digest = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:16]
        return Path("/tmp") / f"flashsale-{digest}"  # noqa: S108 - created and owner-checked by Account

    def url(self, user: str, dbname: str) -> str:
        """The libpq URL that connects as `user` to `dbname`."""
        query = urlencode({"host": str(self.socket_directory), "port": PORT}, quote_via=quote)
        return f"postgresql://{quote(user)}@/{quote(dbname)}?{query.replace('/', '%2F')}"

    @property
    def exists(self) -> bool:
        """Whether the cluster has been created."""
        return (self.data / "PG_VERSION").exists()

    def create(self, configuration: str = CONFIGURATION) -> None:
        """Create the cluster; `configuration` is appended to its postgresql.conf."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=DIRECTORY_MODE)
        account = self.account
        # Renamed when complete, so that an interrupted run leaves no incomplete cluster.
        incomplete = self.directory / "postgres.new"
        shutil.rmtree(incomplete, ignore_errors=True)
        account.make_private_directory(incomplete)
        # trust: only root and the owner of the data files can enter the socket's directory, which has
        # mode 0700. A password would not protect data that both can read on disk.
        done = subprocess.run(
            account.command(
                self._binary("initdb"), "-D", incomplete, "-U", SUPERUSER, "-A", "trust",
                "--encoding=UTF8", "--locale=C.UTF-8",
            ),
            cwd=self.directory, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise UserError(f"initdb failed:\n{done.stderr.strip()}")
        with (incomplete / "postgresql.conf").open("a") as conf:
            conf.write(configuration)
        incomplete.rename(self.data)

    def start(
        self, settings: Mapping[str, str] | None = None, *, with_pg_cron: bool = True
    ) -> subprocess.Popen[bytes]:
        """Start the server as a child process, and wait until it accepts connections.

        The kernel sends it SIGINT, a fast shutdown, when this process dies. It has a session of its own: a
        terminal's Ctrl-C must not stop it before the HTTP server.

        :param settings: override those in the cluster's files
        :param with_pg_cron: load pg_cron if it is installed
        :raises UserError: it did not start; with its log output
        """
        account = self.account
        server = self._binary("postgres")
        account.make_private_directory(self.socket_directory)
        options = {
            "listen_addresses": "",
            "port": str(PORT),
            "unix_socket_directories": f'"{self.socket_directory}"',
            "unix_socket_permissions": "0700",
        }
        if with_pg_cron and has_pg_cron(server):
            options |= {
                "shared_preload_libraries": "pg_cron",
                "cron.database_name": "postgres",
                # Otherwise pg_cron connects over TCP, which is off.
                "cron.use_background_workers": "on",
                "cron.timezone": "UTC",
            }
        options |= settings or {}
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            log_start = log.tell()
            child = subprocess.Popen(
                account.command(server, "-D", self.data, *words, pdeathsig=signal.SIGINT),
                cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        try:
            self._wait_until_ready(child, log_start)
        except BaseException:
            stop_server(child)
            raise
        return child

    def _wait_until_ready(self, child: subprocess.Popen[bytes], log_start: int) -> None:
        # Without a timeout: crash recovery may take long.
        while child.poll() is None:
            try:
                psycopg.connect(self.url(SUPERUSER, "postgres"), connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                time.sleep(0.05)
        with self.log.open("rb") as log:
            log.seek(log_start)
            output = log.read().decode(errors="replace").strip()
        raise UserError(f"PostgreSQL did not start; its log ({self.log}):\n{output}")

    def stop_leftover(self) -> bool:
        """Stop the server that an earlier run left running on these data files; true if there was one."""
        if not self.data.exists():
            return False
        data = self.data.resolve()
        postmaster = data / "postmaster.pid"

        def find_postmaster() -> list[int]:
            try:
                pid = int(postmaster.read_text().split("\n", 1)[0])
            except (FileNotFoundError, ValueError):
                return []
            return [pid] if pid in processes.with_cwd(data) else []

        found = bool(processes.with_cwd(data))
        # Fast shutdown, then immediate. The children of a postmaster end with it.
        if found and not (
            processes.stop(find_postmaster, (signal.SIGINT, 60), (signal.SIGQUIT, 10))
            and processes.stop(lambda: processes.with_cwd(data), (signal.SIGTERM, 10), (signal.SIGQUIT, 10))
        ):
            raise UserError(
                f"an earlier PostgreSQL on {data} does not stop: process {processes.with_cwd(data)}"
            )
        # No server runs on these files. PostgreSQL would still refuse to start if the process id in them now
        # belonged to an unrelated process, as happens soon where ids start from 1 at each boot, or to a
        # zombie, as in a container whose init does not reap them.
        postmaster.unlink(missing_ok=True)
        for name in (f".s.PGSQL.{PORT}", f".s.PGSQL.{PORT}.lock"):
            (self.socket_directory / name).unlink(missing_ok=True)
        return found

    def remove(self) -> None:
        """Remove the files of a stopped cluster."""
        for path in (self.data, self.directory / "postgres.new", self.socket_directory):
            shutil.rmtree(path, ignore_errors=True)
        self.log.unlink(missing_ok=True)

    def is_running(self) -> bool:
        """Whether the server accepts connections."""
        try:
            psycopg.connect(self.url(SUPERUSER, "postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _binary(self, name: str) -> Path:
        """The program of the version that created the data files; of the newest one if there are none."""
        if self._programs is not None:
            return self._programs / name
        return find_binary(name, (self.data / "PG_VERSION").read_text().strip() if self.exists else None)


def stop_server(child: subprocess.Popen[bytes], timeout: float = 60) -> None:
    """Shut a server down: fast, then immediate, then SIGKILL. No mode loses committed data."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        if child.poll() is None:
            processes.send_signal(child.pid, number)
        try:
            child.wait(timeout)
            return
        except subprocess.TimeoutExpired:
            continue


def find_binary(name: str, version: str | None = None) -> Path:
    """The path of a PostgreSQL server program, of `version` or of the newest one installed."""
    found = {
        int(path.parts[-3]): path
        for path in Path("/usr/lib/postgresql").glob(f"*/bin/{name}")
        if path.parts[-3].isdigit() and int(path.parts[-3]) >= OLDEST_POSTGRESQL
    }
    if version is not None and int(version) not in found:
        raise UserError(f"PostgreSQL {version} created the cluster and is no longer installed")
    if not found:
        raise UserError(
            f"PostgreSQL {OLDEST_POSTGRESQL} or newer is not installed; on Debian: apt-get install postgresql"
        )
    return found[int(version) if version else max(found)]


def has_pg_cron(server: Path) -> bool:
    """Whether pg_cron is installed for this server program."""
    return (server.parent.parent / "lib" / "pg_cron.so").exists()
