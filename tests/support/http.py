"""HTTP servers for tests."""

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flashsale.local.os_account import with_pdeathsig
from tests.support import ROOT
from tests.support.buyer_tokens import HS256
from tests.support.provider_events import STRIPE_SECRET
from tests.support.waiting import wait_until


def free_port() -> int:
    """A loopback port that no process listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def answers(url: str) -> bool:
    """Whether anything, be it an error, answers HTTP at `url`."""
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@contextmanager
def running_server(
    database_url: str, log: Path, *, nofile: tuple[int, int] | None = None, **environment: str
) -> Iterator[str]:
    """gunicorn, as in production, on a free loopback port; yields its base URL.

    `environment` goes over the variables the server needs. What it prints is in `log`. `nofile` is the soft
    and the hard limit of its open files.
    """
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLASHSALE_")}
    settings = {
        "FLASHSALE_DATABASE_URL": database_url,
        "FLASHSALE_HOST": "127.0.0.1",
        "FLASHSALE_PORT": str(port),
        "FLASHSALE_ALLOW_UNSIGNED_WEBHOOKS": "1",
        "FLASHSALE_STRIPE_SECRETS": STRIPE_SECRET,
        "FLASHSALE_PAGE": "1",
        "FLASHSALE_TRUST_BUYER": "1",
        "FLASHSALE_BUYER_KEYS": HS256,
    }
    with log.open("ab") as output:
        child = subprocess.Popen(
            [
                *(["prlimit", f"--nofile={nofile[0]}:{nofile[1]}"] if nofile else []),
                *with_pdeathsig(signal.SIGTERM),
                sys.executable,
                "-m",
                "gunicorn",
                "-c",
                "gunicorn.conf.py",
                "--no-control-socket",
            ],
            cwd=ROOT,
            env=inherited | settings | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_until(lambda: child.poll() is not None or answers(f"{base}/healthz"), "gunicorn answers")
        assert child.poll() is None, f"gunicorn did not start:\n{log.read_text()}"
        yield base
    finally:
        child.terminate()
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
