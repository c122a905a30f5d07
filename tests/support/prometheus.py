"""Prometheus with the alerts of ops/alerts.yml, as it comes from the distribution."""

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from flashsale.local.os_account import with_pdeathsig
from tests.support import ROOT, servers
from tests.support.http import answers, free_port
from tests.support.waiting import wait_until

RULES = ROOT / "ops/alerts.yml"

_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_DURATION = re.compile(r"(\d+)(ms|s|m|h)\b")


def rules() -> list[dict[str, Any]]:
    """The alerts, in the order of the file."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`."""
    folder = servers.find("prometheus")
    assert folder is not None
    return str(folder / "usr/bin" / name)


class Prometheus:
    """A Prometheus on a loopback port."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]["result"]

    def alerts(self) -> set[tuple[str, str]]:
        """The alerts that are pending or firing: their names and states."""
        answer = httpx.get(f"{self.url}/api/v1/alerts", timeout=30)
        return {(alert["labels"]["alertname"], alert["state"]) for alert in answer.json()["data"]["alerts"]}

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        return {name for name, state in self.alerts() if state == "firing"}

    def fired(self) -> set[str]:
        """The names of the alerts that have fired at any time since it was started."""
        found = self.query('count by (alertname) (count_over_time(ALERTS{alertstate="firing"}[1h]))')
        return {sample["metric"]["alertname"] for sample in found}

    def wait_until_fired(self, *alerts: str, timeout: float = 90) -> None:
        wait_until(lambda: {*alerts} <= self.fired(), f"{alerts} fire", timeout)

    def wait_until_resolved(self, *alerts: str, timeout: float = 90) -> None:
        wait_until(lambda: not {*alerts} & self.firing(), f"{alerts} are resolved", timeout)


@contextmanager
def watching(folder: Path, metrics_port: int, times_faster: int) -> Iterator[Prometheus]:
    """A Prometheus that scrapes a server of ours.

    :param times_faster: the evaluation interval and all windows and durations of the rules are divided by it,
        and the scrape interval of the guide, 5 seconds, as far as half a second
    """
    text = _DURATION.sub(
        lambda found: f"{max(1, int(found[1]) * _UNITS[found[2]] // times_faster)}ms", RULES.read_text()
    )
    (folder / "alerts.yml").write_text(text)
    interval = f"{max(500, 5000 // times_faster)}ms"  # a busy machine needs time to respond
    settings = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "scrape_configs": [
            {"job_name": "flashsale", "static_configs": [{"targets": [f"127.0.0.1:{metrics_port}"]}]}
        ],
        "rule_files": ["alerts.yml"],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    prometheus = Prometheus(port := free_port())
    with (folder / "prometheus.log").open("ab") as log:
        child = subprocess.Popen(
            [
                *with_pdeathsig(signal.SIGKILL),
                program("prometheus"),
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_until(
            lambda: child.poll() is not None or answers(f"{prometheus.url}/-/ready"), "Prometheus answers"
        )
        assert child.poll() is None, (folder / "prometheus.log").read_text()
        wait_until(lambda: prometheus.query('up{job="flashsale"} == 1'), "it has scraped the server")
        yield prometheus
    finally:
        child.kill()
        child.wait()
