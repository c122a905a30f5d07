"""`flashsale up` as a child of a test."""

import itertools
import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flashsale.local import processes
from flashsale.local.cluster import Cluster
from tests.support import ROOT
from tests.support.clusters import cluster_folder
from tests.support.http import answers, free_port
from tests.support.waiting import wait_until

FLASHSALE = [str(ROOT / ".venv/bin/flashsale")]


class Up:
    """One `flashsale up` and what it prints."""

    count = itertools.count()

    def __init__(self, folder: Path, command: list[str], cwd: Path = ROOT, **environment: str) -> None:
        self.folder = folder
        self.port = int(environment.get("FLASHSALE_PORT") or free_port())
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder.parent / f"up.{next(self.count)}.log"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLASHSALE_")}
        settings = {"FLASHSALE_DATA_DIR": str(folder), "FLASHSALE_PORT": str(self.port)}
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=cwd,
                env=inherited | settings | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.log.read_text()

    def wait_until_it_is_up(self) -> "Up":
        wait_until(lambda: self.process.poll() is not None or "is up at" in self.said(), "it is up")
        assert self.process.poll() is None, self.said()
        return self

    def get(self, path: str) -> dict:
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return json.load(answer)

    def hold(self, qty: int) -> None:
        request = urllib.request.Request(
            f"{self.url}/api/holds",
            json.dumps({"product_id": 1, "qty": qty}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 201

    def gunicorns(self) -> list[int]:
        return processes.with_arguments("gunicorn", str(self.folder / "gunicorn.pid"))

    def postgres(self) -> list[int]:
        return processes.with_cwd(self.folder / "postgres")

    def is_gone(self) -> bool:
        return not self.gunicorns() and not self.postgres() and not answers(self.url)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def data_folder() -> Iterator[Path]:
    """A data folder that PostgreSQL's account can reach; whatever runs on it is stopped at the end."""
    with cluster_folder() as parent:
        try:
            yield parent / "data"
        finally:
            Cluster(parent / "data").stop_leftover()
