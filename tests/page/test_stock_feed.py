"""GET /api/products/{id}/live: the stream as a client reads it."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from flashsale.database.seed import APP_ROLE
from tests.page.conftest import PATIENCE
from tests.support.http import running_server
from tests.support.waiting import wait_until

POLLERS = """
    from pg_stat_activity
    where datname = current_database() and usename = 'flashsale_app' and query ~ 'get_stock'
"""

TERMS = ("sale_status", "starts_at", "ends_at", "max_per_buyer")


class Stream:
    """The events of an open stream, one after the other."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.iter_lines()

    def block(self) -> dict[str, str]:
        """The fields of the next block; a comment has the name ''."""
        fields: dict[str, str] = {}
        for line in self._lines:
            if not line:
                return fields
            name, _, value = line.partition(":")
            fields[name] = value.strip()
        raise EOFError

    def event(self, name: str) -> Any:
        """The data of the next event of this name; its id is then in self.id."""
        while (fields := self.block()).get("event") != name:
            pass
        self.id = fields.get("id")
        return json.loads(fields["data"])


@contextmanager
def subscribed(client: httpx.Client, product: int, **headers: str | bytes) -> Iterator[Stream]:
    with client.stream("GET", f"/api/products/{product}/live", headers=headers) as response:
        assert response.status_code == 200, response.read()
        yield Stream(response)


def units(sample: dict[str, Any]) -> tuple[int, int, int, int]:
    return tuple(sample[kind] for kind in ("available", "held", "awaiting", "paid"))


def hold(client: httpx.Client, product: int, qty: int = 1) -> int:
    return client.post("/api/holds", json={"product_id": product, "qty": qty}).json()["hold_id"]


def test_a_subscriber_gets_the_stock_and_then_its_changes(client, product):
    with subscribed(client, product) as stream:
        assert stream.response.headers["content-type"] == "text/event-stream"
        assert stream.response.headers["cache-control"] == "no-store"
        assert units(stream.event("stock")) == (50, 0, 0, 0)
        hold_id = hold(client, product, 3)
        assert units(stream.event("stock")) == (47, 3, 0, 0)
        order = client.post("/api/orders", json={"hold_id": hold_id}).json()["order_id"]
        assert units(stream.event("stock")) == (47, 0, 3, 0)
        client.post(
            "/api/payments/webhook",
            json={"idempotency_key": f"p{order}", "order_id": order, "status": "success"},
        )
        assert units(stream.event("stock")) == (47, 0, 0, 3)


def test_the_terms_of_the_sale_are_sent_as_they_change(client, product, db):
    with subscribed(client, product) as stream:
        first = stream.event("stock")
        assert [first[name] for name in TERMS] == ["open", None, None, None]
        db.execute("select flashsale.pause_sale(array[%s::bigint])", (product,))
        assert stream.event("stock")["sale_status"] == "paused"
        db.execute(
            "select flashsale.change_terms(array[%s::bigint], p_starts_at => '2100-01-01T10:00Z',"
            " p_ends_at => '2100-01-01T11:00Z', p_max_per_buyer => 2)",
            (product,),
        )
        changed = stream.event("stock")
        assert [changed[name] for name in TERMS] == [
            "scheduled", "2100-01-01T10:00:00Z", "2100-01-01T11:00:00Z", 2,
        ]  # fmt: skip
        assert units(changed) == (50, 0, 0, 0)
        with subscribed(client, product) as later:
            assert [units(sample) for sample in later.event("history")] == [(50, 0, 0, 0)]
            assert later.event("stock")["sale_status"] == "scheduled"


def test_an_expired_hold_is_sent_without_a_sweep(client, product, hold_time):
    hold_time(4)  # to be sampled in
    with subscribed(client, product) as stream:
        stream.event("stock")
        hold(client, product, 2)
        assert units(stream.event("stock")) == (48, 2, 0, 0)
        assert units(stream.event("stock")) == (50, 0, 0, 0)


def test_a_later_subscriber_gets_the_history(client, product):
    with subscribed(client, product) as first:
        assert first.event("history") == []
        first.event("stock")
        hold(client, product)
        first.event("stock")
        with subscribed(client, product) as second:
            assert [units(sample) for sample in second.event("history")] == [(50, 0, 0, 0), (49, 1, 0, 0)]
            assert units(second.event("stock")) == (49, 1, 0, 0)


def test_a_resumed_stream_gets_the_changes_since_its_last_event(client, product):
    with subscribed(client, product) as first, subscribed(client, product) as other:
        first.event("stock")
        other.event("stock")
        known = first.id
        hold(client, product)
        other.event("stock")
        with subscribed(client, product, **{"Last-Event-ID": known}) as again:
            assert [units(sample) for sample in again.event("history")] == [(49, 1, 0, 0)]


@pytest.mark.parametrize("nonsense", ["", "abc", "-1", "9" * 100, "1.5", "²".encode()])
def test_an_invalid_last_event_id_is_ignored(client, product, nonsense):
    with subscribed(client, product, **{"Last-Event-ID": nonsense}) as stream:
        assert units(stream.event("stock")) == (50, 0, 0, 0)


@pytest.mark.parametrize("path", ["/api/products/12345/live", "/api/products/x/live"])
def test_an_unknown_product_is_a_problem(client, product, path):
    answer = client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "product_not_found")


def test_head_opens_no_stream(client, product):
    answer = client.head(f"/api/products/{product}/live")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")


def test_subscribers_get_only_their_product(client, product, db):
    other = db.execute("select flashsale.create_product('Poster', 7, 5)").fetchone()[0]
    with subscribed(client, product) as one, subscribed(client, other) as two:
        assert units(one.event("stock")) == (50, 0, 0, 0)
        assert units(two.event("stock")) == (7, 0, 0, 0)
        hold(client, other)
        hold(client, product, 2)
        assert units(one.event("stock")) == (48, 2, 0, 0)
        assert units(two.event("stock")) == (6, 1, 0, 0)


def test_the_poller_runs_only_while_there_are_subscribers(client, product, db):
    def asked() -> str | None:
        return db.execute(f"select max(query_start)::text {POLLERS}").fetchone()[0]

    def is_quiet() -> bool:
        before = asked()
        threading.Event().wait(0.6)  # nothing to watch for: twice as long as it takes it to ask again
        return asked() == before

    with subscribed(client, product) as stream:
        stream.event("stock")
        first = asked()
        wait_until(lambda: asked() != first, "the poller has asked again")
    wait_until(is_quiet, "there are no more polls")


def test_a_hundred_subscribers_share_one_query(client, product, db, server):
    with httpx.Client(base_url=server, timeout=PATIENCE, limits=httpx.Limits(max_connections=200)) as many:
        opened = [subscribed(many, product) for _ in range(100)]
        streams = [manager.__enter__() for manager in opened]
        for stream in streams:
            stream.event("stock")
        assert db.execute(f"select count(*) {POLLERS}").fetchone() == (1,)
        hold(client, product)
        assert {units(stream.event("stock")) for stream in streams} == {(49, 1, 0, 0)}
        for manager in opened:
            manager.__exit__(None, None, None)


def test_unavailable_is_sent_when_the_database_is_gone(client, product, db):
    with subscribed(client, product) as stream:
        stream.event("stock")
        db.execute("alter role flashsale_app nologin")
        try:
            db.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where usename = 'flashsale_app' and datname = current_database()"
            )
            assert stream.event("unavailable") == {"code": "unavailable", "title": "Database unavailable"}
        finally:
            db.execute("alter role flashsale_app login")
        assert units(stream.event("stock")) == (50, 0, 0, 0)


def test_shutdown_ends_the_streams(cluster, database, product, tmp_path: Path):
    log = tmp_path / "gunicorn.log"
    ended = threading.Event()

    def read_to_the_end(base: str, live: threading.Event) -> None:
        with httpx.Client(base_url=base, timeout=PATIENCE) as client, subscribed(client, product) as stream:
            stream.event("stock")
            live.set()
            with pytest.raises(EOFError):  # the last chunk came: the stream was not cut off
                while True:
                    stream.block()
        ended.set()

    with running_server(cluster.url(APP_ROLE, database), log) as base:
        live = threading.Event()
        reader = threading.Thread(target=read_to_the_end, args=(base, live))
        reader.start()
        assert live.wait(PATIENCE)
    reader.join(PATIENCE)
    assert ended.is_set()
    assert "Cancel" not in log.read_text() and "Traceback" not in log.read_text()
