"""ops/flashsale.service and .socket: systemd accepts them, and a restart as they make it loses no request.

systemd itself cannot run here. What it does with these units is done by the test: it keeps the socket, and
runs ExecStart in WorkingDirectory with the unit's environment and the lines of EnvironmentFile.
"""

import configparser
import http.client
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from flashsale.database.seed import APP_ROLE
from flashsale.local.cluster import Cluster
from flashsale.local.os_account import with_pdeathsig
from flashsale.webhooks import signature_headers
from tests.api.test_settings import SECRET
from tests.support import ROOT, processes, servers
from tests.support.http import answers
from tests.support.nginx import running_nginx
from tests.support.sale_steps import one
from tests.support.waiting import wait_until

CURRENT = "/srv/flashsale/current"
OTHER_SECRET = SECRET.replace("eHh4", "eXl5", 1)
JSON = {"Content-Type": "application/json"}


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(ROOT / "ops" / name)
    return parser


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    for name in ("flashsale.service", "flashsale.socket"):
        # The program must exist.
        (tmp_path / name).write_text((ROOT / "ops" / name).read_text().replace(CURRENT, str(ROOT)))
    command = ["systemd-analyze", "verify", "--man=no", *tmp_path.glob("flashsale.*")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_socket_has_the_ports_of_the_service() -> None:
    text = (ROOT / "ops/flashsale.socket").read_text()
    ports = [line.rpartition(":")[2] for line in text.splitlines() if line.startswith("ListenStream=")]
    assert ports == ["8000", "9464"]
    assert "FLASHSALE_METRICS_PORT=9464" in unit("flashsale.service")["Service"]["Environment"]


class Service:
    """flashsale.service and its socket, with releases in a folder."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.releases = folder / "releases"
        self.current = folder / "current"
        self.releases.mkdir()
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.log = folder / "service.log"
        self.environment_file = {"FLASHSALE_DATABASE_URL": database_url, "FLASHSALE_WEBHOOK_SECRETS": SECRET}
        self._process: subprocess.Popen[bytes] | None = None

    def deploy(self, release: str) -> None:
        """A release in a folder of its own; the link is exchanged at once."""
        folder = self.releases / release
        folder.mkdir()
        for name in ("api", "flashsale", "sql", "migrations", "gunicorn.conf.py", ".venv"):
            (folder / name).symlink_to(ROOT / name)
        following = self.current.with_name("next")
        following.symlink_to(folder)
        following.rename(self.current)

    def start(self) -> None:
        service = unit("flashsale.service")["Service"]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLASHSALE_")}
        settings = dict(word.split("=", 1) for word in shlex.split(service["Environment"]))
        del settings["FLASHSALE_METRICS_PORT"]
        directory = Path(service["WorkingDirectory"].replace(CURRENT, str(self.current)))
        command = shlex.split(service["ExecStart"].replace(CURRENT, str(self.current)))
        # As sd_listen_fds(3) has it: the socket is descriptor 3 of the process that the variables name.
        take = f'exec 3<&{self.socket.fileno()}; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"'
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*with_pdeathsig(signal.SIGTERM), "bash", "-c", take, "bash", *command],
                cwd=directory.resolve(),
                env=inherited | settings | self.environment_file,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                pass_fds=[self.socket.fileno()],
            )  # fmt: skip

    def stop(self) -> None:
        """KillMode=mixed: the signal is for the main process."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(30)

    def restart(self) -> None:
        self.stop()
        self.start()

    def folder(self) -> Path:
        """The release that serves."""
        assert self._process is not None
        return Path(f"/proc/{processes.children(self._process.pid)[0]}/cwd").readlink()


@pytest.fixture
def service(db: psycopg.Connection, cluster: Cluster, tmp_path: Path) -> Iterator[Service]:
    db.execute("select flashsale.create_product('Shoe', 1000000, 99, 'USD')")
    db.execute("select flashsale.change_settings(p_hold_time => '1 hour')")
    service = Service(tmp_path, cluster.url(APP_ROLE, db.info.dbname))
    service.deploy("1")
    service.start()
    try:
        assert answers(f"{service.url}/healthz")
        yield service
    finally:
        service.stop()
        service.socket.close()


class Buyers:
    """Clients that place holds over connections that they keep, without a retry."""

    def __init__(self, connect: Callable[[], http.client.HTTPConnection]) -> None:
        self._connect = connect
        self._stopped = threading.Event()
        self.placed: list[int] = []
        """the ids of holds"""
        self.failures: list[str] = []

    def _buy(self) -> None:
        conn = self._connect()
        while not self._stopped.is_set():
            try:
                key = {"Idempotency-Key": str(uuid.uuid4())}
                conn.request("POST", "/api/holds", json.dumps({"product_id": 1, "qty": 1}), JSON | key)
                response = conn.getresponse()
                text = response.read()
                if response.status == 201:
                    self.placed.append(json.loads(text)["hold_id"])
                else:
                    self.failures.append(f"{response.status} {text[:200]!r}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                conn.close()
        conn.close()

    @contextmanager
    def buying(self, count: int) -> Iterator["Buyers"]:
        threads = [threading.Thread(target=self._buy) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stopped.set()
            for thread in threads:
                thread.join()

    def wait_for_more(self) -> None:
        target = len(self.placed) + 200
        wait_until(lambda: len(self.placed) > target, "buyers are served")


def pay(service: Service, secret: str) -> int:
    data = json.dumps({"idempotency_key": str(uuid.uuid4()), "order_id": 1, "status": "failed"}).encode()
    conn = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=30)
    headers = JSON | signature_headers(data, str(uuid.uuid4()), (secret,))
    conn.request("POST", "/api/payments/webhook", data, headers)
    status = conn.getresponse().status
    conn.close()
    return status


@pytest.mark.slow
@servers.needs("nginx")
def test_a_restart_takes_folder_and_secrets_and_loses_no_request(
    service: Service, db: psycopg.Connection, tmp_path: Path
) -> None:
    with (
        running_nginx(service.url, tmp_path / "nginx", without_limits=True) as nginx,
        Buyers(nginx.connect).buying(8) as buyers,
    ):
        buyers.wait_for_more()
        assert (pay(service, SECRET), pay(service, OTHER_SECRET)) == (202, 401)

        service.deploy("2")
        service.restart()
        buyers.wait_for_more()
        assert service.folder() == service.releases / "2"

        # A rotation: both secrets, then the new one.
        service.environment_file["FLASHSALE_WEBHOOK_SECRETS"] = f"{OTHER_SECRET},{SECRET}"
        service.restart()
        buyers.wait_for_more()
        assert (pay(service, SECRET), pay(service, OTHER_SECRET)) == (202, 202)

        service.environment_file["FLASHSALE_WEBHOOK_SECRETS"] = OTHER_SECRET
        service.restart()
        buyers.wait_for_more()
        assert (pay(service, SECRET), pay(service, OTHER_SECRET)) == (401, 202)
    assert buyers.failures == []
    assert one(db, "select held from flashsale.stock where product_id = 1") == len({*buyers.placed})
