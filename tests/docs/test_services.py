"""docs/services.md: every example, run in order; and its functions when transactions and connections fail."""

import os
import threading
from collections.abc import Iterator

import psycopg
import pytest

from flashsale.local.cluster import Cluster
from tests.docs.documents import Reader
from tests.support import ROOT
from tests.support.database import emptied_database
from tests.support.sale_steps import audit, create_product, one, order, pay, place_hold
from tests.support.waiting import wait_until

GUIDE = ROOT / "docs/services.md"

shared, postgresql = emptied_database("flashsale_guide")


@pytest.fixture(scope="module")
def guide(shared: tuple[str, dict], cluster: Cluster, tmp_path_factory) -> Iterator[Reader]:
    """The reader that has run the whole guide."""
    admin, _ = shared
    service = cluster.url("warehouse", "flashsale_guide")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", service)
        patch.setenv("KEY_SECRET", "of the tests")
        with Reader(tmp_path_factory.mktemp("guide"), superuser=admin, role=service) as reader:
            reader.type_all(GUIDE)
            with psycopg.connect(admin) as conn:
                assert audit(conn) == []
            yield reader
    with psycopg.connect(admin) as conn:
        conn.execute("drop owned by warehouse cascade")
        conn.execute("drop role warehouse")


@pytest.fixture
def names(guide: Reader, db: psycopg.Connection) -> dict:
    """The names that the guide's Python has defined, with an empty shop and warehouse."""
    db.execute(
        "truncate warehouse.carts, warehouse.shipments; update warehouse.progress set last_event_id = 0"
    )
    return guide.names


def test_every_example_prints_what_the_guide_says(guide):
    assert guide.names  # the fixture has looked


@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "55P03"])
def test_what_was_rolled_back_is_done_again(names, sqlstate):
    attempts = []

    def work(conn):
        attempts.append(1)
        if len(attempts) < 3:
            conn.execute(f"do $$ begin raise exception using errcode = '{sqlstate}'; end $$")
        return "done"

    assert names["in_transaction"](work) == "done"
    assert len(attempts) == 3


@pytest.mark.parametrize("sqlstate", ["SA002", "22012", "42501", "23505", "57014"])
def test_what_was_refused_is_not(names, sqlstate):
    attempts = []

    def work(conn):
        attempts.append(1)
        conn.execute(f"do $$ begin raise exception using errcode = '{sqlstate}'; end $$")

    with pytest.raises(psycopg.Error):
        names["in_transaction"](work)
    assert len(attempts) == 1


def test_a_connection_lost_before_the_commit_costs_nothing(names, db):
    product = create_product(db)
    attempts = []

    def work(conn):
        attempts.append(place_hold(conn, product, 2, "cart-lost"))
        if len(attempts) == 1:
            db.execute("select pg_terminate_backend(%s)", (conn.info.backend_pid,))

    names["in_transaction"](work)
    assert len(attempts) == 2
    assert attempts[0] != attempts[1]
    assert one(db, "select held from flashsale.stock where product_id = %s", product) == 2


def test_one_lost_after_the_commit_costs_nothing_either(names, db):
    product = create_product(db)
    attempts = []

    def work(conn):
        attempts.append(place_hold(conn, product, 2, "cart-lost"))
        if len(attempts) == 1:
            conn.commit()
            raise psycopg.OperationalError("the answer to the commit never came")

    names["in_transaction"](work)
    assert attempts[0] == attempts[1]
    assert one(db, "select held from flashsale.stock where product_id = %s", product) == 2


def test_a_batch_passes_by_a_locked_product_and_comes_back_to_it(names, db, connect):
    locked, free = create_product(db), create_product(db)
    other = connect(autocommit=False)
    place_hold(other, locked)
    done = threading.Event()
    outcomes = {}

    def reserve():
        outcomes.update(names["reserve_many"]([("free", free, 1), ("locked", locked, 1)]))
        done.set()

    thread = threading.Thread(target=reserve)
    thread.start()
    held = "select held from flashsale.stock where product_id = %s"
    wait_until(lambda: one(db, held, free) == 1, "the free product is served")
    assert not done.is_set()
    other.commit()
    thread.join(20)
    assert {key: sqlstate for key, (sqlstate, _) in outcomes.items()} == {"free": None, "locked": None}


def test_a_reader_that_dies_at_any_event_neither_misses_nor_repeats_one(names, db):
    product = create_product(db, stock=50)
    for _ in range(6):
        pay(db, order(db, product))
    wanted = one(db, "select count(*) from flashsale_data.events where kind = 'order_paid'")
    deaths = iter(range(1, 100))

    def ship_or_die(conn, event):
        names["ship"](conn, event)
        if next(deaths) % 7 == 0:
            raise RuntimeError("killed")

    while True:
        try:
            if not names["read_news"](ship_or_die, limit=5):
                break
        except RuntimeError:
            continue
    assert one(db, "select count(*) from warehouse.shipments") == wanted
    assert one(db, "select last_event_id from warehouse.progress") == one(
        db, "select max(event_id) from flashsale_data.events"
    )


def test_readers_at_once_and_late_commits_neither_miss_nor_repeat_one(names, db, connect):
    product, other = create_product(db, stock=100), create_product(db, stock=100)
    seen, lock, stop = [], threading.Lock(), threading.Event()

    def note(conn, event):
        with lock:
            seen.append(event["event_id"])

    def read():
        while not stop.is_set():
            names["read_news"](note, limit=7)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    late = connect(autocommit=False)
    for _ in range(10):
        place_hold(late, product)
        for _ in range(5):
            place_hold(db, other)
        late.commit()
    stop.set()
    for reader in readers:
        reader.join(20)
    while names["read_news"](note):
        pass
    written = db.execute("select event_id from flashsale_data.events order by event_id").fetchall()
    assert seen == [event_id for (event_id,) in written]
    assert len(seen) == 2 + 10 + 50


def test_the_reader_ships_nothing_of_a_test_product(names, db):
    for is_test in (True, False, True):
        pay(db, order(db, create_product(db, is_test=is_test)))
    while names["read_news"](names["ship"]):
        pass
    shipped = db.execute("select product_id from warehouse.shipments").fetchall()
    real = db.execute("select product_id from flashsale_data.products where not is_test").fetchall()
    assert shipped == real
    assert len(real) == 1


def test_the_control_a_place_kept_apart_from_the_work_repeats_events(names, db):
    """The control: with the position stored in a separate transaction, a crash in between repeats events."""
    pay(db, order(db, create_product(db)))
    shipped = []

    def read_wrongly(die):
        with psycopg.connect(os.environ["DATABASE_URL"]) as conn:
            (after,) = conn.execute("select last_event_id from warehouse.progress").fetchone()
            news = conn.execute("select event_id, kind from flashsale.read_events(%s::bigint, 100)", (after,))
            rows = news.fetchall()
            shipped.extend(event_id for event_id, kind in rows if kind == "order_paid")
        if not die:
            with psycopg.connect(os.environ["DATABASE_URL"]) as conn:
                conn.execute("update warehouse.progress set last_event_id = %s", (rows[-1][0],))

    read_wrongly(die=True)
    read_wrongly(die=False)
    assert len(shipped) == 2 * len(set(shipped))
