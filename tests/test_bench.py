"""`make bench`, in small: one measurement of each kind, through to the report."""

import shutil
import time

import pytest

from bench import growth, overload, plot, report
from bench.database import running_database
from bench.generator import Seen
from bench.open_loop import open_loop
from bench.rounds import Key, interleave, over_http, straight
from bench.servers import CEILING, FLASHSALE, PGBENCH, running_server
from bench.targets import GROWTH, PEAK, TWICE, Target, judge
from bench.workloads import FLOW, PLACE_HOLDS_20
from bench.wrk import Broken

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk comes with bin/bootstrap bench"),
]


def silent(_):
    pass


def test_a_wrong_answer_spoils_a_run_and_right_ones_are_measured_side_by_side_and_reported(tmp_path):
    ours, bound, sql = Key(FLOW.name, FLASHSALE), Key(FLOW.name, CEILING), Key(PLACE_HOLDS_20.name, PGBENCH)
    with (
        running_database() as database,
        running_server(FLASHSALE, database.app_url, tmp_path / "log") as flashsale,
        running_server(CEILING, database.app_url, tmp_path / "log") as ceiling,
    ):
        with pytest.raises(Broken, match="404"), open_loop(flashsale, 1, per_second=50):
            time.sleep(0.5)  # nothing is on sale yet
        samples = interleave(
            {
                ours: over_http(database, FLOW, FLASHSALE, flashsale),
                bound: over_http(database, FLOW, CEILING, ceiling),
                sql: straight(database, PLACE_HOLDS_20),
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
    assert plot.bars(samples, "requests a second").count("<rect") == 1 + 2 * 3


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
    assert "2,500 holds lapse at one instant" in lapsing and "while swept" in lapsing
    assert "flashsale place_holds fast" in memory and "its worker 1" in memory
    assert "\n| 2 " in snapshot


def test_overload_is_offered_whether_or_not_answers_keep_up():
    found = overload.run(silent, overload.Size(rounds=1, seconds=1, crowds=(16,), buyers=100))
    (verdict,) = found.verdicts
    assert verdict.ratio > 0
    assert set(found.samples) == {PEAK, TWICE}
    assert "16 connections" in found.text


def test_what_the_generator_saw_survives_the_file(tmp_path):
    seen = Seen()
    seen.due.extend((1.0, 2.0))
    seen.came.extend((1.5, 2.5))
    seen.status.extend((201, 503))
    seen.unsent = 7
    seen.write(tmp_path / "seen")
    assert vars(Seen.read(tmp_path / "seen")) == vars(seen)
