"""PgBouncer and Pgpool-II in front of a cluster, as they come from the distribution."""

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from flashsale.local.cluster import PORT, SUPERUSER, Cluster
from tests.support import servers
from tests.support.http import free_port
from tests.support.waiting import wait_until


class Pooler:
    """A pooler on a loopback port, started on demand."""

    def __init__(self, command: Callable[[], list[str]], folder: Path) -> None:
        self.port = free_port()
        self._command = command
        self._folder = folder

    def url(self, user: str, dbname: str = "flashsale") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{dbname}"

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(lambda: self._process.poll() is not None or self._answers(), "the pooler answers")
        assert self._process.poll() is None, (self._folder / "log").read_text(errors="replace")

    def stop(self) -> None:
        # Pgpool-II waits for its clients unless it is a fast shutdown.
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def restart(self) -> None:
        self._process.kill()
        self._process.wait()
        self.start()

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url(SUPERUSER), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def pooler(cluster: Cluster, name: str, settings: str, standby: Cluster | None = None) -> Iterator[Pooler]:
    """The pooler with the settings of a document, and with those that only its place on this machine needs.

    It runs as the account of the cluster, whose socket it connects to.
    """
    account = cluster.account
    folder = cluster.directory / name
    account.make_private_directory(folder)
    program = servers.copy(name, cluster.directory / f"{name}-program") / "usr/sbin" / name
    configuration = folder / f"{name}.conf"
    pool = Pooler(lambda: account.command(program, *arguments), folder)
    if name == "pgbouncer":
        arguments = [str(configuration)]
        text = _pgbouncer(cluster, pool.port, folder, settings)
    else:
        for empty in ("pool_passwd", "pcp.conf", "pool_hba.conf"):
            (folder / empty).touch()
        arguments = ["-n", "-f", str(configuration), "-F", str(folder / "pcp.conf")]
        text = _pgpool(cluster, standby, pool.port, folder, settings)
    configuration.write_text(text)
    for path in folder.iterdir():
        path.chmod(0o644)
    pool.start()
    try:
        yield pool
    finally:
        pool.stop()


def _pgbouncer(cluster: Cluster, port: int, folder: Path, settings: str) -> str:
    (folder / "users").write_text("".join(f'"{user}" ""\n' for user in (SUPERUSER, "checkout")))
    assert "host=127.0.0.1 port=5432" in settings
    return settings.replace("host=127.0.0.1", f"host={cluster.socket_directory}") + (
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = trust\n"
        f"auth_file = {folder}/users\n"
    )


def _pgpool(cluster: Cluster, standby: Cluster | None, port: int, folder: Path, settings: str) -> str:
    assert standby is not None
    lines = {
        "backend_clustering_mode": "streaming_replication",
        "listen_addresses": "127.0.0.1",
        "socket_dir": folder,
        "pcp_socket_dir": folder,
        "work_dir": folder,
        "pid_file_name": folder / "pid",
        "logdir": folder,
        "pool_passwd": "pool_passwd",
        "sr_check_user": SUPERUSER,
        "sr_check_database": "postgres",
        "health_check_user": SUPERUSER,
        "write_function_list": "nextval,setval",
        "backend_hostname0": cluster.socket_directory,
        "backend_hostname1": standby.socket_directory,
    }
    numbers = {
        "port": port, "pcp_port": free_port(), "backend_port0": PORT, "backend_port1": PORT,
        "num_init_children": 40, "sr_check_period": 1,
        # Reads go to the standby, and so does every function that is not listed, unless the settings of the
        # document keep them from it.
        "load_balance_mode": "on", "backend_weight0": 0, "backend_weight1": 1,
    }  # fmt: skip
    return (
        settings
        + "".join(f"{name} = '{value}'\n" for name, value in lines.items())
        + "".join(f"{name} = {value}\n" for name, value in numbers.items())
    )
