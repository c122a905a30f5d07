"""`flashsale watch`."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.support import ROOT
from tests.support.sale_steps import create_product, order, pay, place_hold
from tests.support.waiting import wait_until


class Screen:
    """`flashsale watch` on a terminal of its own, and everything it has shown."""

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
        except OSError:  # the terminal's way to say that nobody is left on it
            pass
        os.close(ours)

    def stop(self, number: int) -> int:
        """Its exit status, once all that it has shown is read."""
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
    """One product of each: 10 in all, 2 held, 3 awaiting payment, 4 paid; and a payment to give back."""
    product = create_product(db, stock=10)
    place_hold(db, product, 2)
    order(db, product, 3)
    paid = order(db, product, 4)
    pay(db, paid)
    pay(db, paid)
    # So that however slow the machine, the rates are those of a sale that is going on.
    db.execute("update flashsale_data.events set at = at + interval '1 hour'")
    return product


@pytest.fixture
def screen(database_url: str) -> Iterator[Screen]:
    with closing(Screen(database_url)) as shown:
        yield shown


def test_once_it_prints_the_sale_and_ends(flashsale, sale):
    result = flashsale("watch", "--once")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["1", "Sneaker", "10", "1", "2", "3", "4", "0.3", "0.1"] in lines
    assert ["refunds", "due", "396.00", "USD", "in", "1"] in lines
    assert any(line[:1] == ["scheduler"] for line in lines)


def test_as_json_it_is_one_line(flashsale, sale):
    told = json.loads(flashsale("watch", "--once", "--json").stdout)
    assert told["products"][0] | {"name": "", "product_id": 0} == {
        "product_id": 0, "name": "", "total_stock": 10, "available_stock": 1, "held": 2,
        "awaiting": 3, "paid": 4, "holds_per_second": "0.3", "orders_per_second": "0.2",
        "paid_per_second": "0.1",
    }  # fmt: skip
    assert told["refunds_due"] == [{"currency": "USD", "payments": 1, "amount": "396.00"}]
    assert told["scheduler"]["status"] in ("not_scheduled", "not_installed")
    assert told["at"].endswith("Z")


def test_it_can_be_one_products(flashsale, db, sale):
    other = create_product(db, name="Sock")
    told = json.loads(flashsale("watch", "--once", "--json", "--product", other).stdout)
    assert [row["name"] for row in told["products"]] == ["Sock"]
    assert "no such product" in flashsale("watch", "--once", "--product", 99).stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_on_a_terminal_it_is_live_and_leaves_it_as_it_was(db, sale, screen, number):
    wait_until(lambda: "Sneaker" in screen.shown, "it shows the sale")
    create_product(db, name="Late arrival")
    wait_until(lambda: "Late arrival" in screen.shown, "it shows what came since")
    assert screen.stop(number) == 0
    entered, left = "\x1b[?1049h", "\x1b[?1049l"
    assert screen.shown.count(entered) == screen.shown.count(left) == 1
    last = screen.shown.rpartition(left)[2]
    assert "\x1b[?25h" in screen.shown, "the cursor is back"
    assert "Late arrival" in last, "the last look stays to be read"
    assert "Traceback" not in screen.shown


def test_it_outlives_its_connection(db, sale, screen):
    wait_until(lambda: "Sneaker" in screen.shown, "it shows the sale")
    db.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'flashsale watch'"
    )
    wait_until(lambda: "trying again" in screen.shown, "it says that the database is away")
    create_product(db, name="Late arrival")
    wait_until(lambda: "Late arrival" in screen.shown, "it is back")
    assert screen.stop(signal.SIGINT) == 0


def test_where_there_is_no_terminal_it_prints_one_look_after_the_other(database_url, sale):
    child = subprocess.Popen(
        [sys.executable, "-m", "flashsale", "watch", "--interval", "0.1", "--json"],
        cwd=ROOT,
        env=os.environ | {"FLASHSALE_DATABASE_URL": database_url},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        looks = [json.loads(child.stdout.readline()) for _ in range(3)]
        child.send_signal(signal.SIGINT)
        child.stdout.close()
        assert child.wait(20) == 0
    finally:
        child.kill()
    assert sorted(look["at"] for look in looks) == [look["at"] for look in looks]
