"""The connection between API and database fails at every message of every call, in each direction.

A response states what was done, or is a 503 that is safe to retry. After a retry with the same key the effect
has happened once.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator

import httpx
import psycopg
import pytest
from pytest_postgresql.janitor import DatabaseJanitor

from flashsale.database.migrations import migrate
from flashsale.database.seed import APP_ROLE, create_app_role
from flashsale.local.cluster import PORT, SUPERUSER, Cluster
from proof import api_calls
from proof.api_calls import CONNECTIONS, POOL, ApiCall, MakeCall
from proof.campaign import Campaign
from proof.load_clients import Connection
from proof.pg_proxy import Direction, Failure, FailurePoint, PgProxy, Trace, pg_proxy
from proof.raw_http import Response
from tests.support.http import running_server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


class ProxiedServer:
    """The HTTP server, with a proxy before its database."""

    def __init__(self, url: str, proxy: PgProxy, db: psycopg.Connection) -> None:
        self.url = url
        self.proxy = proxy
        self.db = db
        self.http = httpx.Client(base_url=url, timeout=10)

    def send(self, call: ApiCall) -> httpx.Response:
        headers = {"Idempotency-Key": call.key} if call.key else {}
        return self.http.request(call.method, call.path, json=call.body, headers=headers)

    def send_until_definite(self, call: ApiCall) -> httpx.Response:
        responses: list[httpx.Response] = []

        def is_definite() -> bool:
            responses.append(self.send(call))
            return responses[-1].status_code != 503

        wait_until(is_definite, "the response is definite", 10)
        return responses[-1]

    def effects(self, call: ApiCall) -> int:
        """How often the call has been done."""
        column, value = call.subject
        query = f"select count(*) from flashsale_data.events where kind = %s and {column} = %s"
        return self.db.execute(query, (call.event, value)).fetchone()[0]

    def wait_until_backend_ends(self, trace: Trace) -> None:
        """Until the backend of a failed connection, and with it its transaction, has ended."""
        query = "select not exists (select from pg_stat_activity where pid = %s)"
        wait_until(lambda: self.db.execute(query, (trace.pid,)).fetchone()[0], "the backend has ended")


@pytest.fixture(scope="module")
def proxied(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxiedServer]:
    name, log = "flashsale_proxied", tmp_path_factory.mktemp("proxied") / "gunicorn.log"
    with (
        DatabaseJanitor(user=SUPERUSER, host=str(cluster.socket_directory), port=PORT, dbname=name),
        psycopg.connect(cluster.url(SUPERUSER, name), autocommit=True) as db,
        pg_proxy(f"{cluster.socket_directory}/.s.PGSQL.{PORT}") as proxy,
    ):
        migrate(cluster.url(SUPERUSER, name), schedule=False, say=lambda _: None)
        create_app_role(db)
        through = f"host=127.0.0.1 port={proxy.port} sslmode=disable gssencmode=disable"
        with running_server(f"{through} dbname={name} user={APP_ROLE}", log) as url:
            server = ProxiedServer(url, proxy, db)
            yield server
            server.http.close()


def outcome(response: httpx.Response | Response) -> str:
    """The problem's code; "served" if it is none."""
    status = response.status if isinstance(response, Response) else response.status_code
    if status < 300:
        return "served"
    assert status == 503, (status, response)
    assert int(response.headers["retry-after"]) >= 1
    return response.code if isinstance(response, Response) else response.json()["code"]


def is_correct(outcome: str, effects: int) -> bool:
    return effects in {"served": {1}, "outcome_unknown": {0, 1}}.get(outcome, {0})


def fail_at(server: ProxiedServer, make: MakeCall, point: FailurePoint) -> tuple[str, int]:
    """Send a call, break its connection, compare response and effect, and retry. Returns the first outcome
    and how often the call had been done by then."""
    call = make(server.db)
    trace = server.proxy.inject(CONNECTIONS[make], point)
    response = server.send(call)
    # The pool may use another connection, and a statement may be prepared already or not.
    assert trace.failed or CONNECTIONS[make] == POOL, f"the failure was not reached: {trace.messages}"
    first = outcome(response) if trace.failed else "not reached"
    assert response.elapsed.total_seconds() < 2.5
    if call.event is None:
        assert first in ("served", "unavailable", "not_ready", "not reached"), "a read has no unknown outcome"
        assert server.send_until_definite(call).status_code == 200
        return first, 0
    server.wait_until_backend_ends(trace)
    done = server.effects(call)
    assert is_correct(first, done), f"{first}, and was done {done} times"
    if make is api_calls.hold_without_key:
        server.send_until_definite(make(server.db))
        return first, done
    again = server.send_until_definite(call)
    assert again.status_code == (call.again if call.again and done else call.served), again.text
    assert ("idempotency-replayed" in again.headers) == (call.replays and done == 1)
    if first == "served" and call.replays:
        assert again.json() == response.json()
    assert server.effects(call) == 1
    return first, done


def messages(server: ProxiedServer, make: MakeCall, fresh: bool) -> dict[Direction, list[str]]:
    """The messages of a call without a failure, on a connection in use or a new one.

    The server may look after an idle connection meanwhile: two calls in succession have the same messages.
    """
    seen, again = messages_once(server, make, fresh), messages_once(server, make, fresh)
    while seen != again:
        seen, again = again, messages_once(server, make, fresh)
    return seen


def messages_once(server: ProxiedServer, make: MakeCall, fresh: bool) -> dict[Direction, list[str]]:
    call = make(server.db)
    if fresh:
        server.proxy.disconnect(CONNECTIONS[make])
    trace = server.proxy.inject(CONNECTIONS[make], None)
    assert server.send(call).status_code == call.served
    return {direction: list(kinds) for direction, kinds in trace.messages.items()}


def every_point(seen: dict[Direction, list[str]], failure: Failure) -> Iterator[FailurePoint]:
    for direction in Direction:
        for after in range(len(seen[direction]) + 1):
            yield FailurePoint(direction, after, failure=failure)
            if after < len(seen[direction]):
                yield FailurePoint(direction, after, half=True, failure=failure)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Some calls in the small form, all in the campaign."""
    writes = [api_calls.hold, api_calls.create_order, api_calls.payment]
    small, full = {
        "test_failure_at_every_message": (
            [*writes, api_calls.extension, api_calls.read_product],
            list(CONNECTIONS),
        ),
        "test_a_connection_that_falls_silent": (
            writes[:1],
            [*writes, api_calls.release, api_calls.read_product],
        ),
        "test_failure_under_a_batch": (writes[:1], writes),
    }[metafunc.function.__name__]
    chosen = full if metafunc.config.getoption("--proof-full") else small
    metafunc.parametrize("make", chosen, ids=lambda make: make.__name__)


def test_failure_at_every_message(campaign: Campaign, proxied: ProxiedServer, make: MakeCall) -> None:
    proxied.send(make(proxied.db))
    results: Counter[tuple[str, int]] = Counter()
    failures = campaign.size([Failure.CLOSE], [Failure.CLOSE, Failure.RESET])
    for fresh in campaign.size([False], [False, True]):
        seen = messages(proxied, make, fresh)
        # Sync, or Query where there is nothing to bind; and ReadyForQuery.
        assert seen[Direction.TO_SERVER][-1] in ("S", "Q") and seen[Direction.TO_CLIENT][-1] == "Z", seen
        for point in itertools.chain.from_iterable(every_point(seen, failure) for failure in failures):
            try:
                if fresh or CONNECTIONS[make] == POOL:
                    proxied.proxy.disconnect(CONNECTIONS[make])
                if not fresh and CONNECTIONS[make] == POOL:
                    proxied.send_until_definite(make(proxied.db))
                results[fail_at(proxied, make, point)] += 1
            except AssertionError as error:
                error.add_note(f"{make.__name__}, {'fresh' if fresh else 'warm'}, {point}")
                raise
    del results["not reached", 0]
    if make(proxied.db).event is not None:
        assert results["outcome_unknown", 1], "an executed call whose response was lost"
        assert results["outcome_unknown", 0], "a call that did not arrive completely"
    names = {("outcome_unknown", 0): "unknown and not done", ("outcome_unknown", 1): "unknown and done"}
    outcomes = ", ".join(f"{times} {names.get(what, what[0])}" for what, times in sorted(results.items()))
    campaign.record(
        f"{make.__name__.replace('_', ' ')}: the connection fails at every message, {results.total()} times",
        f"all; first outcomes: {outcomes}",
        failures=results.total(),
    )


def test_a_connection_that_falls_silent(campaign: Campaign, proxied: ProxiedServer, make: MakeCall) -> None:
    proxied.send(make(proxied.db))
    seen = messages(proxied, make, fresh=False)
    # Silence after the last message is only noticed by the next call.
    to_client = Direction.TO_CLIENT
    last = FailurePoint(to_client, len(seen[to_client]), failure=Failure.BLACKHOLE)
    points = [point for point in every_point(seen, Failure.BLACKHOLE) if point != last]
    times = campaign.size(1, 6)
    for point in campaign.random.sample(points, times):
        fail_at(proxied, make, point)
    campaign.record(
        f"{make.__name__.replace('_', ' ')}: the connection falls silent, {times} times", silences=times
    )


def test_failure_under_a_batch(campaign: Campaign, proxied: ProxiedServer, make: MakeCall) -> None:
    """Among the rows of its result: before the commit, or at a random message."""
    bursts, many = campaign.size(2, 20), 200
    outcomes: Counter[tuple[str, int]] = Counter()
    failed_before_commit = 0
    for burst in range(bursts):
        calls = [make(proxied.db) for _ in range(many)]
        proxied.send_until_definite(make(proxied.db))
        # A call of a prepared statement is Bind, Describe, Execute, Sync. Without its Sync the second one is
        # not committed; what of its rows is more than 8 KB arrives all the same.
        before_commit = burst % 2 == 0
        after, half = campaign.random.randrange(*((20, 80) if before_commit else (5, 150))), bool(burst & 2)
        limit = 4 + 3 if before_commit else None
        point = FailurePoint(Direction.TO_CLIENT, after, half, server_limit=limit)
        trace = proxied.proxy.inject(CONNECTIONS[make], point, released=False)
        responses = asyncio.run(send_as_batch(proxied.url, calls, trace))
        assert trace.failed, f"the failure was not reached: {point}, {trace.messages}"
        # On a busy machine the first call may have taken so many that it fails instead.
        received = trace.messages[Direction.TO_CLIENT]
        failed_before_commit += before_commit and "Z" in received and received[-1] == "D"
        proxied.wait_until_backend_ends(trace)
        for call, response in zip(calls, responses, strict=True):
            first, done = outcome(response), proxied.effects(call)
            assert is_correct(first, done), f"{first}, and was done {done} times; {point}"
            outcomes[first, done] += 1
        for call in calls:
            again = proxied.send_until_definite(call)
            assert again.status_code == call.served
            assert proxied.effects(call) == 1
    assert failed_before_commit and outcomes["outcome_unknown", 0] and outcomes["served", 1]
    campaign.record(
        f"{make.__name__.replace('_', ' ')}: the connection fails under a batch of {many}, {bursts} times",
        f"all; {failed_before_commit} times between the first rows and the commit",
        failed_batches=bursts,
    )


async def send_as_batch(url: str, calls: list[ApiCall], trace: Trace) -> list[Response]:
    """The responses. Messages are relayed once all requests have arrived: those that the first call does not
    take are batched in the second."""
    buyers = [Connection(url) for _ in calls]
    for buyer in buyers:
        await buyer.request("GET", "/healthz")
    requests = [
        asyncio.create_task(buyer.request(call.method, call.path, call.body, call.key))
        for buyer, call in zip(buyers, calls, strict=True)
    ]
    bystander = Connection(url)
    for _ in range(3):  # each after what the server's only thread had queued
        await bystander.request("GET", "/healthz")
    await bystander.close()
    trace.released.set()
    responses = await asyncio.gather(*requests)
    for buyer in buyers:
        await buyer.close()
    return responses
