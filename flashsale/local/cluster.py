"""A private PostgreSQL cluster in a folder: its own files, a unix socket, no port.

`make up` keeps one in FLASHSALE_DATA_DIR; the test suite makes one for each run.
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

from flashsale.errors import Refusal
from flashsale.local import processes
from flashsale.local.os_account import Account, account_for

OLDEST_POSTGRESQL = 15
SUPERUSER = "postgres"
PORT = 5432  # names the socket file; nothing listens on TCP
SUN_PATH_MAX = 107  # bytes in a unix socket's path, unix(7)
# As root, others may pass through the folder, no more: the account postgres must reach its own folder inside.
FOLDER_MODE = 0o711 if os.geteuid() == 0 else 0o700

# Settings a user may want to change: written once, to the new cluster's postgresql.conf.
# fsync and synchronous_commit stay on, as they are by default: an answered request survives a power cut.
TUNING = """
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
    """The cluster in `directory`, which need not exist yet."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.data = self.directory / "postgres"
        self.log = self.directory / "postgres.log"

    @property
    def account(self) -> Account:
        """Who the cluster runs as."""
        return account_for(self.directory, self.data)

    @property
    def socket_directory(self) -> Path:
        """Beside the data, or under /tmp if that name is too long or too odd for libpq."""
        beside = self.directory / "socket"
        name = os.fsencode(beside / f".s.PGSQL.{PORT}")
        if len(name) <= SUN_PATH_MAX and re.fullmatch(rb"[\w./+~ -]+", name):
            return beside
        digest = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:16]
        return Path("/tmp") / f"flashsale-{digest}"  # noqa: S108 - created and owner-checked by Account

    def url(self, user: str, dbname: str) -> str:
        """The libpq URL by which `user` reaches `dbname`."""
        query = urlencode({"host": str(self.socket_directory), "port": PORT}, quote_via=quote)
        return f"postgresql://{quote(user)}@/{quote(dbname)}?{query.replace('/', '%2F')}"

    @property
    def exists(self) -> bool:
        """Whether the cluster has been made."""
        return (self.data / "PG_VERSION").exists()

    def create(self, tuning: str = TUNING) -> None:
        """Make the cluster, with `tuning` at the end of its postgresql.conf."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
        account = self.account
        # Made aside and renamed when complete, so that an interrupted run leaves no half-made cluster.
        fresh = self.directory / "postgres.new"
        shutil.rmtree(fresh, ignore_errors=True)
        account.make_private_directory(fresh)
        # trust: whoever can enter the socket's 0700 folder is the account that owns the data files, or
        # root. A password would keep nothing from them that they cannot read on disk.
        done = subprocess.run(
            account.command(
                find_binary("initdb"), "-D", fresh, "-U", SUPERUSER, "-A", "trust",
                "--encoding=UTF8", "--locale=C.UTF-8",
            ),
            cwd=self.directory, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise Refusal(f"initdb failed:\n{done.stderr.strip()}")
        with (fresh / "postgresql.conf").open("a") as conf:
            conf.write(tuning)
        fresh.rename(self.data)

    def start(
        self, settings: Mapping[str, str] | None = None, *, with_pg_cron: bool = True
    ) -> subprocess.Popen[bytes]:
        """Start the server as a child that is told to stop when this process dies, and wait until it answers.

        `settings` go over those of the cluster's files; pg_cron is loaded if it is installed and wanted.
        The child has a session of its own: a terminal's Ctrl-C must not reach it before the HTTP server ends.
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
                # Otherwise pg_cron connects over TCP, where nothing listens.
                "cron.use_background_workers": "on",
                "cron.timezone": "UTC",
            }
        options |= settings or {}
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            log_start = log.tell()
            child = subprocess.Popen(
                account.command(server, "-D", self.data, *words, die_with_parent=signal.SIGINT),
                cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        try:
            self._wait_until_it_answers(child, log_start)
        except BaseException:
            stop_server(child)
            raise
        return child

    def _wait_until_it_answers(self, child: subprocess.Popen[bytes], log_start: int) -> None:
        # No limit but the child's own life: crash recovery takes as long as it takes.
        while child.poll() is None:
            try:
                psycopg.connect(self.url(SUPERUSER, "postgres"), connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                time.sleep(0.05)
        with self.log.open("rb") as log:
            log.seek(log_start)
            said = log.read().decode(errors="replace").strip()
        raise Refusal(f"PostgreSQL did not start; it said (also in {self.log}):\n{said}")

    def stop_leftover(self) -> bool:
        """Stop what an earlier run left running on these data files; true if there was anything."""
        if not self.data.exists():
            return False
        data = self.data.resolve()
        postmaster = data / "postmaster.pid"

        def find_postmaster() -> list[int]:
            try:
                pid = int(postmaster.read_text().split("\n", 1)[0])
            except (FileNotFoundError, ValueError):
                return []
            return [pid] if pid in processes.working_in(data) else []

        found = bool(processes.working_in(data))
        # Fast shutdown, then immediate; its children follow their postmaster.
        if found and not (
            processes.stop(find_postmaster, (signal.SIGINT, 60), (signal.SIGQUIT, 10))
            and processes.stop(lambda: processes.working_in(data), (signal.SIGTERM, 10), (signal.SIGQUIT, 10))
        ):
            raise Refusal(f"an earlier PostgreSQL on {data} does not stop: {processes.working_in(data)}")
        # Nobody works in this folder any more, and the socket's folder is its own. PostgreSQL would still
        # refuse to start if the process id in these files now belonged to a stranger, as it soon does where
        # ids start from 1 at each boot, or to a zombie, as in a container whose init collects none.
        postmaster.unlink(missing_ok=True)
        for name in (f".s.PGSQL.{PORT}", f".s.PGSQL.{PORT}.lock"):
            (self.socket_directory / name).unlink(missing_ok=True)
        return found

    def remove(self) -> None:
        """Remove everything a stopped cluster has on disk."""
        for path in (self.data, self.directory / "postgres.new", self.socket_directory):
            shutil.rmtree(path, ignore_errors=True)
        self.log.unlink(missing_ok=True)

    def is_running(self) -> bool:
        """Whether the server answers on its socket."""
        try:
            psycopg.connect(self.url(SUPERUSER, "postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _binary(self, name: str) -> Path:
        """The program of the version that made the data files."""
        return find_binary(name, (self.data / "PG_VERSION").read_text().strip())


def stop_server(child: subprocess.Popen[bytes], patience: float = 60) -> None:
    """Shut a server down: fast, and if it will not, at once; either way its data is safe."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        if child.poll() is None:
            processes.send(child.pid, number)
        try:
            child.wait(patience)
            return
        except subprocess.TimeoutExpired:
            continue


def find_binary(name: str, version: str | None = None) -> Path:
    """The path of a PostgreSQL server program: of `version`, or of the newest one installed."""
    found = {
        int(path.parts[-3]): path
        for path in Path("/usr/lib/postgresql").glob(f"*/bin/{name}")
        if path.parts[-3].isdigit() and int(path.parts[-3]) >= OLDEST_POSTGRESQL
    }
    if version is not None and int(version) not in found:
        raise Refusal(f"the cluster was made by PostgreSQL {version}, which is not installed any more")
    if not found:
        raise Refusal(f"PostgreSQL {OLDEST_POSTGRESQL} or newer is not installed; run bin/bootstrap")
    return found[int(version) if version else max(found)]


def has_pg_cron(server: Path) -> bool:
    """Whether pg_cron is installed for this server program."""
    return (server.parent.parent / "lib" / "pg_cron.so").exists()
