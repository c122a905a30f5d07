"""`flashsale rehearse` on a real server, and its reaction to errors."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from click.testing import Result
from psycopg.conninfo import conninfo_to_dict
from pytest_postgresql.janitor import DatabaseJanitor

from flashsale.database.seed import APP_ROLE
from flashsale.local.cluster import Cluster
from tests.support import ROOT
from tests.support.buyer_tokens import HS256
from tests.support.http import free_port, running_server
from tests.support.sale_steps import audit, create_product, one, place_hold
from tests.support.waiting import wait_until

SECRET = "whsec_" + "bmV3" * 8
ALL_BEHAVIOURS = [
    *["--impatient", 20, "--duplicated", 50, "--failing", 20, "--declined", 10, "--twice", 10, "--late", 10],
    *["--early", 20, "--cancelled", 25],
]
PAYING_ONLY = [
    *["--impatient", 0, "--duplicated", 0, "--failing", 0, "--declined", 0, "--twice", 0, "--late", 0],
    *["--early", 0, "--cancelled", 0],
]
DROP = ["--limit", 2, "--starts-in", "3s", "--bots", "40%"]

MONEY = "captured = kept by paid orders + refunds due + refunded"
REPEATS = "duplicate requests took effect once and got the same response"
NOT_EARLY = "early requests are refused, no hold is placed before the start"
OPENED = "the sale opens within 1 s of its start"
LIMIT = "no buyer has more than the limit at any instant"
AUDIT = "audit() finds no violated invariant"

Rehearse = Callable[..., tuple[int, dict]]


@pytest.fixture(scope="module")
def server(
    shared: tuple[str, dict], cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """One for all tests of this file; its database is emptied before each."""
    url = cluster.url(APP_ROLE, conninfo_to_dict(shared[0])["dbname"])
    log = tmp_path_factory.mktemp("server") / "gunicorn.log"
    with running_server(url, log) as base:
        yield base
    assert "Traceback" not in log.read_text()


@pytest.fixture
def swift(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buyers with short pauses."""
    monkeypatch.setattr("flashsale.rehearsal.buyers.MIN_PAUSE", 0.01)
    monkeypatch.setattr("flashsale.rehearsal.buyers.MAX_PAUSE", 0.3)


@pytest.fixture
def rehearse(flashsale, server: str, swift: None, tmp_path: Path) -> Rehearse:
    """rehearse("--buyers", 60, …): exit code and JSON output."""

    def run(*options: object, **environment: str) -> tuple[int, dict]:
        result = flashsale(
            "rehearse", "--url", server, "--report", tmp_path / "r.html", "--json", *options, **environment
        )
        assert result.stdout, result.stderr
        return result.exit_code, json.loads(result.stdout)

    return run


def failed(result: dict) -> list[str]:
    return [check["name"] for check in result["checks"] if not check["passed"]]


def rehearsed(db: psycopg.Connection) -> tuple[int, int, int]:
    """StockLevels in all, available and paid of the throwaway product, while there is one."""
    return db.execute(
        "select total_stock, available_stock, paid from flashsale.list_stock(p_tests => true)"
        " where is_test and starts_with(name, 'Rehearsal ')"
    ).fetchone()


def books(db: psycopg.Connection) -> dict[str, list]:
    """All rows of the tables that a sale changes."""
    return {
        name: db.execute(f"select t::text from flashsale_data.{name} t order by 1").fetchall()
        for name in (
            *("products", "stock", "lapses", "holds", "orders", "payments", "inbox", "events"),
            *("ledger_carried", "operations", "rejected_webhooks", "refunds", "claims"),
        )
    }


def settings(db: psycopg.Connection) -> tuple[timedelta, timedelta]:
    return db.execute("select hold_time, payment_window from flashsale.settings").fetchone()


def test_buyers_of_every_behaviour_buy_the_whole_stock(rehearse, db, tmp_path):
    other = create_product(db)
    code, result = rehearse("--buyers", 120, "--stock", 20, "--concurrency", 8, *ALL_BEHAVIOURS, "--keep")
    assert failed(result) == []
    assert (code, result["passed"]) == (0, True)
    assert result["units"] == {"stock": 20, "sold": 20, "awaiting": 0, "held": 0, "available": 0}
    assert sum(result["outcomes"].values()) == 120
    assert result["outcomes"]["bought"] == 20
    assert result["outcomes"]["cancelled by the shop, refund due"] > 0, "and sold again"
    assert result["refunds"]["made"] > result["refunds"]["due"] > 0
    assert result["opening"] is None and result["bots"] is None
    assert rehearsed(db) == (20, 0, 20)
    assert one(db, "select available_stock from flashsale.get_product(%s)", other) == 10
    assert audit(db) == []
    assert "arrives before the order or concurrently" in (tmp_path / "r.html").read_text()
    assert one(db, "select count(*) from flashsale.payments") == 0
    assert one(db, "select count(*) from flashsale.test_payments where currency <> 'XTS'") == 0
    assert one(db, "select count(*) from flashsale.refunds_due") == 0
    results = set(db.execute("select status, result from flashsale.test_payments").fetchall())
    assert {("success", "applied"), ("success", "refund_due"), ("declined", "no_change")} <= results
    statuses = "select array_agg(distinct status order by status) from flashsale.refunds"
    assert one(db, statuses) == ["done", "failed"]
    assert one(db, "select count(*) from flashsale.read_events(0, 1000)") == 1, "of the other product"
    assert {"view", "hold", "order", "webhook", "confirm"} <= result["operations"].keys()
    assert {"insufficient_stock"} <= {response["code"] for response in result["responses"]}
    page = (tmp_path / "r.html").read_text()
    assert "20 of 20 sold, all checks passed" in page
    assert page.count("<svg") == 6


def test_it_leaves_no_trace_in_the_books(rehearse, db):
    place_hold(db, create_product(db))
    db.execute("update flashsale_data.events set at = at - interval '1 minute'")
    before = books(db)
    code, result = rehearse("--buyers", 60, "--stock", 20, *ALL_BEHAVIOURS, "--limit", 1)
    assert (code, failed(result)) == (0, [])
    assert result["units"]["sold"] == 20
    assert books(db) == before


def test_without_json_it_prints_a_summary(flashsale, server, swift, db, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = flashsale("rehearse", "--url", f"{server}/", "--buyers", 20, "--stock", 5)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("5 of 5 units sold to 20 buyers in ")
    assert sum(line.startswith("ok ") for line in lines) == 10
    assert lines[-1].endswith("and all that was sold of it are removed. Report: rehearsal.html")
    assert rehearsed(db) is None
    assert (tmp_path / "rehearsal.html").exists()
    assert "Traceback" not in result.stderr


def test_unsold_units_are_withdrawn(rehearse, db):
    code, result = rehearse("--buyers", 5, "--stock", 9, *PAYING_ONLY, "--keep")
    assert (code, failed(result)) == (0, [])
    assert (result["units"]["sold"], result["units"]["available"]) == (5, 4)
    assert rehearsed(db) == (5, 0, 5)


def test_a_foreign_hold_fails_a_check_and_is_withdrawn(rehearse, connect, db):
    def interfere() -> None:
        with connect() as conn:
            query = "select product_id from flashsale.list_stock(true) where starts_with(name, 'Rehearsal ')"
            wait_until(lambda: conn.execute(query).fetchone(), "there is a product")
            place_hold(conn, one(conn, query))

    thread = threading.Thread(target=interfere)
    thread.start()
    code, result = rehearse("--buyers", 20, "--stock", 1000, *PAYING_ONLY, "--keep")
    thread.join()
    assert (code, result["passed"]) == (1, False)
    assert "the ledger has exactly the acknowledged holds" in failed(result)
    assert rehearsed(db) == (20, 0, 20)


@pytest.mark.parametrize("keys", ["", HS256], ids=["named", "signed"])
def test_a_drop_opens_at_its_instant_and_keeps_the_limit(rehearse, db, tmp_path, keys):
    arguments = ["--buyers", 150, "--stock", 30, "--concurrency", 8, *ALL_BEHAVIOURS, *DROP, "--keep"]
    code, result = rehearse(*arguments, FLASHSALE_BUYER_KEYS=keys)
    assert failed(result) == []
    assert (code, len(result["checks"])) == (0, 13)
    assert result["units"]["sold"] == 30
    assert sum(result["outcomes"].values()) == 90, "of the buyers who are not bots"
    opening, bots = result["opening"], result["bots"]
    assert 0 <= opening["first_hold_after_seconds"] < 1
    assert opening["early_requests_refused"] > opening["of_bots"] > 0
    assert (bots["bots"], bots["accounts"]) == (60, 2)
    assert bots["requests"] > 60 and bots["limit_reached"] > 0
    assert 0 <= bots["units_bought"] <= 4
    assert any("let this command name the buyers" in note for note in result["notes"]) is not bool(keys)
    assert "Start and bots" in (tmp_path / "r.html").read_text()
    names = "select array_agg(distinct split_part(buyer, '-', 3)) from flashsale_data.holds"
    assert set(one(db, names)) == {"buyer", "bots"}
    assert audit(db) == []


def test_bots_without_a_limit_take_what_they_can(rehearse, db):
    code, result = rehearse("--buyers", 40, "--stock", 30, "--concurrency", 8, *PAYING_ONLY, "--bots", 50)
    assert (code, failed(result)) == (0, [])
    assert result["opening"] is None
    assert result["bots"]["limit_reached"] == 0
    assert result["bots"]["units_bought"] > 2


@contextmanager
def broken(db: psycopg.Connection, function: str, code: str, replacement: str) -> Iterator[None]:
    """A function of the database with an error in it."""
    definition = one(db, "select pg_get_functiondef(%s::regproc)", function)
    assert definition.count(code) == 1
    db.execute(definition.replace(code, replacement))
    try:
        yield
    finally:
        db.execute(definition)


@pytest.mark.parametrize(
    ("function", "code", "replacement", "expected"),
    [
        (
            "flashsale_data.sale_status",
            "p_starts_at > p_now then",
            "p_starts_at > p_now + interval '0.3 s' then",
            {NOT_EARLY},
        ),
        (
            "flashsale_data.sale_status",
            "p_starts_at > p_now then",
            "p_starts_at > p_now - interval '1.5 s' then",
            {OPENED},
        ),
        (
            "flashsale.place_holds",
            "> v_max_per_buyers[v_slot] - v_taken[v_claim_slot] then",
            "> v_max_per_buyers[v_slot] then",
            {LIMIT, AUDIT},
        ),
        (
            "flashsale_data.cancel_locked_orders",
            "where t.was_paid -- guard: cancelled-is-refunded",
            "where not t.was_paid",
            {MONEY, AUDIT},
        ),
        (
            "flashsale.record_refunds",
            "v_known.status = p_statuses[v_i] or v_known.status = 'failed' then",
            "v_known.status = 'failed' then",
            {MONEY, REPEATS, AUDIT},
        ),
    ],
    ids=["opens-early", "opens-late", "no-limit", "cancelled-not-refunded", "refunded-twice"],
)
def test_each_check_of_a_drop_fails_on_a_broken_database(rehearse, db, function, code, replacement, expected):
    """A control of the checks: without these errors they pass, see above."""
    arguments = ["--buyers", 150, "--stock", 30, "--concurrency", 8, *ALL_BEHAVIOURS, *DROP]
    with broken(db, function, code, replacement):
        exit_code, result = rehearse(*arguments)
    assert exit_code == 1
    assert set(failed(result)) == expected


def test_a_server_that_does_not_know_the_buyers_is_refused(flashsale, db, cluster, swift, tmp_path):
    url = cluster.url(APP_ROLE, db.info.dbname)
    with running_server(url, tmp_path / "gunicorn.log", FLASHSALE_TRUST_BUYER="0") as base:

        def run(keys: str) -> Result:
            arguments = ["--buyers", 10, "--stock", 5, "--limit", 1, "--report", tmp_path / "r.html"]
            return flashsale("rehearse", "--url", base, *arguments, FLASHSALE_BUYER_KEYS=keys)

        refused = run("")
        assert refused.exit_code == 1
        assert "set FLASHSALE_BUYER_KEYS to its value, with an hs256 key" in refused.stderr
        refused = run("hs256:" + "b3RoZXJz" * 8)
        assert refused.exit_code == 1
        assert "rejects the tokens of this command: No configured key matches" in refused.stderr
        refused = run("hs256:short")
        assert refused.exit_code == 1
        assert "key 1 in FLASHSALE_BUYER_KEYS must be hs256:" in refused.stderr
        assert rehearsed(db) is None
        assert run(HS256).exit_code == 0


def test_webhooks_are_signed_and_a_server_with_another_secret_is_refused(
    flashsale, db, cluster, swift, tmp_path
):
    environment = {"FLASHSALE_WEBHOOK_SECRETS": SECRET, "FLASHSALE_ALLOW_UNSIGNED_WEBHOOKS": "0"}
    url = cluster.url(APP_ROLE, db.info.dbname)
    with running_server(url, tmp_path / "gunicorn.log", **environment) as base:

        def run(secret: str) -> Result:
            arguments = ["--buyers", 10, "--stock", 5, "--report", tmp_path / "r.html"]
            return flashsale("rehearse", "--url", base, *arguments, FLASHSALE_WEBHOOK_SECRETS=secret)

        refused = run("")
        assert refused.exit_code == 1
        assert "rejects webhooks of this command: set FLASHSALE_WEBHOOK_SECRETS" in refused.stderr
        assert rehearsed(db) is None
        assert run(SECRET).exit_code == 0
        assert one(db, "select count(*) from flashsale.rejected_webhooks") == 0


def test_lapse_after_shortens_the_settings_and_restores_them(rehearse, db):
    before = settings(db)
    code, result = rehearse("--buyers", 30, "--stock", 8, "--lapse-after", 2, *PAYING_ONLY, "--impatient", 40)
    assert (code, failed(result)) == (0, [])
    assert result["outcomes"]["left"] > 0
    assert result["units"]["sold"] == 8
    assert settings(db) == before


class Rehearsal:
    """A rehearsal in a process of its own, long enough to be interrupted."""

    def __init__(self, database_url: str, server: str, *options: str) -> None:
        inherited = {n: value for n, value in os.environ.items() if not n.startswith("FLASHSALE_")}
        self.process = subprocess.Popen(
            [
                *[sys.executable, "-m", "flashsale", "rehearse", "--url", server, "--report", os.devnull],
                *["--buyers", "60000", "--stock", "60000", "--concurrency", "4", "--early", "0", *options],
            ],
            cwd=ROOT,
            env=inherited | {"FLASHSALE_DATABASE_URL": database_url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def stop(self, number: int) -> tuple[int, str]:
        self.process.send_signal(number)
        _, stderr = self.process.communicate(timeout=60)
        return self.process.returncode, stderr


@pytest.fixture
def started(server: str, database_url: str) -> Iterator[Callable[..., Rehearsal]]:
    made: list[Rehearsal] = []

    def start(*options: str) -> Rehearsal:
        made.append(Rehearsal(database_url, server, *options))
        return made[-1]

    yield start
    for rehearsal in made:
        rehearsal.process.kill()
        rehearsal.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_rehearsal_removes_the_product(started, db, number):
    rehearsal = started()
    wait_until(lambda: (rehearsed(db) or [0, 0, 0])[2] > 0, "a unit is sold")
    code, stderr = rehearsal.stop(number)
    assert code == 1
    assert "Traceback" not in stderr
    assert rehearsed(db) is None
    assert audit(db) == []


def test_an_interrupted_rehearsal_withdraws_a_product_that_is_kept(started, db):
    rehearsal = started("--keep")
    wait_until(lambda: (rehearsed(db) or [0, 0, 0])[2] > 0, "a unit is sold")
    code, stderr = rehearsal.stop(signal.SIGINT)
    assert code == 1
    assert "Traceback" not in stderr
    total, available, paid = rehearsed(db)
    assert (total, available) == (paid, 0)
    assert audit(db) == []


def test_a_killed_rehearsal_restores_the_settings(started, db):
    before = settings(db)
    rehearsal = started("--lapse-after", "7")
    wait_until(lambda: settings(db) == (timedelta(seconds=7),) * 2, "the settings are short")
    rehearsal.stop(signal.SIGKILL)
    wait_until(lambda: settings(db) == before, "the settings are back")


def test_no_early_webhooks_are_sent_while_customers_buy(rehearse, db, tmp_path):
    place_hold(db, create_product(db))
    code, result = rehearse("--buyers", 20, "--stock", 10, "--early", 50)
    assert code == 0
    assert any("No early webhooks" in note for note in result["notes"])
    assert "arrives before the order or concurrently" not in (tmp_path / "r.html").read_text()


def test_lapse_after_is_refused_while_customers_buy(flashsale, server, db, tmp_path):
    place_hold(db, create_product(db))
    before = settings(db)
    result = flashsale("rehearse", "--url", server, "--lapse-after", 2, "--report", tmp_path / "r.html")
    assert result.exit_code == 1
    assert "--lapse-after would shorten their holds, too" in result.stderr
    assert settings(db) == before
    assert rehearsed(db) is None


@pytest.fixture
def another_database(template, cluster) -> Iterator[str]:
    name = "flashsale_another"
    with DatabaseJanitor(
        user=template.user, host=template.host, port=template.port, dbname=name,
        template_dbname=template.template_dbname,
    ):  # fmt: skip
        yield cluster.url(template.user, name)


def test_a_server_on_another_database_is_refused(flashsale, server, another_database, tmp_path):
    result = flashsale(
        "rehearse", "--url", server, "--report", tmp_path / "r.html", FLASHSALE_DATABASE_URL=another_database
    )
    assert result.exit_code == 1
    assert "uses another database than this command" in result.stderr
    assert result.stderr.count("\n") == 1
    with psycopg.connect(another_database) as conn:
        assert rehearsed(conn) is None


@pytest.mark.parametrize("url", ["nonsense", "file:///etc/passwd", "http://", "http://127.0.0.1:x"])
def test_an_invalid_url_is_a_one_line_error(flashsale, url, tmp_path):
    result = flashsale("rehearse", "--url", url, "--report", tmp_path / "r.html")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


def test_an_unreachable_server_is_a_one_line_error(flashsale, tmp_path):
    result = flashsale("rehearse", "--report", tmp_path / "r.html", FLASHSALE_PORT=str(free_port()))
    assert result.exit_code == 1
    assert result.stderr.endswith("; is the server running?\n")
    assert result.stderr.count("\n") == 1


def test_one_rehearsal_at_a_time(flashsale, server, db, tmp_path):
    db.execute("select pg_advisory_lock(5117346212000001)")
    result = flashsale("rehearse", "--url", server, "--report", tmp_path / "r.html")
    assert result.exit_code == 1
    assert "another rehearsal is running" in result.stderr


def test_an_unwritable_report_is_an_error_before_the_sale(flashsale, db, tmp_path):
    result = flashsale("rehearse", "--report", tmp_path / "nowhere" / "r.html")
    assert result.exit_code == 1
    assert "cannot write" in result.stderr
    assert rehearsed(db) is None


def test_without_its_dependencies_the_error_names_the_extra(flashsale, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("flashsale.rehearsal.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    result = flashsale("rehearse")
    assert result.exit_code == 1
    assert result.stderr.endswith("in a checkout: bin/bootstrap rehearse\n")


@pytest.mark.parametrize(
    "options",
    [
        ["--buyers", 0],
        ["--stock", 0],
        ["--concurrency", 0],
        ["--lapse-after", 1],
        ["--early", 101],
        ["--impatient", 60, "--failing", 41],
        ["--impatient", 60, "--declined", 20, "--twice", 21],
        ["--limit", 0],
        ["--starts-in", 5],
        ["--starts-in", "1s"],
        ["--bots", "101%"],
        ["--seed", -1],
    ],
)
def test_wrong_usage_exits_with_2(flashsale, options):
    assert flashsale("rehearse", *options).exit_code == 2
