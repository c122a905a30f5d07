"""The wire between API and database is cut at every message of every call, whole and half-way, both ways.

Whatever is answered is true, or 503 and to be asked again; asked again with its key, it has happened once.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import httpx
import psycopg
import pytest
from pytest_postgresql.janitor import DatabaseJanitor

from flashsale.database.migrations import migrate
from flashsale.database.seed import APP_ROLE, create_app_role
from flashsale.local.cluster import PORT, SUPERUSER, Cluster
from proof.campaign import Campaign
from proof.load_clients import Answer, Connection
from proof.pg_proxy import Cut, Manner, To, Watch, Wire, wire
from tests.support.http import running_server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

numbers = itertools.count(1)


@dataclass(frozen=True)
class Call:
    """One request, and how to see what it has done.

    :param served: the status of success
    :param event: the kind of event that tells of its effect; None if it reads
    :param about: the column and value that find that event
    :param replays: asked again with the same words it says so, once it has been done
    :param again: the status of asking again for what has been done
    """

    method: str
    path: str
    body: dict[str, object] | None = None
    key: str | None = None
    served: int = 200
    event: str | None = None
    about: tuple[str, int] = ("", 0)
    replays: bool = False
    again: int | None = None


Make = Callable[[psycopg.Connection], Call]


def new_product(db: psycopg.Connection) -> int:
    return db.execute("select flashsale.create_product('Shoe', 1000, 99)").fetchone()[0]


def new_hold(db: psycopg.Connection) -> int:
    return db.execute("select hold_id from flashsale.place_hold(%s, 1)", (new_product(db),)).fetchone()[0]


def new_order(db: psycopg.Connection, hold: int | None = None) -> int:
    query = "select order_id from flashsale.create_order(%s)"
    return db.execute(query, (hold or new_hold(db),)).fetchone()[0]


def hold(db: psycopg.Connection) -> Call:
    product = new_product(db)
    return Call(
        "POST", "/api/holds", {"product_id": product, "qty": 1}, f"hold-{next(numbers)}", 201,
        "hold_placed", ("product_id", product), replays=True,
    )  # fmt: skip


def hold_without_key(db: psycopg.Connection) -> Call:
    return replace(hold(db), key=None, replays=False)


def order(db: psycopg.Connection) -> Call:
    hold = new_hold(db)
    return Call(
        "POST", "/api/orders", {"hold_id": hold}, f"order-{next(numbers)}", 201,
        "order_created", ("hold_id", hold), replays=True,
    )  # fmt: skip


def order_without_key(db: psycopg.Connection) -> Call:
    return replace(order(db), key=None, replays=False, again=409)


def release(db: psycopg.Connection) -> Call:
    hold = new_hold(db)
    return Call("DELETE", f"/api/holds/{hold}", None, None, 204, "hold_released", ("hold_id", hold))


def _webhook(order_id: int, served: int, event: str, status: str) -> Call:
    body = {"idempotency_key": f"pay-{next(numbers)}", "order_id": order_id, "status": status}
    about = ("order_id", order_id)
    return Call("POST", "/api/payments/webhook", body, None, served, event, about, replays=True)


def payment(db: psycopg.Connection) -> Call:
    return _webhook(new_order(db), 200, "order_paid", "success")


def failure(db: psycopg.Connection) -> Call:
    return _webhook(new_order(db), 200, "order_cancelled", "failed")


def early_payment(db: psycopg.Connection) -> Call:
    return _webhook(10**9 + next(numbers), 202, "payment_stored", "success")


def product(db: psycopg.Connection) -> Call:
    return Call("GET", f"/api/products/{new_product(db)}")


def products(db: psycopg.Connection) -> Call:
    return Call("GET", "/api/products")


def hold_read(db: psycopg.Connection) -> Call:
    return Call("GET", f"/api/holds/{new_hold(db)}")


def order_read(db: psycopg.Connection) -> Call:
    hold = new_hold(db)
    return Call("GET", f"/api/orders/{new_order(db, hold)}?hold_id={hold}")


def ready(db: psycopg.Connection) -> Call:
    return Call("GET", "/readyz")


POOL = "flashsale pool"
LANES: dict[Make, str] = {
    hold: "flashsale place_holds fast",
    hold_without_key: "flashsale place_holds fast",
    order: "flashsale create_orders fast",
    order_without_key: "flashsale create_orders fast",
    release: "flashsale release_holds fast",
    payment: "flashsale apply_payments fast",
    failure: "flashsale apply_payments fast",
    early_payment: "flashsale apply_payments fast",
    product: "flashsale get_products read",
    hold_read: "flashsale get_holds read",
    order_read: "flashsale get_orders read",
    products: POOL,
    ready: POOL,
}


class Shop:
    """The HTTP server behind the wire, and what it has really done."""

    def __init__(self, url: str, wire: Wire, db: psycopg.Connection) -> None:
        self.url = url
        self.wire = wire
        self.db = db
        self.http = httpx.Client(base_url=url, timeout=10)

    def ask(self, call: Call) -> httpx.Response:
        headers = {"Idempotency-Key": call.key} if call.key else {}
        return self.http.request(call.method, call.path, json=call.body, headers=headers)

    def ask_until_definite(self, call: Call) -> httpx.Response:
        answers: list[httpx.Response] = []

        def is_definite() -> bool:
            answers.append(self.ask(call))
            return answers[-1].status_code != 503

        wait_until(is_definite, "there is a definite answer", 10)
        return answers[-1]

    def effects(self, call: Call) -> int:
        column, value = call.about
        query = f"select count(*) from flashsale_data.events where kind = %s and {column} = %s"
        return self.db.execute(query, (call.event, value)).fetchone()[0]

    def wait_until_over(self, watch: Watch) -> None:
        """Until the backend behind a cut wire has ended, and whatever it was doing with it."""
        query = "select not exists (select from pg_stat_activity where pid = %s)"
        wait_until(lambda: self.db.execute(query, (watch.pid,)).fetchone()[0], "the backend has ended")


@pytest.fixture(scope="module")
def shop(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    name, log = "flashsale_wires", tmp_path_factory.mktemp("wires") / "gunicorn.log"
    with (
        DatabaseJanitor(user=SUPERUSER, host=str(cluster.socket_directory), port=PORT, dbname=name),
        psycopg.connect(cluster.url(SUPERUSER, name), autocommit=True) as db,
        wire(f"{cluster.socket_directory}/.s.PGSQL.{PORT}") as made,
    ):
        migrate(cluster.url(SUPERUSER, name), schedule=False, say=lambda _: None)
        create_app_role(db)
        through = f"host=127.0.0.1 port={made.port} sslmode=disable gssencmode=disable"
        with running_server(f"{through} dbname={name} user={APP_ROLE}", log) as url:
            shop = Shop(url, made, db)
            yield shop
            shop.http.close()


def code(answer: httpx.Response | Answer) -> str:
    """The problem's code; "served" if it is none."""
    status = answer.status if isinstance(answer, Answer) else answer.status_code
    if status < 300:
        return "served"
    assert status == 503, (status, answer)
    assert int(answer.headers["retry-after"]) >= 1
    return answer.code if isinstance(answer, Answer) else answer.json()["code"]


def is_true(said: str, effects: int) -> bool:
    """Whether that is what was done."""
    return effects in {"served": {1}, "outcome_unknown": {0, 1}}.get(said, {0})


def try_cut(shop: Shop, make: Make, cut: Cut) -> tuple[str, int]:
    """Ask for something, cut, look, ask again; what was said at first, and what had been done by then."""
    call = make(shop.db)
    watch = shop.wire.arm(LANES[make], cut)
    answer = shop.ask(call)
    # The pool may have more connections than the one that was looked on, with statements prepared or not.
    assert watch.done or LANES[make] == POOL, f"the wire was not cut: {watch.seen}"
    said = code(answer) if watch.done else "not reached"
    assert answer.elapsed.total_seconds() < 2.5
    if call.event is None:
        assert said in ("served", "unavailable", "not_ready", "not reached"), "a read has no unknown outcome"
        assert shop.ask_until_definite(call).status_code == 200
        return said, 0
    shop.wait_until_over(watch)
    done = shop.effects(call)
    assert is_true(said, done), f"{said}, and was done {done} times"
    if make is hold_without_key:
        shop.ask_until_definite(make(shop.db))
        return said, done
    again = shop.ask_until_definite(call)
    assert again.status_code == (call.again if call.again and done else call.served), again.text
    assert ("idempotency-replayed" in again.headers) == (call.replays and done == 1)
    if said == "served" and call.replays:
        assert again.json() == answer.json()
    assert shop.effects(call) == 1
    return said, done


def messages(shop: Shop, make: Make, fresh: bool) -> dict[To, list[str]]:
    """What passes when nothing is cut, on a connection in use or a new one."""
    call = make(shop.db)
    if fresh:
        shop.wire.hang_up(LANES[make])
    watch = shop.wire.arm(LANES[make], None)
    assert shop.ask(call).status_code == call.served
    return {to: list(kinds) for to, kinds in watch.seen.items()}


def every_cut(seen: dict[To, list[str]], manner: Manner) -> Iterator[Cut]:
    for to in To:
        for after in range(len(seen[to]) + 1):
            yield Cut(to, after, manner=manner)
            if after < len(seen[to]):
                yield Cut(to, after, half=True, manner=manner)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What is cut: some kinds of calls in every run of the suite, all in the campaign."""
    small, full = {
        "test_cut_at_every_message": ([hold, order, payment, product], list(LANES)),
        "test_a_wire_that_falls_silent": ([hold], [hold, order, payment, release, product]),
        "test_cut_while_many_share_a_call": ([hold], [hold, order, payment]),
    }[metafunc.function.__name__]
    chosen = full if metafunc.config.getoption("--proof-full") else small
    metafunc.parametrize("make", chosen, ids=lambda make: make.__name__)


def test_cut_at_every_message(campaign: Campaign, shop: Shop, make: Make) -> None:
    shop.ask(make(shop.db))
    results: Counter[tuple[str, int]] = Counter()
    manners = campaign.size([Manner.CLOSE], [Manner.CLOSE, Manner.RESET])
    for fresh in campaign.size([False], [False, True]):
        seen = messages(shop, make, fresh)
        # Sync, or Query where there is nothing to bind; and ReadyForQuery.
        assert seen[To.SERVER][-1] in ("S", "Q") and seen[To.CLIENT][-1] == "Z", seen
        for cut in itertools.chain.from_iterable(every_cut(seen, manner) for manner in manners):
            try:
                if fresh or LANES[make] == POOL:
                    shop.wire.hang_up(LANES[make])
                if not fresh and LANES[make] == POOL:
                    shop.ask_until_definite(make(shop.db))
                results[try_cut(shop, make, cut)] += 1
            except AssertionError as error:
                error.add_note(f"{make.__name__}, {'fresh' if fresh else 'warm'}, {cut}")
                raise
    del results["not reached", 0]
    if make(shop.db).event is not None:
        assert results["outcome_unknown", 1], "an executed call whose answer was swallowed"
        assert results["outcome_unknown", 0], "a call that never came whole"
    words = {("outcome_unknown", 0): "unknown and not done", ("outcome_unknown", 1): "unknown and done"}
    said = ", ".join(f"{times} {words.get(what, what[0])}" for what, times in sorted(results.items()))
    campaign.tried(
        f"{make.__name__.replace('_', ' ')}: wire cut at every message, {results.total()} times",
        f"all; first answers: {said}",
    )


def test_a_wire_that_falls_silent(campaign: Campaign, shop: Shop, make: Make) -> None:
    shop.ask(make(shop.db))
    seen = messages(shop, make, fresh=False)
    # Silent after the whole answer, the wire would be missed by nobody until the next call.
    harmless = Cut(To.CLIENT, len(seen[To.CLIENT]), manner=Manner.SILENCE)
    cuts = [cut for cut in every_cut(seen, Manner.SILENCE) if cut != harmless]
    for cut in campaign.random.sample(cuts, campaign.size(1, 6)):
        try_cut(shop, make, cut)
    campaign.tried(f"{make.__name__}: wire falls silent, {campaign.size(1, 6)} times")


def test_cut_while_many_share_a_call(campaign: Campaign, shop: Shop, make: Make) -> None:
    """Among the rows of its answer: before the commit, or wherever it happens to be."""
    bursts, many = campaign.size(2, 20), 200
    said: Counter[tuple[str, int]] = Counter()
    for burst in range(bursts):
        calls = [make(shop.db) for _ in range(many)]
        shop.ask_until_definite(make(shop.db))
        # A call of a prepared statement is Bind, Describe, Execute, Sync. Without its Sync the second one is
        # not committed; what of its rows is more than 8 KB arrives all the same.
        before_commit = burst % 2 == 0
        cut = (
            Cut(To.CLIENT, campaign.random.randrange(20, 80), campaign.random.random() < 0.5, withheld=4 + 3)
            if before_commit
            else Cut(To.CLIENT, campaign.random.randrange(5, 150), campaign.random.random() < 0.5)
        )
        watch = shop.wire.arm(LANES[make], cut, opened=False)
        answers = asyncio.run(at_once(shop.url, calls, watch))
        assert watch.done, f"the wire was not cut: {cut}, {watch.seen}"
        assert watch.seen[To.CLIENT][-1] == "D" or not before_commit
        shop.wait_until_over(watch)
        for call, answer in zip(calls, answers, strict=True):
            first, done = code(answer), shop.effects(call)
            assert is_true(first, done), f"{first}, and was done {done} times; {cut}"
            said[first, done] += 1
        for call in calls:
            again = shop.ask_until_definite(call)
            assert again.status_code == call.served
            assert shop.effects(call) == 1
    assert said["outcome_unknown", 0] and said["served", 1]
    campaign.tried(
        f"{make.__name__}: wire cut under {many} requests at once, {bursts} times",
        f"all; {bursts // 2} times between the first rows and the commit",
    )


async def at_once(url: str, calls: list[Call], watch: Watch) -> list[Answer]:
    """The answers, if the wire is opened as soon as all have arrived: those that the first call did not take
    share the second."""
    buyers = [Connection(url) for _ in calls]
    for buyer in buyers:
        await buyer.ask("GET", "/healthz")
    asked = [
        asyncio.create_task(buyer.ask(call.method, call.path, call.body, call.key))
        for buyer, call in zip(buyers, calls, strict=True)
    ]
    bystander = Connection(url)
    for _ in range(3):  # each at the end of what the server's only thread had before it
        await bystander.ask("GET", "/healthz")
    await bystander.close()
    watch.opened.set()
    answers = await asyncio.gather(*asked)
    for buyer in buyers:
        await buyer.close()
    return answers
