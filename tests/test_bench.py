"""`make bench`, in small: one measurement of each kind, through to the report."""

import http.client
import json
import shutil
import time

import pytest

from bench import call_size, growth, overload, plot, report
from bench.database import AuditFailed, running_database
from bench.load_generator import ResponseLog
from bench.open_loop import open_loop
from bench.rounds import Key, interleave, over_http, straight
from bench.servers import CEILING, FLASHSALE, PGBENCH, REDIS, running_server
from bench.targets import GROWTH, PEAK, TWICE, Target, judge
from bench.workloads import BARE_INSERT_100, CALL_SIZES, FLOW, HOT_HOLD_256, PLACE_HOLDS_20, SET_BASED
from bench.wrk import BenchmarkFailed

pytestmark = pytest.mark.slow
needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk comes with bin/bootstrap bench")


def silent(_):
    pass


@needs_wrk
def test_a_wrong_answer_spoils_a_run_and_right_ones_are_measured_side_by_side_and_reported(tmp_path):
    ours, bound, sql = Key(FLOW.name, FLASHSALE), Key(FLOW.name, CEILING), Key(PLACE_HOLDS_20.name, PGBENCH)
    bare = Key(BARE_INSERT_100.name, PGBENCH)
    with (
        running_database() as database,
        running_server(FLASHSALE, database.app_url, tmp_path / "log") as flashsale,
        running_server(CEILING, database.app_url, tmp_path / "log") as ceiling,
    ):
        with pytest.raises(BenchmarkFailed, match="404"), open_loop(flashsale, 1, per_second=50):
            time.sleep(0.5)  # nothing is on sale yet
        samples = interleave(
            {
                ours: over_http(database, FLOW, FLASHSALE, flashsale),
                bound: over_http(database, FLOW, CEILING, ceiling),
                sql: straight(database, PLACE_HOLDS_20),
                bare: straight(database, BARE_INSERT_100),
            },
            rounds=1,
            seconds=1,
            say=silent,
        )
    verdict = judge(Target("whole flow ÷ ceiling", ours, bound, 0.01), samples)
    assert verdict.met
    assert verdict.ratio == samples[ours][0].per_second / samples[bound][0].per_second
    table = report.of_samples(samples)
    assert all(name in table for name in ("hold, order, paid", "place_holds(), 20 a call", "(a) ceiling"))
    assert plot.bars(samples, "requests a second").count("<rect") == 1 + 3 + 4


ONE_CALL = call_size.Size(rounds=1, requests=3000, calls=1)


def test_the_cost_of_every_set_based_function_is_measured_in_calls_of_every_size():
    section = call_size.run(silent, ONE_CALL)
    names = [f"{function.name}()" for function in SET_BASED]
    assert list(section.costs) == names
    assert all(
        tuple(by_size) == CALL_SIZES and min(by_size.values()) > 0 for by_size in section.costs.values()
    )
    assert len(section.verdicts) == len(names)
    assert all(name in section.text for name in names)
    assert plot.curves(section.costs, "microseconds").count("<polyline") == len(names)


def test_a_payment_that_is_not_applied_spoils_the_costs(monkeypatch):
    monkeypatch.setattr(call_size, "PAYLOAD", '{"amount":"1.00","currency":"USD"}')
    with pytest.raises(AuditFailed, match="amount_mismatch"):
        call_size.run(silent, ONE_CALL)


@needs_wrk
def test_holds_in_redis_are_as_exact_as_what_they_are_compared_with(tmp_path):
    redis = pytest.importorskip("redis", reason="redis comes with bin/bootstrap bench")
    from bench.redis_store import expiry_key, find_redis, running_redis, stock_key

    if find_redis() is None:
        pytest.skip("Redis comes with bin/bootstrap bench")
    with (
        running_redis(fsync=True) as store,
        redis.Redis(unix_socket_path=str(store.socket)) as client,
        running_server(
            REDIS, "postgresql:///unused", tmp_path / "log", {"BENCH_REDIS_SOCKET": str(store.socket)}
        ) as server,
    ):
        sample = over_http(store, HOT_HOLD_256, REDIS, server)(1)
        assert sample.per_second > 0
        assert sample.store > 0

        store.start_over(stock=3)
        assert [hold(server, qty)[0] for qty in (4, 3, 1)] == [409, 201, 409]
        assert hold(server, 1, product_id=2)[0] == 404
        store.audit("one hold of three units")
        client.zadd(expiry_key(1), {client.zrange(expiry_key(1), 0, 0)[0]: 0})  # it has expired long ago
        status, placed = hold(server, 2)
        assert (status, placed["qty"], placed["status"]) == (201, 2, "active")
        store.audit("two units, of three that were given back")
        client.hincrby(stock_key(1), "available", 1)
        with pytest.raises(AuditFailed, match="2 available, 2 held of 3"):
            store.audit("a unit too many")


def hold(server, qty, product_id=1):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        body = json.dumps({"product_id": product_id, "qty": qty})
        connection.request("POST", "/api/holds", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


@needs_wrk
def test_growth_is_measured_on_tables_that_audit_finds_nothing_wrong_with():
    found = growth.run(
        silent,
        growth.Size(
            rounds=1, seconds=1, active=2000, finished=3000, lapsing=2500, settled=1, unswept=1,
            warm_up=0, requests=1, slice=1, minutes=2, minute=1,
        ),
    )  # fmt: skip
    rates, memory, snapshot, lapsing = (section.text for section in found)
    assert len(found[0].verdicts) == len(GROWTH)
    assert "2,000 holds are active and 3,000\nhave finished" in rates
    assert "2,500 holds lapse at one instant" in lapsing and "while sweep() runs" in lapsing
    assert "flashsale place_holds fast" in memory and "its worker 1" in memory
    assert "\n| 2 " in snapshot


@needs_wrk
def test_overload_is_offered_whether_or_not_answers_keep_up():
    found = overload.run(silent, overload.Size(rounds=1, seconds=1, peak_connections=(16,), connections=100))
    (verdict,) = found.verdicts
    assert verdict.ratio > 0
    assert set(found.samples) == {PEAK, TWICE}
    assert "16 connections" in found.text


def test_the_response_log_survives_its_file(tmp_path):
    seen = ResponseLog()
    seen.due.extend((1.0, 2.0))
    seen.came.extend((1.5, 2.5))
    seen.status.extend((201, 503))
    seen.unsent = 7
    seen.write(tmp_path / "seen")
    assert vars(ResponseLog.read(tmp_path / "seen")) == vars(seen)
