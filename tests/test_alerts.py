"""Each alert of ops/alerts.yml fires when it should, and ends: by promtool, with the series of the server.

tests/test_alerts_live.py restarts PostgreSQL and the server before a real Prometheus.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from flashsale.database.seed import APP_ROLE
from flashsale.local.cluster import Cluster
from tests.docs.test_every_document import anchors
from tests.support import ROOT, servers
from tests.support.metrics_scrape import watched_server
from tests.support.prometheus import RULES, program, rules

PER_MINUTE = 4
"""scrapes: an interval of 15 seconds, the longest that the rules are for"""
GAP = None
"""no sample, as of a server that does not respond, or of a metric that the database provides"""


def stays(value: float | None, minutes: float) -> list[float | None]:
    return [value] * round(minutes * PER_MINUTE)


def grows(before: float, by: float, minutes: float) -> list[float]:
    """A counter that grows by so much at each scrape."""
    return [before + by * n for n in range(1, round(minutes * PER_MINUTE) + 1)]


class Situation(NamedTuple):
    """What the server exports, and when the alert fires.

    :param fires: minutes at which it fires
    :param silent: minutes at which it does not, before and after
    :param beside: another alert, which says what is wrong
    """

    alert: str
    series: dict[str, list[float | None]]
    fires: list[float]
    silent: list[float]
    beside: str = ""


UP = 'up{job="flashsale"}'
DATABASE = "flashsale_database_up"
PROBLEM = 'flashsale_problems_total{{code="{}"}}'
FAST, SLOW = (
    f'flashsale_db_connections{{function="place_holds",path="{path}"}}' for path in ("fast", "slow")
)
HOLDS = 'flashsale_http_requests_total{{method="POST",route="/api/holds",status="{}"}}'
DURATION = 'flashsale_http_request_duration_seconds_bucket{{method="{}",route="{}",le="{}"}}'
WEBHOOK = 'flashsale_webhooks_total{{status="success",result="{}"}}'
START = 'flashsale_sale_starts_at_seconds{product_id="1"}'
UNSIGNED = 'flashsale_webhooks_refused_total{code="invalid_signature"}'
WORKERS = "flashsale_workers"


def slow(method: str, route: str, minutes: float) -> dict[str, list[float | None]]:
    """Ten fast requests and one slow at each scrape, for so many minutes."""
    before, after = stays(0, 2), 10
    ends = round(minutes * PER_MINUTE)
    return {
        DURATION.format(method, route, bound): before + grows(0, by, minutes) + stays(by * ends, after)
        for bound, by in (("0.5", 10), ("1.0", 11), ("+Inf", 11))
    }


FIRING = [
    Situation("FlashsaleDown", {UP: stays(1, 2) + stays(0, 2) + stays(1, 2)}, [3.5], [2.5, 4.5]),
    # It was never scraped.
    Situation("FlashsaleDown", {UP: stays(GAP, 3) + stays(1, 2)}, [1.5, 2.5], [0.5, 3.5]),
    Situation(
        "FlashsaleDatabaseDown", {DATABASE: stays(1, 2) + stays(0, 2) + stays(1, 2)}, [3, 3.75], [2.25, 4.5]
    ),
    # Of two workers one has none; that of the slow path is opened when it is needed.
    Situation(
        "FlashsaleConnectionDown",
        {
            WORKERS: stays(2, 6),
            DATABASE: stays(1, 6),
            SLOW: stays(0, 6),
            FAST: stays(2, 2) + stays(1, 2) + stays(2, 2),
        },
        [3.5],
        [2.5, 4.5],
    ),
    Situation(
        "FlashsaleInternalErrors",
        {PROBLEM.format("internal_error"): stays(0, 2) + stays(1, 10)},
        [3, 6],
        [1.5, 8],
    ),
    Situation(
        "FlashsaleHighErrorRate",
        {
            HOLDS.format("201"): grows(0, 100, 15),
            HOLDS.format("503"): stays(0, 2) + grows(0, 2, 4) + stays(32, 9),
        },
        [5, 6],
        [1, 3.5, 8],
    ),
    Situation(
        "FlashsaleOutcomeUnknown",
        {PROBLEM.format("outcome_unknown"): stays(0, 2) + stays(1, 10)},
        [3, 6],
        [1.5, 8],
    ),
    Situation(
        "FlashsaleOverloaded",
        {PROBLEM.format("overloaded"): stays(0, 2) + grows(0, 9, 4) + stays(144, 6)},
        [5, 6],
        [1, 3.5, 8],
    ),
    Situation(
        "FlashsaleLocked",
        {PROBLEM.format("busy"): stays(0, 2) + grows(0, 1, 4) + stays(16, 6)},
        [5, 6],
        [1, 3.5, 8],
    ),
    Situation("FlashsaleSlow", slow("POST", "/api/holds", 4), [5, 6], [1, 3.5, 9]),
    Situation(
        "FlashsaleWebhooksRefused",
        {UNSIGNED: stays(0, 2) + grows(0, 0.5, 8) + stays(16, 9)},
        [9, 11],
        [1, 6, 16],
    ),
    Situation(
        "FlashsaleWebhooksRejected",
        {"flashsale_rejected_webhooks": stays(0, 2) + stays(1, 2) + stays(0, 2)},
        [2.25, 3.75],
        [1.75, 4.5],
    ),
    Situation(
        "FlashsaleRejectedWebhooksDropped",
        {"flashsale_rejected_webhooks_dropped_total": stays(0, 2) + stays(1, 14)},
        [3, 11],
        [1.75, 13],
    ),
    # 4 of 100, and 4 in all: a shop with few sales.
    Situation(
        "FlashsaleAmountMismatch",
        {
            WEBHOOK.format("applied"): grows(0, 5, 40),
            WEBHOOK.format("amount_mismatch"): stays(0, 5) + grows(0, 1, 5) + stays(20, 30),
        },
        [9, 15],
        [4, 33],
    ),
    Situation(
        "FlashsaleAmountMismatch",
        {
            WEBHOOK.format("applied"): stays(0, 40),
            WEBHOOK.format("amount_mismatch"): stays(0, 5) + stays(4, 35),
        },
        [8, 18],
        [4, 22],
    ),
    Situation(
        "FlashsaleInboxFilling",
        {
            "flashsale_inbox_limit": stays(100, 8),
            "flashsale_inbox_webhooks": stays(80, 2) + stays(81, 3) + stays(80, 3),
        },
        [4, 4.75],
        [1.5, 2.75, 5.5],
    ),
    Situation(
        "FlashsaleSchedulerDead",
        {
            "flashsale_scheduler_alive": stays(1, 2) + stays(0, 10) + stays(1, 2),
            "flashsale_scheduler_lag_seconds": stays(5, 2) + grows(5, 15, 10) + stays(5, 2),
        },
        [7, 11.5],
        [1.5, 5.5, 12.5],
    ),
    # There is no scheduler at all.
    Situation("FlashsaleSchedulerDead", {"flashsale_scheduler_alive": stays(0, 5)}, [2.5], [1.5]),
    Situation(
        "FlashsaleSweepBehind",
        {"flashsale_sweep_lag_seconds": stays(0, 2) + grows(0, 15, 8) + stays(0, 3)},
        [7.5, 9.5],
        [4.5, 6.5, 10.5],
    ),
    # It opens after 20 minutes, while there is no scheduler.
    Situation(
        "FlashsaleNotReadyForSale",
        {START: stays(1200, 24), "flashsale_scheduler_alive": stays(0, 24)},
        [11, 19.5],
        [9, 20.5],
        beside="FlashsaleSchedulerDead",
    ),
    Situation(
        "FlashsaleRefundsDue", {"flashsale_refunds_due": stays(3, 2) + stays(4, 20)}, [3, 16], [1.5, 18]
    ),
    Situation(
        "FlashsaleWorkersRestarting",
        {"flashsale_worker_start_time_seconds": stays(1, 2) + stays(2, 1) + stays(3, 1) + stays(4, 14)},
        [5, 11],
        [3.75, 15],
    ),
    Situation(
        "FlashsaleCpuSaturated",
        {WORKERS: stays(1, 14), "flashsale_worker_cpu_seconds_total": grows(0, 14, 6) + grows(336, 1, 8)},
        [4, 5.5],
        [1.5, 9],
    ),
]
QUIET = [
    # A restart of PostgreSQL: some seconds without it, in which a load balancer polls /readyz.
    Situation(
        "FlashsaleDatabaseDown",
        {
            DATABASE: stays(1, 2) + stays(0, 0.25) + stays(1, 6),
            WORKERS: stays(1, 8.25),
            FAST: stays(1, 2) + stays(0, 0.5) + stays(1, 5.75),
            PROBLEM.format("unavailable"): stays(0, 2) + stays(2, 6.25),
            HOLDS.format("201"): stays(9, 8.25),
            HOLDS.format("503"): stays(0, 2) + stays(1, 6.25),
            'flashsale_http_requests_total{method="GET",route="/readyz",status="503"}': grows(0, 3, 8.25),
            **slow("GET", "/readyz", 4),
            "flashsale_scheduler_alive": stays(1, 2) + stays(GAP, 0.25) + stays(0, 1) + stays(1, 5),
            "flashsale_scheduler_lag_seconds": stays(9, 2) + stays(GAP, 0.25) + stays(40, 1) + stays(9, 5),
            "flashsale_rejected_webhooks_dropped_total": stays(7, 2) + stays(GAP, 0.25) + stays(7, 6),
            "flashsale_refunds_due": stays(7, 2) + stays(GAP, 0.25) + stays(7, 6),
        },
        [],
        [2.25, 3, 4, 5, 6, 7, 8],
    ),
    # A restart of the server: counters begin again.
    Situation(
        "FlashsaleDown",
        {
            UP: stays(1, 2) + stays(0, 0.5) + stays(1, 6),
            WORKERS: stays(1, 2) + stays(GAP, 0.5) + stays(1, 6),
            FAST: stays(1, 2) + stays(GAP, 0.5) + stays(1, 6),
            DATABASE: stays(1, 2) + stays(GAP, 0.5) + stays(1, 6),
            "flashsale_worker_start_time_seconds": stays(1, 2) + stays(GAP, 0.5) + stays(2, 6),
            "flashsale_worker_cpu_seconds_total": grows(90, 0.1, 2) + stays(GAP, 0.5) + grows(1, 0.1, 6),
            **{
                PROBLEM.format(code): stays(7, 2) + stays(GAP, 0.5) + stays(0, 6)
                for code in ("internal_error", "outcome_unknown", "busy", "overloaded", "unavailable")
            },
            UNSIGNED: stays(7, 2) + stays(GAP, 0.5) + stays(0, 6),
            WEBHOOK.format("applied"): stays(7, 2) + stays(GAP, 0.5) + stays(0, 6),
            WEBHOOK.format("amount_mismatch"): stays(7, 2) + stays(GAP, 0.5) + stays(0, 6),
        },
        [],
        [2, 2.5, 3, 4, 5, 6, 7, 8],
    ),
    # The database is away: that is one alert, not one more for each function.
    Situation(
        "FlashsaleConnectionDown",
        {WORKERS: stays(1, 5), DATABASE: stays(0, 5), FAST: stays(0, 5)},
        [],
        [2, 4.5],
        beside="FlashsaleDatabaseDown",
    ),
    # Of two databases (docs/shards.md) one has lost a connection, though both are up.
    Situation(
        "FlashsaleConnectionDown",
        {
            WORKERS: stays(1, 6),
            **{f'flashsale_database_up{{shard="{shard}"}}': stays(1, 6) for shard in "ab"},
            FAST.replace("{", '{shard="a",'): stays(1, 6),
            FAST.replace("{", '{shard="b",'): stays(1, 2) + stays(0, 2) + stays(1, 2),
        },
        [3.5],
        [2.5, 4.5],
    ),
    # One of them is away: that is one alert, too.
    Situation(
        "FlashsaleConnectionDown",
        {
            WORKERS: stays(1, 5),
            'flashsale_database_up{shard="a"}': stays(1, 5),
            'flashsale_database_up{shard="b"}': stays(0, 5),
            FAST.replace("{", '{shard="a",'): stays(1, 5),
            FAST.replace("{", '{shard="b",'): stays(0, 5),
        },
        [],
        [2, 4.5],
        beside="FlashsaleDatabaseDown",
    ),
    # A product was locked for a quarter of a minute.
    Situation(
        "FlashsaleLocked",
        {
            PROBLEM.format("busy"): stays(0, 2) + stays(3, 0.25) + stays(6, 5),
            HOLDS.format("201"): grows(0, 1, 7.25),
            HOLDS.format("503"): stays(0, 2) + stays(3, 0.25) + stays(6, 5),
        },
        [],
        [2.25, 3, 3.5, 4, 5, 6],
    ),
    # Another scheduler than pg_cron calls the sweep every minute.
    Situation(
        "FlashsaleSchedulerDead",
        {
            "flashsale_scheduler_alive": stays(0, 8),
            "flashsale_scheduler_lag_seconds": [60, 15, 30, 45] * 8,
        },
        [],
        [2.5, 4, 6, 7.75],
    ),
    # Two of two payments: too few to tell.
    Situation(
        "FlashsaleAmountMismatch",
        {
            WEBHOOK.format("applied"): stays(0, 20),
            WEBHOOK.format("amount_mismatch"): stays(0, 5) + stays(2, 15),
        },
        [],
        [6, 8, 12, 18],
    ),
    # A deployment, and another.
    Situation(
        "FlashsaleWorkersRestarting",
        {"flashsale_worker_start_time_seconds": stays(1, 2) + stays(2, 1) + stays(3, 9)},
        [],
        [3, 5, 11],
    ),
]


def test_there_is_a_situation_for_each_alert() -> None:
    assert {situation.alert for situation in FIRING} == {rule["alert"] for rule in rules()}


@servers.needs("prometheus")
def test_rules_are_valid() -> None:
    subprocess.run([program("promtool"), "check", "rules", RULES], check=True, capture_output=True)


def labelled(selector: str) -> str:
    """With the labels that a scrape adds."""
    name, _, labels = selector.rstrip("}").partition("{")
    added = [label for label in ('job="flashsale"', 'instance="shop:9464"') if label not in labels]
    return f"{name}{{{','.join([labels, *added] if labels else added)}}}"


def values(samples: list[float | None]) -> str:
    return " ".join("stale" if value is None else str(value) for value in samples)


def count(minutes: float, condition: str, is_firing: bool) -> dict[str, Any]:
    return {
        "expr": f'count(ALERTS{{alertstate="firing",{condition}}})',
        "eval_time": f"{round(minutes * 60)}s",
        "exp_samples": [{"labels": "{}", "value": 1}] if is_firing else [],
    }


@servers.needs("prometheus")
@pytest.mark.parametrize(
    "situation", [*FIRING, *QUIET], ids=lambda situation: f"{situation.alert}-{bool(situation.fires)}"
)
def test_an_alert_fires_and_is_resolved_and_no_other_fires(tmp_path: Path, situation: Situation) -> None:
    length = max(map(len, situation.series.values()))
    series = {UP: [1.0] * length, **situation.series}
    ours, others = f'alertname="{situation.alert}"', f'alertname!~"{situation.alert}|{situation.beside}"'
    checks = [
        *(count(minutes, ours, True) for minutes in situation.fires),
        *(count(minutes, ours, False) for minutes in situation.silent),
        *(count(minutes, others, False) for minutes in [*situation.fires, *situation.silent]),
    ]
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [
                    {"series": labelled(selector), "values": values(samples)}
                    for selector, samples in series.items()
                ],
                "promql_expr_test": checks,
            }
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump(test))
    done = subprocess.run([program("promtool"), "test", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def exported(db: psycopg.Connection, cluster: Cluster, tmp_path: Path) -> Iterator[list[Any]]:
    """The samples of a server that has refused a request."""
    db.execute("select flashsale.create_product('Drop', 1, 1, p_starts_at => '2099-01-01 00:00Z')")
    url = cluster.url(APP_ROLE, db.info.dbname)
    with watched_server(url, tmp_path / "gunicorn.log") as (client, metrics):
        client.post("/api/holds", json={"product_id": 1, "qty": 1})
        yield [
            sample for family in text_string_to_metric_families(metrics.text()) for sample in family.samples
        ]


def test_series_are_those_of_the_server(exported: list[Any], db: psycopg.Connection) -> None:
    selectors = {selector for situation in [*FIRING, *QUIET] for selector in situation.series} - {UP}
    found = {(sample.name, frozenset(sample.labels.items())) for sample in exported}
    # A metric of the database that is absent until the sweep is scheduled.
    found.add(("flashsale_scheduler_lag_seconds", frozenset()))
    shapes = {(name, frozenset(key for key, _ in labels)) for name, labels in found}
    for selector in selectors:
        name, _, text = selector.rstrip("}").partition("{")
        pairs = [pair.partition("=") for pair in text.split(",") if pair]
        # A server of several databases has this label in addition (tests/shards/served/test_routing.py).
        labels = frozenset((key, value.strip('"')) for key, _, value in pairs if key != "shard")
        assert (name, frozenset(key for key, _ in labels)) in shapes, selector
        # All others have a first sample of 0, so that increase() does not miss the first event.
        if not name.startswith("flashsale_http_"):
            assert (name, labels) in found, selector


def test_each_alert_has_a_runbook() -> None:
    for rule in rules():
        path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert anchor in anchors(ROOT / path), rule["alert"]
        assert anchor == f"{rule['alert']}-{rule['labels']['severity']}".lower()


def test_the_interval_of_evaluation_is_that_of_the_guide() -> None:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    assert group["interval"] == "15s"
    guide = (ROOT / "docs/observability.md").read_text()
    assert "every 15 seconds" in " ".join(guide.split())
    assert "scrape_interval: 5s" in guide
