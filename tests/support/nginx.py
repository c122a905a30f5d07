"""nginx with the configuration of ops/, on a loopback port."""

import http.client
import os
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.support import ROOT, servers
from tests.support.http import free_port
from tests.support.waiting import wait_until

CONFIGURATION = (ROOT / "ops/nginx.conf").read_text()
HOST = "checkout.shop.example"


class Nginx:
    """A running nginx, and its logs."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.tls = ssl.create_default_context(cafile=str(folder / "checkout.pem"))

    def connect(self, source: str = "127.0.0.1") -> http.client.HTTPSConnection:
        """A connection from a loopback address."""
        conn = http.client.HTTPSConnection(HOST, self.port, timeout=30, context=self.tls)
        conn._create_connection = lambda address, *options: _connect(address, source, *options)  # type: ignore[attr-defined]
        return conn

    def logs(self) -> str:
        return "".join(path.read_text() for path in self.folder.glob("*.log"))


def _connect(address: tuple[str, int], source: str, timeout: float, *_: object) -> socket.socket:
    return socket.create_connection(("127.0.0.1", address[1]), timeout, (source, 0))


def _listens(port: int) -> bool:
    with socket.socket() as wire:
        return wire.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running_nginx(server: str, folder: Path, *, without_limits: bool = False) -> Iterator[Nginx]:
    """nginx in front of a server, with a certificate for this time only."""
    folder.mkdir()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={HOST}",
         "-addext", f"subjectAltName=DNS:{HOST}", "-keyout", folder / "checkout.key",
         "-out", folder / "checkout.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    port = free_port()
    here = {
        "127.0.0.1:8000": urlsplit(server).netloc,
        "listen 443": f"listen 127.0.0.1:{port}",
        "listen [::]:443 ssl http2;": "",
        "/etc/nginx/tls": str(folder),
        "/var/log/nginx": str(folder),
    }
    text = CONFIGURATION
    for words, instead in here.items():
        assert words in text
        text = text.replace(words, instead)
    if without_limits:
        text = re.sub(r"rate=\d+r/s", "rate=100000r/s", text)
    (folder / "flashsale.conf").write_text(text)
    places = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    (folder / "nginx.conf").write_text(
        ("user root;\n" if os.geteuid() == 0 else "")
        + f"daemon off; pid {folder}/pid; error_log {folder}/error.log warn; events {{ }}\nhttp {{\n"
        + "".join(f"{place}_temp_path {folder}/{place};\n" for place in places)
        + f"include {folder}/flashsale.conf;\n}}\n"
    )
    found = servers.find("nginx")
    assert found is not None
    command = [
        found / "usr/sbin/nginx",
        "-p",
        folder,
        "-c",
        folder / "nginx.conf",
        "-e",
        folder / "error.log",
    ]
    with (folder / "output").open("wb") as output:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        wait_until(lambda: child.poll() is not None or _listens(port), "nginx listens")
        assert child.poll() is None, (folder / "output").read_text()
        yield Nginx(folder, port)
    finally:
        child.terminate()
        child.wait(30)
