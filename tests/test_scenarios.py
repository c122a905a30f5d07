"""The scenarios of a sale, over HTTP, against the server that `make up` starts: pg_cron and all."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import count

import httpx
import psycopg
import pytest

from flashsale.database import pg_cron
from flashsale.local.cluster import DATABASE, SUPERUSER, Cluster
from tests.support.flashsale_up import FLASHSALE, Up, data_folder
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

Shop = Callable[..., int]
keys = (f"pay_{number}" for number in count())


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    with data_folder() as folder:
        running = Up(folder, [*FLASHSALE, "up"]).wait_until_it_is_up()
        yield running
        running.stop()


@pytest.fixture
def http(up: Up) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=up.url, timeout=10) as client:
        yield client


@pytest.fixture
def ops(up: Up) -> Iterator[psycopg.Connection]:
    """An operator; leaves the books balanced and the settings as they were."""
    with psycopg.connect(Cluster(up.folder).url(SUPERUSER, DATABASE), autocommit=True) as conn:
        yield conn
        conn.execute("select flashsale.change_settings('2 minutes', '15 minutes')")
        assert conn.execute("select * from flashsale.audit()").fetchall() == []


@pytest.fixture
def shop(ops: psycopg.Connection) -> Shop:
    def product(stock: int) -> int:
        return ops.execute("select flashsale.create_product('Shoe', %s, 99)", (stock,)).fetchone()[0]

    return product


def hold(http: httpx.Client, product: int, qty: int = 1) -> httpx.Response:
    return http.post("/api/holds", json={"product_id": product, "qty": qty})


def order(http: httpx.Client, product: int, qty: int = 1) -> int:
    placed = hold(http, product, qty).json()
    return http.post("/api/orders", json={"hold_id": placed["hold_id"]}).json()["order_id"]


def pay(http: httpx.Client, order_id: int, status: str = "success", key: str | None = None) -> httpx.Response:
    event = {"idempotency_key": key or next(keys), "order_id": order_id, "status": status}
    return http.post("/api/payments/webhook", json=event)


def word(answer: httpx.Response) -> tuple[str | None, str]:
    return answer.json()["status"], answer.json()["result"]


def available(http: httpx.Client, product: int) -> int:
    return http.get(f"/api/products/{product}").json()["available_stock"]


def at_once(times: int, call: Callable[[], httpx.Response]) -> list[httpx.Response]:
    with ThreadPoolExecutor(times) as pool:
        return [future.result() for future in [pool.submit(call) for _ in range(times)]]


def test_forty_buyers_at_once_buy_what_there_is(http: httpx.Client, shop: Shop) -> None:
    product = shop(17)
    answers = at_once(40, lambda: hold(http, product))
    assert Counter(answer.status_code for answer in answers) == {201: 17, 409: 23}
    assert {answer.json()["title"] for answer in answers if answer.status_code == 409} == {
        "Insufficient stock"
    }
    assert available(http, product) == 0


@pytest.mark.parametrize("scheduled", [True, False])
def test_a_lapsed_hold_is_back_on_sale_at_that_instant(
    up: Up, http: httpx.Client, shop: Shop, ops: psycopg.Connection, scheduled: bool
) -> None:
    url = Cluster(up.folder).url(SUPERUSER, DATABASE)
    (pg_cron.schedule if scheduled else pg_cron.unschedule)(ops, url)
    product = shop(3)
    ops.execute("select flashsale.change_settings('300 milliseconds')")
    lapsing = hold(http, product, 3).json()
    instant = datetime.fromisoformat(lapsing["expires_at"])
    while datetime.now(UTC) < instant:
        before = available(http, product)
        assert before == 0 or datetime.now(UTC) >= instant
    assert available(http, product) == 3
    assert http.get(f"/api/holds/{lapsing['hold_id']}").json()["status"] == "expired"
    refused = http.post("/api/orders", json={"hold_id": lapsing["hold_id"]})
    assert (refused.status_code, refused.json()["code"]) == (410, "hold_expired")
    assert hold(http, product, 3).status_code == 201


@pytest.mark.parametrize("together", [True, False])
def test_the_same_webhook_five_times_has_one_effect_and_one_answer(
    http: httpx.Client, shop: Shop, together: bool
) -> None:
    product = shop(5)
    order_id, key = order(http, product), next(keys)
    if together:
        answers = at_once(5, lambda: pay(http, order_id, key=key))
    else:
        answers = [pay(http, order_id, key=key) for _ in range(5)]
    assert {(answer.status_code, answer.text) for answer in answers} == {
        (200, f'{{"order_id":{order_id},"status":"paid","result":"applied"}}')
    }
    assert sorted("idempotency-replayed" in answer.headers for answer in answers) == [
        False,
        True,
        True,
        True,
        True,
    ]
    assert available(http, product) == 4


@pytest.mark.parametrize(("said", "status"), [("success", "paid"), ("failed", "cancelled")])
def test_a_webhook_before_its_order_is_applied_when_the_order_is_created(
    http: httpx.Client, shop: Shop, said: str, status: str
) -> None:
    product = shop(5)
    placed = hold(http, product).json()
    coming = order(http, product) + 1
    stored = pay(http, coming, said, key=f"stored {said}")
    assert (stored.status_code, word(stored)) == (202, (None, "stored"))
    born = http.post("/api/orders", json={"hold_id": placed["hold_id"]}).json()
    assert (born["order_id"], born["status"]) == (coming, status)
    assert word(pay(http, coming, said, key=f"stored {said}")) == (status, "applied")


@pytest.mark.parametrize("said", ["failed", "cancelled"])
def test_an_order_that_is_not_paid_gives_its_stock_back(http: httpx.Client, shop: Shop, said: str) -> None:
    product = shop(5)
    order_id = order(http, product, 2)
    assert available(http, product) == 3
    assert word(pay(http, order_id, said)) == ("cancelled", "applied")
    assert available(http, product) == 5


def overdue(http: httpx.Client, product: int, ops: psycopg.Connection) -> int:
    ops.execute("select flashsale.change_settings('2 minutes', '200 milliseconds')")
    before = available(http, product)
    order_id = order(http, product)
    wait_until(lambda: available(http, product) == before, "the order is overdue")
    return order_id


@pytest.mark.parametrize(
    ("first", "then", "stock_left", "expected"),
    [
        (["success"], "success", True, ("paid", "refund_due")),
        (["success"], "failed", True, ("paid", "no_change")),
        (["failed"], "success", True, ("paid", "applied")),
        (["failed"], "success", False, ("cancelled", "refund_due")),
        (["failed"], "cancelled", True, ("cancelled", "no_change")),
        (["cancelled"], "success", True, ("cancelled", "refund_due")),
        (["cancelled"], "failed", True, ("cancelled", "no_change")),
        (["overdue"], "success", True, ("paid", "applied")),
        (["overdue"], "success", False, ("cancelled", "refund_due")),
        (["overdue"], "failed", True, ("cancelled", "no_change")),
        (["overdue", "sweep"], "success", True, ("paid", "applied")),
        (["overdue", "sweep"], "success", False, ("cancelled", "refund_due")),
        (["overdue", "sweep"], "failed", True, ("cancelled", "no_change")),
    ],
)
def test_the_table_of_orders_and_payments(
    http: httpx.Client,
    shop: Shop,
    ops: psycopg.Connection,
    first: list[str],
    then: str,
    stock_left: bool,
    expected: tuple[str, str],
) -> None:
    pg_cron.unschedule(ops, ops.info.dsn)
    product = shop(1)
    if "overdue" in first:
        order_id = overdue(http, product, ops)
        if "sweep" in first:
            ops.execute("select flashsale.expire_due()")
    else:
        order_id = order(http, product)
        pay(http, order_id, first[0])
    if not stock_left:
        assert hold(http, product).status_code == 201
    assert word(pay(http, order_id, then)) == expected


def test_another_amount_changes_nothing(http: httpx.Client, shop: Shop) -> None:
    order_id = order(http, shop(1))
    event = {"idempotency_key": next(keys), "order_id": order_id, "status": "success", "amount": "98.00"}
    answer = http.post("/api/payments/webhook", json=event)
    assert (answer.status_code, word(answer)) == (200, ("pending_payment", "amount_mismatch"))
