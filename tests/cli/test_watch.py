"""`flashsale watch`."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.cli.test_cli import in_terminal
from tests.support import ROOT
from tests.support.sale_steps import create_product, one, order, pay, place_hold
from tests.support.waiting import wait_until


class Screen:
    """`flashsale watch` on a pseudo-terminal, and its output so far."""

    def __init__(self, url, *options):
        self.shown = ""
        ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flashsale", "watch", "--interval", "0.1", *options],
            cwd=ROOT,
            env=os.environ
            | {"FLASHSALE_DATABASE_URL": url, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self.reader = threading.Thread(target=self._read, args=(ours,), daemon=True)
        self.reader.start()

    def _read(self, ours):
        try:
            while more := os.read(ours, 65536):
                self.shown += more.decode(errors="replace")
        except OSError:  # EIO: the process has closed the terminal
            pass
        os.close(ours)

    def stop(self, number: int) -> int:
        """Send a signal; returns the exit status after all output has been read."""
        self.process.send_signal(number)
        status = self.process.wait(20)
        self.reader.join(20)
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def sale(db):
    """A product with 10 units, of which 2 are held, 3 await payment and 4 are paid, and a refund due."""
    product = create_product(db, stock=10)
    place_hold(db, product, 2)
    order(db, product, 3)
    paid = order(db, product, 4)
    pay(db, paid)
    pay(db, paid)
    # In the future, so that the events count as recent on a slow machine, too.
    db.execute("update flashsale_data.events set at = at + interval '1 hour'")
    return product


@pytest.fixture
def screen(database_url: str) -> Iterator[Screen]:
    with closing(Screen(database_url)) as shown:
        yield shown


def test_once_prints_one_snapshot(flashsale, sale):
    result = flashsale("watch", "--once")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["1", "Sneaker", "10", "1", "2", "3", "4", "0.3", "0.1", "open"] in lines
    assert ["refunds", "due", "396.00", "USD", "in", "1"] in lines
    assert any(line[:1] == ["scheduler"] for line in lines)


def test_rejected_webhooks_are_shown_while_they_stand(flashsale, db, sale):
    assert "rejected" not in flashsale("watch", "--once").stdout
    db.execute("select flashsale.record_rejected_webhook('msg_1', '{', 'malformed_json', 'No JSON.')")
    assert "rejected     1, the oldest since" in flashsale("watch", "--once").stdout
    assert json.loads(flashsale("watch", "--once", "--json").stdout)["rejected_webhooks"]["webhooks"] == 1


def test_a_json_snapshot_is_one_line(flashsale, sale):
    snapshot = json.loads(flashsale("watch", "--once", "--json").stdout)
    assert snapshot["products"][0] | {"name": "", "product_id": 0} == {
        "product_id": 0, "name": "", "total_stock": 10, "available_stock": 1, "held": 2,
        "awaiting": 3, "paid": 4, "holds_per_second": "0.3", "orders_per_second": "0.2",
        "paid_per_second": "0.1", "sale_status": "open", "starts_at": None, "ends_at": None,
        "max_per_buyer": None, "now": snapshot["products"][0]["now"],
    }  # fmt: skip
    assert snapshot["refunds_due"] == [
        {"currency": "USD", "payments": 1, "amount": "396.00", "without_amount": 0}
    ]
    assert snapshot["scheduler"]["status"] in ("not_scheduled", "not_installed")
    assert snapshot["at"].endswith("Z")


def test_the_terms_are_shown_with_the_time_that_is_left(flashsale, db, sale):
    def shown():
        (line,) = [line for line in flashsale("watch", "--once").stdout.splitlines() if "Sneaker" in line]
        return line.rpartition("0.1")[2].strip()

    for terms, said in (
        ("now() + interval '150 minutes', now() + interval '5 days', 2", "opens in 2 h, limit 2"),
        ("'-infinity', p_max_per_buyer => 0", "open, ends in 5 d"),
        ("p_ends_at => now()", "ended"),
    ):
        db.execute(f"select flashsale.change_terms(array[%s::bigint], {terms})", (sale,))
        assert shown() == said
    db.execute("select flashsale.change_terms(array[%s::bigint], p_ends_at => 'infinity')", (sale,))
    db.execute("select flashsale.pause_sale(array[%s::bigint])", (sale,))
    assert shown() == "paused"


def test_refunds_without_an_amount_are_shown_in_their_currency(flashsale, db, sale):
    for payload in ({"currency": "JPY"}, {"currency": "EUR"}, {"amount": "5.00", "currency": "EUR"}):
        pay(db, order(db, sale, 1), **payload)
        db.execute("select flashsale.adjust_stock(%s, 1)", (sale,))
    (line,) = [line for line in flashsale("watch", "--once").stdout.splitlines() if "refunds" in line]
    assert line.split("due")[1].strip() == "5.00 + ? EUR in 2, ? JPY in 1, 396.00 USD in 1"


def test_it_can_be_limited_to_a_product(flashsale, db, sale):
    other = create_product(db, name="Sock")
    snapshot = json.loads(flashsale("watch", "--once", "--json", "--product", other).stdout)
    assert [row["name"] for row in snapshot["products"]] == ["Sock"]
    assert "no such product" in flashsale("watch", "--once", "--product", 99).stdout


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_narrow_terminal_keeps_names(database_url, db, sale, columns):
    name = "Limited edition sneaker, white"
    create_product(db, name=name, stock=100_000)
    shown = in_terminal(
        "watch", "--once", FLASHSALE_DATABASE_URL=database_url, COLUMNS=str(columns), NO_COLOR="1"
    )
    lines = [line.rstrip() for line in re.sub(r"\x1b\[\d*m", "", shown).splitlines()]
    assert any(name in line for line in lines), shown
    (heads,) = [line for line in lines if "available" in line]
    numbers = next(line for line in lines if "100000" in line)
    assert len(numbers) <= len(heads) <= columns
    columns_of_numbers = ["total", "available", "held", "awaiting", "paid", "holds/s", "paid/s"]
    assert [head for head in heads.split() if head not in ("id", "product", "sale")] == columns_of_numbers
    assert "100000 100000 0 0 0 0 0" in " ".join(numbers.split())
    assert ("Sneaker" in next(line for line in lines if " 0.1" in line)) == (columns > 80)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_terminal_is_updated_and_restored(db, sale, screen, number):
    wait_until(lambda: "Sneaker" in screen.shown, "the sale is shown")
    create_product(db, name="Late arrival")
    wait_until(lambda: "Late arrival" in screen.shown, "the new product is shown")
    assert screen.stop(number) == 0
    entered, left = "\x1b[?1049h", "\x1b[?1049l"
    assert screen.shown.count(entered) == screen.shown.count(left) == 1
    last = screen.shown.rpartition(left)[2]
    assert "\x1b[?25h" in screen.shown, "the cursor is visible again"
    assert "Late arrival" in last, "the last snapshot remains on the screen"
    assert "Traceback" not in screen.shown


def test_it_reconnects(db, sale, screen):
    wait_until(lambda: "Sneaker" in screen.shown, "the sale is shown")
    db.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'flashsale watch'"
    )
    wait_until(lambda: "retrying" in screen.shown, "the error is shown")
    create_product(db, name="Late arrival")
    wait_until(lambda: "Late arrival" in screen.shown, "the new product is shown")
    assert screen.stop(signal.SIGINT) == 0


def test_without_a_terminal_it_prints_each_snapshot(database_url, sale):
    child = subprocess.Popen(
        [sys.executable, "-m", "flashsale", "watch", "--interval", "0.1", "--json"],
        cwd=ROOT,
        env=os.environ | {"FLASHSALE_DATABASE_URL": database_url},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        snapshots = [json.loads(child.stdout.readline()) for _ in range(3)]
        child.send_signal(signal.SIGINT)
        child.stdout.close()
        assert child.wait(20) == 0
    finally:
        child.kill()
    assert sorted(snapshot["at"] for snapshot in snapshots) == [snapshot["at"] for snapshot in snapshots]


def test_a_test_product_is_shown_if_it_is_named(flashsale, db):
    create_product(db)
    test = create_product(db, is_test=True)
    pay(db, order(db, test))
    pay(db, one(db, "select max(order_id) from flashsale.test_payments"))
    snapshot = json.loads(flashsale("watch", "--once", "--json").stdout)
    assert ([row["product_id"] for row in snapshot["products"]], snapshot["refunds_due"]) == ([1], [])
    snapshot = json.loads(flashsale("watch", "--once", "--json", "--product", test).stdout)
    assert [row["product_id"] for row in snapshot["products"]] == [test]
