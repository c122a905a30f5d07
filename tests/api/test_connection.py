"""FunctionConnection without a server: when it is opened again, and what it makes of a failure."""

import asyncio
import itertools
import select
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
import uvloop

from api.database.batching import Batcher, Limits
from api.database.connection import CONNECT_TIMEOUT_SECONDS, SOCKET_TIMEOUT_SECONDS, FunctionConnection
from api.database.errors import OutcomeUnknown, RolledBack, Unavailable
from api.database.functions import PLACE_HOLDS, PlaceHoldsRow
from api.telemetry import metrics as telemetry
from api.telemetry.batch_metrics import BatchMetrics
from tests.api.backends import backends, lock_product
from tests.api.event_loop_clock import in_simulated_time
from tests.support.waiting import wait_until, wait_until_blocked


def connection(url: str, name: str = "test") -> FunctionConnection[PlaceHoldsRow]:
    return FunctionConnection(url, name, PLACE_HOLDS, lock_timeout_ms=100, writes=True)


def test_a_connection_that_broke_during_a_call_is_opened_again_without_another(
    database_url: str, db: psycopg.Connection
) -> None:
    async def test() -> None:
        one = connection(database_url)
        await one.open()
        (pid,) = backends(db, "test")
        db.execute("alter function flashsale.place_holds rename to hidden")
        with pytest.raises(RolledBack):
            await one.call([(1, 1, None, None)])
        db.execute("alter function flashsale.hidden rename to place_holds")
        async with asyncio.timeout(30):
            while backends(db, "test") in ([], [pid]):
                await asyncio.sleep(0.01)
        await one.close()
        wait_until(lambda: not backends(db, "test"), "it is closed, and stays so")

    asyncio.run(test())


def test_a_connection_that_is_opened_on_demand_is_not_opened_again(
    database_url: str, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of the slow path: it is closed, and no more."""
    monkeypatch.setattr("api.database.connection.RECONNECT_DELAY_SECONDS", 0)

    async def test() -> None:
        metrics = BatchMetrics("test").path("slow")
        one = FunctionConnection(
            database_url, "test", PLACE_HOLDS, lock_timeout_ms=100, writes=True, metrics=metrics
        )
        await one.call([(1, 1, None, None)])
        gauge = telemetry.db_connections.labels("test", "slow")
        assert gauge._value.get() == 1
        db.execute("select pg_terminate_backend(%s, 5000)", backends(db, "test"))
        async with asyncio.timeout(30):
            while gauge._value.get():
                await asyncio.sleep(0.01)
        await asyncio.sleep(0)
        assert backends(db, "test") == []
        await one.close()

    asyncio.run(test())


@in_simulated_time
async def test_the_background_attempts_of_an_outage_are_a_second_apart() -> None:
    attempts: list[float] = []

    async def refuse(*_: object, **__: object) -> None:
        attempts.append(asyncio.get_running_loop().time())
        raise psycopg.OperationalError("connection refused")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.AsyncConnection, "connect", refuse)
        one = connection("host=nowhere")
        await one.open()
        await asyncio.sleep(10.5)
        await one.close()
        await asyncio.sleep(10)
    pauses = [after - before for before, after in itertools.pairwise(attempts)]
    assert [round(pause, 1) for pause in pauses] == [0.2, 0.4, 0.8, *9 * [1.0]]


def test_a_product_that_is_unlocked_in_time_is_sold(
    database_url: str, db: psycopg.Connection, connect: Callable[..., psycopg.Connection]
) -> None:
    db.execute("select flashsale.create_product('Shoe', 50, 99, 'USD')")
    operator = connect(autocommit=False)
    lock_product(operator, 1)

    def unlock_once_it_waits() -> None:
        wait_until(lambda: backends(db, "flashsale slow"), "the request is on the slow path")
        wait_until_blocked(backends(db, "flashsale slow")[0], watcher=db)
        operator.rollback()

    async def test() -> None:
        fast, slow = connection(database_url, "flashsale fast"), connection(database_url, "flashsale slow")
        batcher = Batcher(
            fast.call, slow.call, key_index=0, limits=Limits(queue_timeout=60, response_timeout=90)
        )
        waiting = batcher.submit(1, 1, None, None)
        await asyncio.to_thread(unlock_once_it_waits)
        assert (await waiting).sqlstate is None
        await fast.close()
        await slow.close()

    asyncio.run(test())


def test_a_connection_distinguishes_rolled_back_from_unknown(
    database_url: str, db: psycopg.Connection
) -> None:
    db.execute("select flashsale.create_product('Shoe', 50, 99, 'USD')")

    async def test() -> None:
        one = connection(database_url)
        assert [row[:2] for row in await one.call([(1, 1, None, None), (2, 1, None, None)])] == [
            (0, None),
            (1, "SA001"),
        ]
        with pytest.raises(RolledBack) as raised:
            await one.call([(1, 1, "nul\0", None)])
        assert raised.value.sqlstate == "22021"
        with pytest.raises(RolledBack) as raised:
            await one.call([(2**64, 1, None, None)])
        assert raised.value.sqlstate.startswith("22")
        assert (await one.call([(1, 1, None, None)]))[0].sqlstate is None, "the connection is still usable"
        await one.close()

    asyncio.run(test())
    assert db.execute("select count(*) from flashsale_data.holds").fetchone() == (2,)


@asynccontextmanager
async def listening(handle: Callable[..., Coroutine[Any, Any, None]]) -> AsyncIterator[int]:
    """A TCP server on a free port, which it yields; ends when every connection has."""
    connections: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(asyncio.current_task())
        try:
            await handle(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.gather(*connections)


def test_a_connection_attempt_times_out_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.database.connection.RECONNECT_DELAY_SECONDS", 60)
    attempts = 0

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        await reader.read()

    async def test() -> None:
        async with listening(swallow) as port:
            one = connection(f"host=127.0.0.1 port={port} user=x dbname=x sslmode=disable gssencmode=disable")
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS + 10):
                for _ in range(2):
                    with pytest.raises(Unavailable):
                        await one.call([(1, 1, None, None)])

    asyncio.run(test())
    assert CONNECT_TIMEOUT_SECONDS == 1
    assert attempts == 1, "right after a failure there is no second attempt"


def test_a_server_that_dies_with_a_request_unread_is_detected_at_once(
    database_url: str, db: psycopg.Connection, tmp_path: Path
) -> None:
    """On uvloop, which does not report a socket's error to its readers."""
    db.execute("select flashsale.create_product('Shoe', 50, 99, 'USD')")
    server = psycopg.conninfo.conninfo_to_dict(database_url)
    is_dying = threading.Event()
    said = b"SWARNING\0VWARNING\0C57P02\0Mterminating connection because of crash\0\0"
    farewell = b"N" + (len(said) + 4).to_bytes(4, "big") + said

    def proxy(listener: socket.socket) -> None:
        client, _ = listener.accept()
        with client, socket.socket(socket.AF_UNIX) as back:
            back.connect(f"{server['host']}/.s.PGSQL.{server.get('port', 5432)}")
            other = {client: back, back: client}
            while True:
                for readable in select.select(list(other), [], [])[0]:
                    if is_dying.is_set():
                        client.sendall(farewell)
                        return
                    other[readable].sendall(readable.recv(65536))

    async def test() -> None:
        one = connection(f"host={tmp_path} port=1 user={server['user']} dbname={server['dbname']}")
        assert (await one.call([(1, 1, None, None)]))[0].sqlstate is None
        is_dying.set()
        async with asyncio.timeout(SOCKET_TIMEOUT_SECONDS - 1):
            with pytest.raises(OutcomeUnknown):
                await one.call([(1, 1, None, None)])
        await one.close()

    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as pool:
        listener.bind(f"{tmp_path}/.s.PGSQL.1")
        listener.listen()
        proxied = pool.submit(proxy, listener)
        uvloop.run(test())
        proxied.result()


def test_a_connection_without_a_response_is_closed_and_replaced(
    database_url: str, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    db.execute("select flashsale.create_product('Shoe', 50, 99, 'USD')")
    server = psycopg.conninfo.conninfo_to_dict(database_url)
    socket = f"{server['host']}/.s.PGSQL.{server.get('port', 5432)}"

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                await gate.wait()
                writer.write(data)
                await writer.drain()
        writer.close()

    async def test() -> None:
        hearing, talking = asyncio.Event(), asyncio.Event()
        hearing.set()
        talking.set()

        async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_unix_connection(socket)
            # The server hears everything; its answers may be withheld.
            await asyncio.gather(pump(reader, back, hearing), pump(there, writer, talking))
            await back.wait_closed()

        async with listening(proxy) as port:
            one = connection(
                f"host=127.0.0.1 port={port} user={server['user']} dbname={server['dbname']}"
                " sslmode=disable gssencmode=disable"
            )
            assert (await one.call([(1, 1, "before", None)]))[0].sqlstate is None
            talking.clear()
            with monkeypatch.context() as patch, pytest.raises(OutcomeUnknown):
                patch.setattr("api.database.connection.SOCKET_TIMEOUT_SECONDS", 0.3)
                await one.call([(1, 1, "silence", None)])
            talking.set()
            row = (await one.call([(1, 1, "silence", None)]))[0]
            assert row.replayed, "it was committed: the retry with the same key is a replay"
            await one.close()

    asyncio.run(test())
