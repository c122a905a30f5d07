"""The database against a plain model of the contract, step by step, with bursts of real concurrency.

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

STEPS_A_SHOP = 120
SHOPS_A_SEED = 40
PLAYERS = 2
"""processes, each with a database"""

MUST_MEET = {
    *("SA001", "SA002", "SA003", "SA004", "SA005", "SA006", "SA008", "SA009", "SA010", "SA011"),
    *("applied", "no_change", "refund_due", "amount_mismatch", "stored", "replayed", "purged"),
}
"""what a whole campaign that met everything has been told; SA007 is for reads"""


def play(database_url: str, first_seed: int, steps: int) -> Counter[str]:
    """Run shops until `steps` have been taken; what was met, and how often. Each 40 shops have a seed of
    their own, `first_seed` and what follows it: Hypothesis prints the smallest case it finds of what went
    wrong."""
    conns = [psycopg.connect(database_url, autocommit=True) for _ in range(CONNECTIONS)]
    for conn in conns:
        conn.execute("set deadlock_timeout = '20ms'; set statement_timeout = '30s'")
    keep_plan(conns[0])
    machine = type("Shop", (ShopMachine,), {"conns": conns, "met": Counter()})
    options = settings(
        max_examples=min(SHOPS_A_SEED, 1 + steps // STEPS_A_SHOP),
        stateful_step_count=STEPS_A_SHOP,
        phases=[Phase.generate, Phase.shrink],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    while machine.met["steps"] < steps:
        machine.met["seeds"] += 1
        run_state_machine_as_test(seed(first_seed + machine.met["seeds"])(machine), settings=options)
        conns[0].execute("vacuum")
    for conn in conns:
        conn.close()
    return machine.met


def test_the_database_does_what_the_model_does(campaign: Campaign, clone: Callable[[], str]) -> None:
    steps = campaign.size(600, 500_000)
    players = campaign.size(1, PLAYERS)
    seeds = [campaign.random.randrange(2**32) for _ in range(players)]
    # Not forked: a fork of the test's process would share its connections.
    with ProcessPoolExecutor(players, mp_context=multiprocessing.get_context("spawn")) as pool:
        played = [pool.submit(play, clone(), first_seed, steps // players) for first_seed in seeds]
        met = sum((player.result() for player in played), Counter())
    assert met["steps"] >= steps
    assert not campaign.full or met.keys() >= MUST_MEET
    campaign.tried(
        f"{met['steps']:,} steps of a Hypothesis machine beside a Python model; {met['bursts']:,} of them"
        f" bursts of 2 to {CONNECTIONS} calls at once, {met['raced']:,} calls; seeds from"
        f" {' and '.join(str(first + 1) for first in seeds)}"
    )
