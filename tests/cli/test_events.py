"""`flashsale events`: the ledger as an outbox."""

import json
import os
import signal
import subprocess
import sys

from flashsale.cli import events as command
from tests.support import ROOT
from tests.support.sale_steps import audit, create_product, one, order, pay, place_hold, place_many
from tests.support.waiting import wait_until


def ids(printed):
    return [json.loads(line)["event_id"] for line in printed.splitlines()]


class Following:
    """`flashsale events --follow --json`, and its output so far."""

    def __init__(self, url, log, *options):
        self.log = log
        with log.open("wb") as output, (log.with_suffix(".err")).open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flashsale", "events", "--follow", "--json", *options],
                cwd=ROOT,
                env=os.environ | {"FLASHSALE_DATABASE_URL": url},
                stdout=output,
                stderr=errors,
            )

    def ids(self):
        return ids(self.log.read_text())

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()


def test_each_event_is_one_line(flashsale, db):
    product = create_product(db, stock=10)
    pay(db, order(db, product, 2), key="pay\x1b[2J")
    lines = flashsale("events").stdout.splitlines()
    assert [line.split()[3] for line in lines] == [
        "product_created",
        "hold_placed",
        "order_created",
        "order_paid",
    ]
    assert "+10  product 1" in lines[0] and "-2  product 1  hold " in lines[1]
    assert lines[3].endswith("order 1  payment pay\\x1b[2J")


def test_each_json_line_has_every_column(flashsale, db):
    create_product(db, stock=10)
    event = json.loads(flashsale("events", "--json").stdout)
    assert event.pop("at").endswith("Z")
    assert event == {
        "event_id": 1, "kind": "product_created", "product_id": 1, "hold_id": None, "order_id": None,
        "payment_key": None, "available_delta": 10, "data": None, "is_test": False,
    }  # fmt: skip


def test_after_resumes_behind_an_event(flashsale, db):
    product = create_product(db)
    for _ in range(3):
        place_hold(db, product)
    assert ids(flashsale("events", "--json", "--after", 2).stdout) == [3, 4]
    assert flashsale("events", "--after", 4).stdout == ""


def test_a_long_ledger_is_read_in_pages(flashsale, db, monkeypatch):
    monkeypatch.setattr(command, "PAGE_SIZE", 7)
    place_many(db, create_product(db, stock=100), 40)
    assert ids(flashsale("events", "--json").stdout) == list(range(1, 42))


def test_it_reads_in_read_committed_if_the_default_is_serializable(flashsale, db):
    create_product(db)
    db.execute(f"alter database {db.info.dbname} set default_transaction_isolation to serializable")
    try:
        assert flashsale("events").exit_code == 0
    finally:
        db.execute(f"alter database {db.info.dbname} reset default_transaction_isolation")


def test_follow_skips_no_event_that_commits_late(db, connect, database_url, tmp_path):
    one_product, other = create_product(db), create_product(db)
    following = Following(database_url, tmp_path / "events")
    try:
        wait_until(lambda: following.ids() == [1, 2], "it has read what there is")
        late = connect(autocommit=False)
        place_hold(late, one_product)
        place_hold(db, other)
        assert one(db, "select max(event_id) from flashsale_data.events") == 4
        late.commit()
        wait_until(lambda: len(following.ids()) == 4, "it has read both")
        assert following.ids() == [1, 2, 3, 4]
    finally:
        assert following.stop() == 0


def test_follow_reconnects(db, database_url, tmp_path):
    product = create_product(db)
    following = Following(database_url, tmp_path / "events")
    try:
        for count in (2, 3):
            place_hold(db, product)
            wait_until(lambda count=count: len(following.ids()) == count, "it has read the hold")
            gone = db.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 'flashsale events'"
            )
            assert gone.fetchall() == [(True,)]
        place_hold(db, product)
        wait_until(lambda: len(following.ids()) == 4, "it has read the last hold")
        assert following.ids() == [1, 2, 3, 4]
        assert "retrying" in (tmp_path / "events.err").read_text()
    finally:
        assert following.stop() == 0
    assert audit(db) == []


def test_a_closed_pipe_is_not_an_error(db, database_url):
    place_many(db, create_product(db, stock=900), 900)
    done = subprocess.run(
        f"{sys.executable} -m flashsale events | head -n 1",
        shell=True, cwd=ROOT, text=True, capture_output=True,
        env=os.environ | {"FLASHSALE_DATABASE_URL": database_url},
    )  # fmt: skip
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_events_of_test_products_are_printed_on_request(flashsale, db):
    create_product(db)
    create_product(db, is_test=True)
    assert [json.loads(line)["product_id"] for line in flashsale("events", "--json").stdout.splitlines()] == [
        1
    ]
    real, test = flashsale("events", "--tests").stdout.splitlines()
    assert (real.endswith("product 1"), test.endswith("product 2  test")) == (True, True)
