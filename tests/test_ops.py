"""The dashboard and the alerts use only metrics that exist, and one of them uses each metric."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from flashsale.database.seed import APP_ROLE
from flashsale.local.cluster import Cluster
from tests.support import ROOT
from tests.support.metrics_scrape import Metrics, watched_server

DASHBOARD = json.loads((ROOT / "ops/grafana-dashboard.json").read_text())
ALERTS = yaml.safe_load((ROOT / "ops/alerts.yml").read_text())
GUIDE = (ROOT / "docs/observability.md").read_text()


@pytest.fixture(scope="module")
def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


@pytest.fixture
def metrics(db: psycopg.Connection, cluster: Cluster, tmp_path: Path) -> Iterator[Metrics]:
    db.execute("select flashsale.create_product('Shoe', 50, 99, 'USD')")
    with watched_server(cluster.url(APP_ROLE, db.info.dbname), tmp_path / "gunicorn.log") as (_, metrics):
        yield metrics


def named(expression: str) -> set[str]:
    return set(re.findall(r"\bflashsale_[a-z_]+", expression))


def test_every_metric_that_is_asked_for_exists_and_each_is_drawn_and_documented(
    metrics: Metrics, panels: list[dict[str, Any]]
) -> None:
    exposed = metrics.sample_names()
    drawn = {name for panel in panels for target in panel["targets"] for name in named(target["expr"])}
    variables = {name for v in DASHBOARD["templating"]["list"] for name in named(v.get("definition", ""))}
    alerting = {name for group in ALERTS["groups"] for rule in group["rules"] for name in named(rule["expr"])}
    assert drawn | variables | alerting <= exposed
    shown = {re.sub("_(bucket|sum|count)$", "", name) for name in drawn | alerting}
    documented = metrics.documented()
    assert shown >= documented.keys() - {"flashsale_stock_total_units"}

    table = re.findall(r"^\| `(\w+)` \|([^|]*)\| (\w+) \|", GUIDE, re.MULTILINE)
    told = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, labels, kind in table}
    assert len(table) == len(told)
    assert {name: kind for name, (kind, _) in told.items()} == {
        name: kind for name, (kind, _) in documented.items()
    }
    for name, (_, labels) in documented.items():
        assert labels <= told[name][1], name


def test_panels_have_ids_and_places_of_their_own(panels: list[dict[str, Any]]) -> None:
    everything = DASHBOARD["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    taken: set[tuple[int, int]] = set()
    for panel in everything:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_every_alert_has_a_severity_and_a_summary() -> None:
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["alert"].startswith("Flashsale")
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"].endswith(".")
