"""gunicorn as in production, on a free loopback port, serving flashsale or a baseline."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import ROOT
from bench.machine import cpu_seconds
from flashsale.local.os_account import with_pdeathsig

FLASHSALE = "api.app:from_environment()"
CEILING = "bench.baselines.ceiling:application()"
CALL_EACH = "bench.baselines.call_each:application()"
LOCK_AND_SUM = "bench.baselines.lock_and_sum:application()"
REDIS = "bench.baselines.redis_script:application()"
REDIS_FSYNC = "redis with appendfsync always"  # the same application over another Redis
PGBENCH = "pgbench"

NAMES = {
    FLASHSALE: "flashsale",
    CEILING: "(a) ceiling: no database",
    CALL_EACH: "(b) one call each",
    LOCK_AND_SUM: "(c) lock, sum, insert",
    PGBENCH: "(d) pgbench",
    REDIS: "(e) Redis, in memory",
    REDIS_FSYNC: "(e) Redis, fsync always",
}
"""as the report shows them"""


@dataclass(frozen=True)
class Server:
    """A running gunicorn with one worker.

    `pid` is the master's.
    """

    pid: int
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.pid)


@contextmanager
def running_server(
    application: str, database_url: str, log: Path, environment: dict[str, str] | None = None
) -> Iterator[Server]:
    """Start it, wait until it answers, and stop it in the end. Its output goes to `log`."""
    port = _free_port()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLASHSALE_")}
    settings = {
        "FLASHSALE_DATABASE_URL": database_url,
        "FLASHSALE_PORT": str(port),
        "FLASHSALE_ALLOW_UNSIGNED_WEBHOOKS": "1",
        "FLASHSALE_TRUST_BUYER": "1",
        "WEB_CONCURRENCY": "1",
    }
    with log.open("ab") as output:
        child = subprocess.Popen(
            [
                *with_pdeathsig(signal.SIGTERM),
                sys.executable,
                "-m",
                "gunicorn",
                "-c",
                "gunicorn.conf.py",
                application,
            ],
            cwd=ROOT,
            env=inherited | settings | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        while not _is_healthy(port):
            if child.poll() is not None:
                raise RuntimeError(f"gunicorn did not start {application}:\n{log.read_text()}")
            time.sleep(0.05)
        yield Server(child.pid, port)
    finally:
        child.terminate()
        child.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
