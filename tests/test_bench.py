"""`make bench`, in small: one measurement of each kind, through to the report."""

import shutil

import pytest

from bench import plot, report
from bench.database import running_database
from bench.rounds import Key, interleave, over_http, straight
from bench.servers import CEILING, FLASHSALE, PGBENCH, running_server
from bench.targets import Target, judge
from bench.works import FLOW, PLACE_HOLDS_20

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk comes with bin/bootstrap bench"),
]


def test_a_flow_and_a_script_are_measured_side_by_side_and_reported(tmp_path):
    ours, bound, sql = Key(FLOW.name, FLASHSALE), Key(FLOW.name, CEILING), Key(PLACE_HOLDS_20.name, PGBENCH)
    with (
        running_database() as database,
        running_server(FLASHSALE, database.app_url, tmp_path / "log") as flashsale,
        running_server(CEILING, database.app_url, tmp_path / "log") as ceiling,
    ):
        samples = interleave(
            {
                ours: over_http(database, FLOW, FLASHSALE, flashsale),
                bound: over_http(database, FLOW, CEILING, ceiling),
                sql: straight(database, PLACE_HOLDS_20),
            },
            rounds=1,
            seconds=1,
            say=lambda _: None,
        )
    verdict = judge(Target("whole flow ÷ ceiling", ours, bound, 0.01), samples)
    assert verdict.met
    assert verdict.ratio == samples[ours][0].per_second / samples[bound][0].per_second
    table = report.of_samples(samples)
    assert all(name in table for name in ("hold, order, paid", "place_holds(), 20 a call", "(a) ceiling"))
    assert plot.bars(samples, "requests a second").count("<rect") == 1 + 2 * 3
