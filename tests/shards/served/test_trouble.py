"""A shard that is down, stuck or cut off: its own products suffer, and no others."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import httpx
import pytest

from flashsale.database.seed import APP_ROLE
from flashsale.local.cluster import Cluster
from tests.shards.served.shop import NAMES, Shop
from tests.shards.served.test_routing import hold
from tests.support.database import unreachable
from tests.support.sql_calls import value
from tests.support.stalling_proxy import StallingProxy, stalling_proxy
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[StallingProxy]:
    """Before shard b."""
    with stalling_proxy(cluster) as proxy:
        yield proxy


@pytest.fixture
def client(shop: Shop, proxy: StallingProxy, tmp_path: Path) -> Iterator[httpx.Client]:
    urls = shop.urls(APP_ROLE, b=proxy.url(APP_ROLE, NAMES["b"]))
    with shop.server(tmp_path / "gunicorn.log", urls=urls) as client:
        wait_until(lambda: len(ready(client)) == 2, "both shards are ready")
        yield client
        proxy.resume()


def ready(client: httpx.Client) -> list[str]:
    response = client.get("/readyz")
    return [each["shard"] for each in response.json().get("shards", []) if each["status"] == "ready"]


def timed(client: httpx.Client, product: int) -> tuple[float, int, str]:
    began = time.monotonic()
    response = hold(client, product)
    return time.monotonic() - began, response.status_code, response.json().get("code", "")


def percentile(found: list[tuple[float, int, str]], share: float) -> float:
    seconds = sorted(each[0] for each in found)
    return seconds[int(share * (len(seconds) - 1))]


def test_a_shard_that_hangs_delays_its_own_buyers_alone(
    client: httpx.Client, shop: Shop, proxy: StallingProxy
) -> None:
    """Check 5."""
    sold, stuck = shop.product(0, 10_000), shop.product(2, 10_000)

    def buy_for(seconds: float, product: int) -> list[tuple[float, int, str]]:
        ends = time.monotonic() + seconds
        found = []
        while time.monotonic() < ends:
            found.append(timed(client, product))
        return found

    with ThreadPoolExecutor(8) as pool:
        before = list(chain.from_iterable(pool.map(lambda _: buy_for(1.5, sold), range(4))))
        assert {status for _, status, _ in before} == {201}
        assert timed(client, stuck)[1] == 201
        proxy.hang()
        others = [pool.submit(buy_for, 3, stuck) for _ in range(4)]
        during = list(chain.from_iterable(pool.map(lambda _: buy_for(3, sold), range(4))))
        hung = list(chain.from_iterable(other.result() for other in others))
    assert {status for _, status, _ in during} == {201}
    assert percentile(during, 0.99) < max(1.5 * percentile(before, 0.99), 0.1)
    assert {(status, code) for _, status, code in hung} <= {(503, "outcome_unknown"), (503, "unavailable")}
    assert "outcome_unknown" in {code for _, _, code in hung}, "what was sent may have been done"
    assert max(seconds for seconds, _, _ in hung) < 2.3

    listed = client.get("/api/products")
    assert [each["id"] for each in listed.json()] == [sold]
    assert listed.headers["Missing-Products"] == "slots=4, missing=(2 3)"
    assert ready(client) == [NAMES["a"]]

    proxy.resume()
    wait_until(lambda: timed(client, stuck)[1] == 201, "the shard is back")
    wait_until(lambda: "Missing-Products" not in client.get("/api/products").headers, "nothing is missing")
    shop.check()


def test_what_may_have_been_done_is_never_called_undone_nor_done_twice(
    client: httpx.Client, shop: Shop, proxy: StallingProxy
) -> None:
    """Check 6: the connection breaks after the commit."""
    product = shop.product(3)
    assert hold(client, product).status_code == 201
    proxy.cut_after("cut-key")
    lost = hold(client, product, key="cut-key")
    assert (lost.status_code, lost.json()["code"]) == (503, "outcome_unknown")
    assert shop.count("holds") == {"a": 0, "b": 2}
    again = hold(client, product, key="cut-key")
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert shop.count("holds") == {"a": 0, "b": 2}
    shop.check()


def test_a_shard_that_is_down_is_named_and_the_rest_is_sold(shop: Shop, tmp_path: Path) -> None:
    """Check 7, also at the start of the server."""
    sold, down = shop.product(1), shop.product(3)
    cors = {"FLASHSALE_CORS_ORIGINS": "https://shop.example"}
    with unreachable(shop.b), shop.server(tmp_path / "gunicorn.log", **cors) as client:
        response = client.get("/readyz")
        assert response.status_code == 200
        states = {each["shard"]: each["status"] for each in response.json()["shards"]}
        assert states == {NAMES["a"]: "ready", NAMES["b"]: "not_ready"}
        assert hold(client, sold).status_code == 201
        seconds, status, code = timed(client, down)
        assert (status, code) == (503, "unavailable")
        assert seconds < 1
        listed = client.get("/api/products", headers={"Origin": "https://shop.example"})
        assert [each["id"] for each in listed.json()] == [sold]
        assert "missing=(2 3)" in listed.headers["Missing-Products"]
        assert "Missing-Products" in listed.headers["Access-Control-Expose-Headers"]
        shop.b.execute("select")  # the superuser's session has been left open
        return_to_service(shop)
        wait_until(lambda: hold(client, down).status_code == 201, "the shard is served")
        wait_until(lambda: len(client.get("/api/products").json()) == 2, "the list is complete")
    assert value(shop.b, "select count(*) from flashsale_data.holds") == 1


def return_to_service(shop: Shop) -> None:
    shop.a.execute(f"alter database {NAMES['b']} allow_connections true")


def test_two_owners_of_a_slot_are_told_at_the_start_and_not_served(shop: Shop, tmp_path: Path) -> None:
    """As after the restoration of an older backup."""
    product, other = shop.product(1), shop.product(2)
    shop.b.execute("update flashsale_data.shard set owned = '{1,2,3}'")
    log = tmp_path / "gunicorn.log"
    with shop.server(log) as client:
        refused = hold(client, product)
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        assert hold(client, other).status_code == 201
        assert "1 of 4 slots is owned by flashsale_a and flashsale_b" in log.read_text()
        shop.b.execute("update flashsale_data.shard set owned = '{2,3}'")
        wait_until(lambda: hold(client, product).status_code == 201, "it has one owner")


def test_a_slot_without_an_owner_is_told_at_the_start(shop: Shop, tmp_path: Path) -> None:
    shop.b.execute("update flashsale_data.shard set owned = '{3}'")
    log = tmp_path / "gunicorn.log"
    with shop.server(log) as client:
        wait_until(lambda: "2 of 4 slots has no owner" in log.read_text(), "it is told")
        seconds, status, code = timed(client, 2)
        assert (status, code) == (503, "busy")
        assert seconds < 2
