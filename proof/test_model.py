"""The database against a model of the contract, step by step, with bursts of concurrent calls.

The rules are in proof/model_machine.py, the model in proof/model.py.
"""

import multiprocessing
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import psycopg
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from proof.campaign import Campaign
from proof.model_machine import CONNECTIONS, ShopMachine
from proof.tables import keep_plan

STEPS_A_RUN = 120
RUNS_A_SEED = 40
PROCESSES = 2
"""each with a database of its own"""

MUST_OCCUR = {
    *("SA001", "SA002", "SA003", "SA004", "SA005", "SA006", "SA008", "SA009", "SA010", "SA011"),
    *("SA007", "SA012", "SA013", "SA014", "SA015", "SA016", "SA017", "SA018", "SA019"),
    *("SA020", "SA021", "SA022", "begun", "refunded", "awaits its payment", "sale cancelled"),
    *("applied", "no_change", "refund_due", "amount_mismatch", "stored", "replayed", "purged", "forgotten"),
}
"""refusals and results of a campaign that reaches everything"""


def run_machines(database_url: str, first_seed: int, steps: int) -> Counter[str]:
    """Run state machines for `steps` steps. Each RUNS_A_SEED runs have a seed of their own, from `first_seed`
    on. Of a failure Hypothesis prints the smallest example. Returns what occurred, and how often."""
    conns = [psycopg.connect(database_url, autocommit=True) for _ in range(CONNECTIONS)]
    for conn in conns:
        conn.execute("set deadlock_timeout = '20ms'; set statement_timeout = '30s'")
    keep_plan(conns[0])
    machine = type("Machine", (ShopMachine,), {"conns": conns, "counts": Counter()})
    options = settings(
        max_examples=min(RUNS_A_SEED, 1 + steps // STEPS_A_RUN),
        stateful_step_count=STEPS_A_RUN,
        phases=[Phase.generate, Phase.shrink],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    while machine.counts["steps"] < steps:
        machine.counts["seeds"] += 1
        run_state_machine_as_test(seed(first_seed + machine.counts["seeds"])(machine), settings=options)
        conns[0].execute("vacuum")
    for conn in conns:
        conn.close()
    return machine.counts


def test_the_database_behaves_as_the_model(campaign: Campaign, clone: Callable[[], str]) -> None:
    steps = campaign.size(600, 400_000)
    processes = campaign.size(1, PROCESSES)
    seeds = [campaign.random.randrange(2**32) for _ in range(processes)]
    # Spawned, because a fork would share the connections of this process.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = [pool.submit(run_machines, clone(), first_seed, steps // processes) for first_seed in seeds]
        counts = sum((future.result() for future in running), Counter())
    assert counts["steps"] >= steps
    assert not campaign.full or counts.keys() >= MUST_OCCUR
    campaign.record(
        f"{counts['steps']:,} steps of a Hypothesis machine beside the model; of them {counts['bursts']:,}"
        f" bursts of 2 to {CONNECTIONS} concurrent calls, {counts['concurrent']:,} calls; seeds from"
        f" {' and '.join(str(first + 1) for first in seeds)}",
        steps=counts["steps"],
        bursts_of_concurrent_calls=counts["bursts"],
    )
