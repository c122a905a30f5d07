"""The server's log: one JSON object a line, all unusual requests, and a rate limit."""

import io
import json
import logging
import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from gunicorn.config import Config

from api.telemetry import metrics
from api.telemetry.logging import MAX_LINES_PER_SECOND, JsonFormatter, Logger, RateLimitFilter, TextFormatter
from api.telemetry.reporter import Reporter
from tests.support import ROOT
from tests.support.metrics_scrape import watched_server
from tests.support.waiting import wait_until


def lines(log: Path) -> list[dict[str, Any]]:
    """Every line there is; one that is no JSON object fails the test."""
    return [json.loads(line) for line in log.read_text().splitlines()]


def about(log: Path, request_id: str) -> list[dict[str, Any]]:
    return [line for line in lines(log) if line.get("request_id") == request_id]


def test_a_replay_is_logged_with_its_request_id_and_ordinary_requests_are_not(
    client: httpx.Client, tmp_path: Path
) -> None:
    log = tmp_path / "gunicorn.log"
    for request_id in ("first", "second"):
        headers = {"Idempotency-Key": "cart-7", "X-Request-ID": request_id}
        hold = client.post("/api/holds", json={"product_id": 1, "qty": 1}, headers=headers).json()
    refused = {"X-Request-ID": "refused"}
    assert client.post("/api/holds", json={"product_id": 2, "qty": 1}, headers=refused).status_code == 404
    wait_until(lambda: about(log, "second"), "it is in the log")
    (line,) = about(log, "second")
    assert datetime.now(UTC) >= datetime.fromisoformat(line.pop("time"))
    assert line.pop("pid") > 1
    assert line.pop("duration_ms") > 0
    assert line == {
        "level": "info",
        "logger": "flashsale.access",
        "message": "request was a replay",
        "request_id": "second",
        "method": "POST",
        "route": "/api/holds",
        "status": 201,
        "replayed": True,
    }
    assert about(log, "first") == about(log, "refused") == []
    assert str(hold["hold_id"]) not in log.read_text()


def test_contention_is_logged_with_retries_and_time(
    client: httpx.Client, connect: Callable[..., psycopg.Connection], tmp_path: Path
) -> None:
    log = tmp_path / "gunicorn.log"
    operator = connect(autocommit=False)
    operator.execute("select from flashsale_data.stock for update")
    with ThreadPoolExecutor(1) as thread:
        headers = {"X-Request-ID": "contended"}
        waiting = thread.submit(client.post, "/api/holds", json={"product_id": 1, "qty": 1}, headers=headers)
        wait_until(
            lambda: any("rolled back and is retried" in line["message"] for line in lines(log)),
            "it met the lock",
        )
        operator.rollback()
        status = waiting.result().status_code
    wait_until(lambda: about(log, "contended"), "it is in the log")
    (line,) = about(log, "contended")
    assert line["status"] == status
    assert line["retries"] >= 1
    assert 0 < line["contended_ms"] <= line["duration_ms"]


def test_a_failed_request_is_logged_with_its_code(
    client: httpx.Client, connect: Callable[..., psycopg.Connection], tmp_path: Path
) -> None:
    log = tmp_path / "gunicorn.log"
    operator = connect(autocommit=False)
    operator.execute("select from flashsale_data.stock for update")
    headers = {"X-Request-ID": "unserved"}
    refused = client.post("/api/holds", json={"product_id": 1, "qty": 1}, headers=headers)
    operator.rollback()
    assert refused.status_code == 503
    wait_until(lambda: about(log, "unserved"), "it is in the log")
    (line,) = about(log, "unserved")
    assert (line["level"], line["message"]) == ("warning", "request failed")
    assert (line["status"], line["code"]) == (503, "busy")
    (example,) = re.findall(r"```json\n(.*)\n```", (ROOT / "docs/observability.md").read_text())
    assert list(line) == list(json.loads(example)), "the guide shows such a line"


def test_at_debug_level_every_request_is_logged(
    db: psycopg.Connection, database_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "debug.log"
    with watched_server(database_url, log, GUNICORN_CMD_ARGS="--log-level debug") as (client, _):
        for number in range(3 * MAX_LINES_PER_SECOND):
            client.get("/healthz", headers={"X-Request-ID": f"all-{number}"})
        wait_until(lambda: about(log, f"all-{3 * MAX_LINES_PER_SECOND - 1}"), "the last is in the log")
        assert all(about(log, f"all-{number}") for number in range(3 * MAX_LINES_PER_SECOND))


def record(**more: Any) -> logging.LogRecord:
    return logging.makeLogRecord(
        {"name": "flashsale.api", "msg": "so it is: %s", "args": ("so",), "levelno": logging.INFO,
         "levelname": "INFO", "created": 1736678642.187, **more}
    )  # fmt: skip


def test_a_line_has_its_fields_and_the_traceback() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        text = JsonFormatter().format(record(exc_info=sys.exc_info(), route="/a", odd={1}))
    assert "\n" not in text
    line = json.loads(text)
    assert line["time"] == "2025-01-12T10:44:02.187Z"
    assert (line["level"], line["message"], line["route"]) == ("info", "so it is: so", "/a")
    assert "ValueError: two\nlines" in line["exception"]


def test_text_for_a_terminal() -> None:
    text = TextFormatter().format(record(route="/a", code=None))
    assert text.endswith("[INFO] so it is: so route=/a")


def test_a_summary_is_logged_if_anything_was_unusual(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flashsale.reporter")
    reporter = Reporter(lambda: (0, 0, 0))
    metrics.responses.observe("POST", "/api/holds", "409 Conflict", 0.01)
    metrics.problems.by_labels[("insufficient_stock",)] += 1
    metrics.flush()
    reporter.log_summary()
    assert caplog.records == [], "refusals are ordinary"
    metrics.replays.by_labels[("/api/holds",)] += 2
    metrics.problems.by_labels[("busy",)] += 1
    metrics.responses.observe("POST", "/api/holds", "503 Service Unavailable", 1.0)
    metrics.flush()
    reporter.log_summary()
    (line,) = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    summary = {name: line[name] for name in ("requests", "failed_requests", "replays", "problem_busy")}
    assert summary == {"requests": 1, "failed_requests": 1, "replays": 2, "problem_busy": 1}
    assert "problem_insufficient_stock" not in line
    reporter.log_summary()
    assert len(caplog.records) == 1


@pytest.mark.parametrize("level", [logging.INFO, logging.ERROR])
def test_the_rate_limit_drops_and_counts_lines_of_one_kind(level: int) -> None:
    limit = RateLimitFilter()
    passed = [limit.filter(record(levelno=level, args=(n,))) for n in range(MAX_LINES_PER_SECOND + 5)]
    assert passed == [True] * MAX_LINES_PER_SECOND + [False] * 5
    assert limit.dropped == 5
    assert limit.filter(record(levelno=level, msg="another")), "each kind has its own limit"
    assert limit.filter(record(levelno=level, code="busy")), "so has each code"
    assert limit.filter(record(levelno=level, created=1736678643.0)), "so has the next second"


def test_the_format_depends_on_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, formatter in ((Terminal(), TextFormatter), (io.StringIO(), JsonFormatter)):
        monkeypatch.setattr(sys, "stderr", stream)
        (handler,) = Logger(Config()).error_log.handlers
        assert isinstance(handler.formatter, formatter)
