"""The set-up of docs/operations.md, from an empty server that admits passwords only to the first sale."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlencode

import httpx
import psycopg
import pytest

from flashsale.local import processes
from flashsale.local.cluster import Cluster, find_binary, stop_server
from tests.docs.documents import Reader, blocks, examples
from tests.docs.test_operations import OPERATIONS, SET_UP
from tests.support import ROOT
from tests.support.clusters import cluster_folder
from tests.support.database import needs_pg_cron
from tests.support.http import answers, free_port
from tests.support.sale_steps import audit, one
from tests.support.waiting import wait_until

PASSWORD = "of-the-superuser"


class OwnServer:
    """A server as a distribution makes it: every connection needs a password."""

    def __init__(self, folder: Path, settings: str) -> None:
        self.port = free_port()
        self.home = folder / "home"
        """of PostgreSQL's account"""
        self.cluster = Cluster(folder)
        account = self.cluster.account
        account.make_private_directory(self.cluster.data)
        account.make_private_directory(self.home)
        password = folder / "password"
        password.write_text(PASSWORD)
        os.chown(password, account.uid, account.gid)
        initdb = ["-D", self.cluster.data, "-U", "postgres", "--auth=scram-sha-256", f"--pwfile={password}"]
        subprocess.run(
            account.command(find_binary("initdb"), *initdb), cwd=folder, check=True, capture_output=True
        )
        with (self.cluster.data / "postgresql.conf").open("a") as file:
            file.write(settings)

    def url(self, user: str = "postgres", password: str = PASSWORD, dbname: str = "postgres") -> str:
        query = urlencode({"host": "localhost", "port": self.port, "user": user, "password": password})
        return f"postgresql:///{dbname}?{query}"

    def start(self) -> subprocess.Popen[bytes]:
        account = self.cluster.account
        account.make_private_directory(self.cluster.socket_directory)
        places = {"port": self.port, "unix_socket_directories": self.cluster.socket_directory, "fsync": "on"}
        words = [word for name, value in places.items() for word in ("-c", f"{name}={value}")]
        with self.cluster.log.open("ab") as log:
            return subprocess.Popen(
                account.command(
                    find_binary("postgres"), "-D", self.cluster.data, *words, pdeathsig=signal.SIGINT
                ),
                cwd=self.cluster.directory,
                env=os.environ | {"HOME": str(self.home)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def run_as_its_account(self, script: str) -> None:
        subprocess.run(
            self.cluster.account.command("sh", "-ec", script.replace(":5432:", f":{self.port}:")),
            cwd=self.home,
            env=os.environ | {"HOME": str(self.home)},
            check=True,
        )

    def is_up(self) -> bool:
        try:
            psycopg.connect(self.url(), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def own_server(*, with_background_workers: bool) -> Iterator[OwnServer]:
    """With the settings of the document, or those and `.pgpass` of its section without background workers."""
    (settings,) = (block.text for block in blocks(OPERATIONS, SET_UP) if block.kind == "ini")
    (pgpass,) = (block.text for block in blocks(OPERATIONS, SET_UP) if block.kind == "sh")
    with cluster_folder() as folder:
        if with_background_workers:
            server = OwnServer(folder, settings)
        else:
            others = [line for line in settings.splitlines(True) if "cron.use_background_workers" not in line]
            assert len(others) == settings.count("\n") - 1
            server = OwnServer(folder, "".join(others))
            server.run_as_its_account(pgpass)
        child = server.start()
        try:
            wait_until(lambda: child.poll() is not None or server.is_up(), "PostgreSQL accepts connections")
            assert child.poll() is None, server.cluster.log.read_text()
            yield server
        finally:
            stop_server(child)


@needs_pg_cron
@pytest.mark.slow  # old versions of pg_cron run jobs at full minutes only
@pytest.mark.parametrize("with_background_workers", [True, False], ids=["background workers", ".pgpass"])
def test_the_set_up_leads_from_an_empty_server_to_the_first_sale(
    tmp_path: Path, with_background_workers: bool
) -> None:
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    with (
        own_server(with_background_workers=with_background_workers) as server,
        Reader(
            tmp_path,
            superuser=server.url(),
            instead={
                "localhost:5432": f"localhost:{server.port}",
                "localhost:8000": f"127.0.0.1:{port}",
                "bin/bootstrap": f"{ROOT}/bin/bootstrap",
                "-c gunicorn.conf.py": f"-c {ROOT}/gunicorn.conf.py",
            },
            environment={"FLASHSALE_PORT": str(port), "HOME": str(tmp_path)},
        ) as reader,
    ):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(server.url(password="another"))
        try:
            for example in examples(OPERATIONS, SET_UP):
                reader.check(example)
            with psycopg.connect(server.url(dbname="flashsale"), autocommit=True) as conn:
                assert audit(conn) == []
                assert one(conn, "select paid from flashsale.stock") == 1
                assert not one(conn, "select has_database_privilege('public', 'flashsale', 'connect')")
                wait_until(
                    lambda: one(conn, "select last_run_at is not null from flashsale.scheduler"),
                    "pg_cron has run the sweep",
                    timeout=100,
                )
            migrator = server.url("migrator", "secret-1", "flashsale")
            status = flashsale(migrator, "cron", "status", "--json")
            assert [job["role"] for job in json.loads(status)["jobs"]] == ["migrator"] * 2
            found = {
                f["check"]: f["status"]
                for f in json.loads(flashsale(migrator, "doctor", "--json"))["findings"]
            }
            assert found["pg_cron"] == "ok"
            assert httpx.get(f"{base}/readyz").json()["scheduler"] == "alive"
            with psycopg.connect(server.url()) as conn:
                setting = one(conn, "select current_setting('cron.use_background_workers')")
                assert (setting == "on") == with_background_workers
        finally:
            for pid in processes.with_arguments("--pid", "server.pid"):
                with suppress(OSError):  # a worker may have ended with its master
                    if f"FLASHSALE_PORT={port}".encode() in Path(f"/proc/{pid}/environ").read_bytes():
                        processes.send_signal(pid, signal.SIGTERM)
            wait_until(lambda: not answers(f"{base}/healthz"), "the server has stopped")


def flashsale(url: str, *arguments: str) -> str:
    done = subprocess.run(
        [ROOT / ".venv/bin/flashsale", *arguments],
        env=os.environ | {"FLASHSALE_DATABASE_URL": url},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
