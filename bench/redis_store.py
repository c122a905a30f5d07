"""Redis for baseline (e): a server of the benchmark's own, in a folder that is removed in the end."""

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import redis

from bench.database import PLENTY, AuditFailed
from bench.machine import cpu_seconds
from flashsale.local.os_account import with_pdeathsig

PLACE_HOLD = (Path(__file__).parent / "baselines/place_hold.lua").read_text()
HOLD_SECONDS = 24 * 60 * 60


def stock_key(product_id: int) -> str:
    """A hash; its field `available` counts units."""
    return f"stock:{product_id}"


def expiry_key(product_id: int) -> str:
    """A sorted set: the product's active holds as "hold_id:qty", by the millisecond in which they expire."""
    return f"expiry:{product_id}"


def hold_key(hold_id: int) -> str:
    """A hash: one hold. It expires a day after the hold does."""
    return f"hold:{hold_id}"


class RedisStore:
    """A running Redis.

    :param socket: it listens nowhere else
    :param pid: of the server
    """

    def __init__(self, socket: Path, pid: int) -> None:
        self.socket = socket
        self.pid = pid
        self._client = redis.Redis(unix_socket_path=str(socket))

    def close(self) -> None:
        self._client.close()

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.pid)

    def start_over(self, products: int = 1, stock: int = PLENTY, held: int = 0) -> None:
        """Empty Redis and put products 1 to `products` on sale.

        :param held: active holds of product 1, one unit each
        """
        self._client.flushall()
        for product_id in range(1, products + 1):
            self._client.hset(stock_key(product_id), "available", stock)
        place_hold = self._client.register_script(PLACE_HOLD)
        with self._client.pipeline(transaction=False) as pipeline:
            for hold_id in range(1, held + 1):
                place_hold(
                    [stock_key(1), expiry_key(1), hold_key(hold_id)], [hold_id, 1, 1, HOLD_SECONDS], pipeline
                )
            pipeline.execute()
        self._stock = stock
        self.checkpoint()

    def checkpoint(self) -> None:
        """Rewrite the append-only file, if there is one, so that none is due during a measurement."""
        if self._client.config_get("appendonly")["appendonly"] == "yes":
            self._client.bgrewriteaof()
            while self._client.info("persistence")["aof_rewrite_in_progress"]:
                time.sleep(0.02)

    def settle(self) -> None:
        """Wait until no more holds arrive: wrk exits before its last requests are answered."""
        count = -1
        while count != (count := self._client.dbsize()):
            time.sleep(0.1)

    def audit(self, after: str) -> None:
        """:raises AuditFailed: units of product 1 are missing or too many, or a hold has no record"""
        with self._client.pipeline() as transaction:
            transaction.hget(stock_key(1), "available")
            transaction.zrange(expiry_key(1), 0, -1)
            transaction.keys("hold:*")
            available, active, keys = transaction.execute()
        held = dict(member.decode().split(":") for member in active)
        units = sum(map(int, held.values()))
        missing = held.keys() - {key.decode().removeprefix("hold:") for key in keys}
        if int(available) + units != self._stock or missing:
            raise AuditFailed(
                f"Redis after {after}: {int(available)} available, {units} held of {self._stock};"
                f" {len(missing)} holds without a record"
            )


def find_redis() -> str | None:
    """The path of the server's program.

    Debian's redis-tools installs it as redis-check-rdb; the name under which it is started decides what it
    does. The package redis-server adds a link with the other name, and a service, which is not needed here.
    """
    return shutil.which("redis-server") or shutil.which("redis-check-rdb")


@contextmanager
def running_redis(*, fsync: bool) -> Iterator[RedisStore]:
    """A fresh Redis with nothing but a unix socket.

    :param fsync: every write is on disk before it is acknowledged (appendfsync always); else all is in memory
    """
    directory = Path(tempfile.mkdtemp(prefix="flashsale-bench-redis-", dir="/var/tmp"))
    found = find_redis()
    if found is None:
        raise RuntimeError("Redis is not installed; run bin/bootstrap bench")
    program, socket, log = (directory / name for name in ("redis-server", "socket", "log"))
    program.symlink_to(found)
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "dir": str(directory),
        "save": "",
        "appendonly": "yes" if fsync else "no",
        "appendfsync": "always",
        # checkpoint() rewrites it instead.
        "auto-aof-rewrite-percentage": "0",
    }
    with log.open("wb") as output:
        child = subprocess.Popen(
            [
                *with_pdeathsig(signal.SIGTERM), str(program),
                *[word for name, value in options.items() for word in (f"--{name}", value)],
            ],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        while not socket.exists():
            if child.poll() is not None:
                raise RuntimeError(f"Redis did not start:\n{log.read_text()}")
            time.sleep(0.02)
        with closing(RedisStore(socket, child.pid)) as store:
            yield store
    finally:
        child.terminate()
        child.wait()
        shutil.rmtree(directory)
