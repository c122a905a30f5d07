"""`flashsale rehearse`: a small one on the real server, and what it makes of a sale that went wrong."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
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
from tests.support.http import free_port, running_server
from tests.support.sale_steps import audit, create_product, one, place_hold
from tests.support.waiting import wait_until

SECRET = "whsec_" + "bmV3" * 8
SOME_OF_EACH = ["--impatient", 20, "--duplicated", 50, "--failing", 20, "--late", 10, "--early", 20]
NOBODY = ["--impatient", 0, "--duplicated", 0, "--failing", 0, "--late", 0, "--early", 0]

Rehearse = Callable[..., tuple[int, dict]]


@pytest.fixture(scope="module")
def server(
    shared: tuple[str, dict], cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """One for all tests here: the database it sells from is emptied before each."""
    url = cluster.url(APP_ROLE, conninfo_to_dict(shared[0])["dbname"])
    log = tmp_path_factory.mktemp("server") / "gunicorn.log"
    with running_server(url, log) as base:
        yield base
    assert "Traceback" not in log.read_text()


@pytest.fixture
def swift(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buyers who do not think for long."""
    monkeypatch.setattr("flashsale.rehearsal.buyers.SHORTEST_PAUSE", 0.01)
    monkeypatch.setattr("flashsale.rehearsal.buyers.LONGEST_PAUSE", 0.3)


@pytest.fixture
def rehearse(flashsale, server: str, swift: None, tmp_path: Path) -> Rehearse:
    """rehearse("--buyers", 60, …): exit code, and what it says as JSON."""

    def run(*options: object, **environment: str) -> tuple[int, dict]:
        result = flashsale(
            "rehearse", "--url", server, "--report", tmp_path / "r.html", "--json", *options, **environment
        )
        assert result.stdout, result.stderr
        return result.exit_code, json.loads(result.stdout)

    return run


def failed(told: dict) -> list[str]:
    return [check["name"] for check in told["checks"] if not check["held"]]


def rehearsed(db: psycopg.Connection) -> tuple[int, int, int]:
    """Units in all, available and paid of the throwaway product."""
    return db.execute(
        "select total_stock, available_stock, paid from flashsale.stock where starts_with(name, 'Rehearsal ')"
    ).fetchone()


def settings(db: psycopg.Connection) -> tuple[timedelta, timedelta]:
    return db.execute("select hold_time, payment_window from flashsale.settings").fetchone()


def test_a_crowd_buys_all_there_is_in_every_way(rehearse, db, tmp_path):
    other = create_product(db)
    code, told = rehearse("--buyers", 120, "--stock", 20, "--at-once", 8, *SOME_OF_EACH)
    assert failed(told) == []
    assert (code, told["held"]) == (0, True)
    assert told["units"] == {"stock": 20, "sold": 20, "awaiting": 0, "held": 0, "available": 0}
    assert sum(told["buyers"].values()) == 120
    assert told["buyers"]["bought one"] == 20
    assert rehearsed(db) == (20, 0, 20)
    assert one(db, "select available_stock from flashsale.get_product(%s)", other) == 10
    assert audit(db) == []
    assert "is there first, or at the same moment" in (tmp_path / "r.html").read_text()
    assert one(db, "select count(*) from flashsale.payments where currency <> 'XTS'") == 0
    assert {"look", "hold", "order", "webhook", "confirm"} <= told["calls"].keys()
    assert {"insufficient_stock"} <= {answer["code"] for answer in told["answers"]}
    page = (tmp_path / "r.html").read_text()
    assert "20 of 20 sold, every check held" in page
    assert page.count("<svg") == 6


def test_who_prints_to_a_terminal_gets_the_same_in_words(flashsale, server, swift, db, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = flashsale("rehearse", "--url", f"{server}/", "--buyers", 20, "--stock", 5)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("5 of 5 units sold to 20 buyers in ")
    assert sum(line.startswith("ok ") for line in lines) == 10
    assert "stays in the list, withdrawn. Report: rehearsal.html" in lines[-1]
    assert (tmp_path / "rehearsal.html").exists()
    assert "Traceback" not in result.stderr


def test_what_nobody_wanted_is_withdrawn(rehearse, db):
    code, told = rehearse("--buyers", 5, "--stock", 9, *NOBODY)
    assert (code, failed(told)) == (0, [])
    assert (told["units"]["sold"], told["units"]["available"]) == (5, 4)
    assert rehearsed(db) == (5, 0, 5)


def test_a_sale_that_nobody_here_made_is_found_and_undone(rehearse, connect, db):
    def interfere() -> None:
        with connect() as conn:
            query = "select product_id from flashsale.stock where starts_with(name, 'Rehearsal ')"
            wait_until(lambda: conn.execute(query).fetchone(), "there is a product")
            place_hold(conn, one(conn, query))

    stranger = threading.Thread(target=interfere)
    stranger.start()
    code, told = rehearse("--buyers", 20, "--stock", 1000, *NOBODY)
    stranger.join()
    assert (code, told["held"]) == (1, False)
    assert "every hold that was promised is in the ledger, and no other" in failed(told)
    assert rehearsed(db) == (20, 0, 20)


def test_webhooks_are_signed_and_a_server_that_does_not_believe_them_is_no_use(
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
        assert "does not believe these webhooks: set FLASHSALE_WEBHOOK_SECRETS" in refused.stderr
        assert rehearsed(db) is None
        assert run(SECRET).exit_code == 0


def test_holds_lapse_if_they_shall_and_the_settings_come_back(rehearse, db):
    before = settings(db)
    code, told = rehearse("--buyers", 30, "--stock", 8, "--lapse", 2, *NOBODY[2:], "--impatient", 40)
    assert (code, failed(told)) == (0, [])
    assert told["buyers"]["left"] > 0
    assert told["units"]["sold"] == 8
    assert settings(db) == before


class Rehearsal:
    """One that runs as a process of its own, with time to be stopped."""

    def __init__(self, database_url: str, server: str, *options: str) -> None:
        inherited = {n: value for n, value in os.environ.items() if not n.startswith("FLASHSALE_")}
        self.process = subprocess.Popen(
            [
                *[sys.executable, "-m", "flashsale", "rehearse", "--url", server, "--report", os.devnull],
                *["--buyers", "60000", "--stock", "60000", "--at-once", "4", "--early", "0", *options],
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
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said


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
def test_whoever_stops_it_leaves_nothing_on_sale(started, db, number):
    rehearsal = started()
    wait_until(lambda: (rehearsed(db) or [0, 0, 0])[2] > 0, "somebody has bought one")
    code, said = rehearsal.stop(number)
    assert code == 1
    assert "Traceback" not in said
    total, available, paid = rehearsed(db)
    assert (total, available) == (paid, 0)
    assert audit(db) == []


def test_killed_it_leaves_the_settings_as_they_were(started, db):
    before = settings(db)
    rehearsal = started("--lapse", "7")
    wait_until(lambda: settings(db) == (timedelta(seconds=7),) * 2, "the settings are short")
    rehearsal.stop(signal.SIGKILL)
    wait_until(lambda: settings(db) == before, "the settings are back")


def test_while_customers_buy_no_early_webhook_may_meet_their_orders(rehearse, db, tmp_path):
    place_hold(db, create_product(db))
    code, told = rehearse("--buyers", 20, "--stock", 10, "--early", 50)
    assert code == 0
    assert any("no early webhooks" in note for note in told["notes"])
    assert "is there first, or at the same moment" not in (tmp_path / "r.html").read_text()


def test_while_customers_buy_their_holds_are_not_shortened(flashsale, server, db, tmp_path):
    place_hold(db, create_product(db))
    before = settings(db)
    result = flashsale("rehearse", "--url", server, "--lapse", 2, "--report", tmp_path / "r.html")
    assert result.exit_code == 1
    assert "--lapse would shorten their holds, too" in result.stderr
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


def test_a_server_on_another_database_is_told_so(flashsale, server, another_database, tmp_path):
    result = flashsale(
        "rehearse", "--url", server, "--report", tmp_path / "r.html", FLASHSALE_DATABASE_URL=another_database
    )
    assert result.exit_code == 1
    assert "works on another database than this command" in result.stderr
    assert result.stderr.count("\n") == 1
    with psycopg.connect(another_database) as conn:
        assert rehearsed(conn) == (0, 0, 0)


@pytest.mark.parametrize("url", ["nonsense", "file:///etc/passwd", "http://", "http://127.0.0.1:x"])
def test_what_is_no_address_is_one_sentence(flashsale, url, tmp_path):
    result = flashsale("rehearse", "--url", url, "--report", tmp_path / "r.html")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


def test_a_server_that_is_away_is_one_sentence(flashsale, tmp_path):
    result = flashsale("rehearse", "--report", tmp_path / "r.html", FLASHSALE_PORT=str(free_port()))
    assert result.exit_code == 1
    assert result.stderr.endswith("; is the server up?\n")
    assert result.stderr.count("\n") == 1


def test_one_at_a_time(flashsale, server, db, tmp_path):
    db.execute("select pg_advisory_lock(5117346212000001)")
    result = flashsale("rehearse", "--url", server, "--report", tmp_path / "r.html")
    assert result.exit_code == 1
    assert "another rehearsal is under way" in result.stderr


def test_a_report_that_cannot_be_written_is_told_before_the_sale(flashsale, db, tmp_path):
    result = flashsale("rehearse", "--report", tmp_path / "nowhere" / "r.html")
    assert result.exit_code == 1
    assert "cannot write" in result.stderr
    assert rehearsed(db) is None


def test_without_its_libraries_it_says_how_to_come_by_them(flashsale, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("flashsale.rehearsal.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    result = flashsale("rehearse")
    assert result.exit_code == 1
    assert result.stderr.endswith("run: bin/bootstrap rehearse\n")


@pytest.mark.parametrize(
    "options",
    [
        ["--buyers", 0],
        ["--stock", 0],
        ["--at-once", 0],
        ["--lapse", 1],
        ["--early", 101],
        ["--impatient", 60, "--failing", 41],
        ["--seed", -1],
    ],
)
def test_what_is_not_understood_exits_with_2(flashsale, options):
    assert flashsale("rehearse", *options).exit_code == 2
