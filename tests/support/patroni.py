"""PostgreSQL on three machines, as ops/patroni/ has it, on loopback.

The files are used as they are, but for the network (10.0.0. becomes a network of 127.0.0.0/8), the folders,
the watchdog, which would reset this machine, and the times where a test is to be short.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psycopg

from flashsale.local import processes
from flashsale.local.cluster import find_binary
from flashsale.local.os_account import Account, account_for
from tests.support import ROOT, servers
from tests.support.clusters import cluster_folder
from tests.support.processes import is_running
from tests.support.tcp_link import Link, links
from tests.support.waiting import wait_until

OPS = ROOT / "ops/patroni"
NETWORK = "10.0.0."
NAMES = ("db1", "db2", "db3")
PASSWORD = "secret-5"
"""the superuser's"""
QUICKEST = {"ttl": 20, "loop_wait": 1, "retry_timeout": 3}
"""seconds: the least that Patroni takes"""


def free_network() -> str:
    """The first three numbers of a loopback network, each address of which is unused."""
    while True:
        network = f"127.{random.randrange(1, 250)}.{random.randrange(250)}."
        try:
            for port in (2379, 2380, 5432, 8008):
                socket.create_server((f"{network}11", port)).close()
        except OSError:
            continue
        return network


class Node:
    """A machine with PostgreSQL and Patroni.

    :param address: that others connect to
    :param listen: that it listens on: another one if a link is in between
    """

    def __init__(
        self, name: str, folder: Path, account: Account, programs: Path, address: str, listen: str
    ) -> None:
        self.name = name
        self.folder = folder
        self.data = folder / "data"
        self.address = address
        self.log = folder / "patroni.log"
        self.configuration = folder / "patroni.yml"
        self.links: list[Link] = []
        self._account = account
        self._programs = programs
        self._listen = listen
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start Patroni, as systemd does; it starts PostgreSQL."""
        # As a reboot does: a process may have the id that the killed server had.
        if not processes.with_cwd(self.data):
            (self.data / "postmaster.pid").unlink(missing_ok=True)
        text = (OPS / "environment").read_text().replace("PATRONI_NAME=db1", f"PATRONI_NAME={self.name}")
        settings = dict(line.split("=", 1) for line in text.splitlines() if not line.startswith("#"))
        for name, value in settings.items():
            if value.startswith(NETWORK):
                host = self._listen if name.endswith("_LISTEN") else self.address
                settings[name] = f"{host}:{value.rpartition(':')[2]}"
        command = [sys.executable, self._programs / "bin/patroni", self.configuration]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._account.command(*command, pdeathsig=signal.SIGTERM),
                cwd=self.folder, env=self._environment() | settings,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _environment(self) -> dict[str, str]:
        return os.environ | {
            "PYTHONPATH": str(self._programs),
            "PATRONI_POSTGRESQL_PGPASS": str(self.folder / "pgpass"),
            "HOME": str(self.folder),
        }

    def patronictl_command(self) -> list[str]:
        program = self._programs / "bin/patronictl"
        settings = [f"PYTHONPATH={self._programs}", f"HOME={self.folder}"]
        return self._account.command("env", *settings, sys.executable, program, "-c", self.configuration)

    def patronictl(self, *arguments: str) -> str:
        """What patronictl prints."""
        done = subprocess.run(
            [*self.patronictl_command(), *arguments],
            cwd=self.folder, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def pids(self) -> list[int]:
        """Patroni, and all processes of PostgreSQL."""
        running = [] if self._process is None or self._process.poll() is not None else [self._process.pid]
        return running + [pid for pid in processes.with_cwd(self.data) if pid not in running]

    def postmaster(self) -> int:
        return int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])

    def kill_postgresql(self) -> None:
        """kill -9 of the postmaster; its children end by themselves."""
        self._signal([self.postmaster()], signal.SIGKILL)

    def kill(self) -> None:
        """kill -9 of everything, as when the machine loses power."""
        killed = self.pids()
        self._signal(killed, signal.SIGKILL)
        if self._process is not None:
            self._process.wait(30)
        wait_until(lambda: not any(map(is_running, killed)), f"{self.name} is dead")

    def freeze(self) -> None:
        self._signal(self.pids(), signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(self.pids(), signal.SIGCONT)

    def cut(self) -> None:
        """Nothing reaches it, and it reaches no etcd."""
        for link in self.links:
            link.cut()

    def heal(self) -> None:
        for link in self.links:
            link.heal()

    @staticmethod
    def _signal(pids: list[int], number: signal.Signals) -> None:
        for pid in pids:
            assert pid > 1
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self) -> None:
        """Stop Patroni, which stops PostgreSQL; kill what is left."""
        self.thaw()
        self.heal()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(30)
        self.kill()

    def log_tail(self) -> str:
        """The last lines of Patroni and PostgreSQL."""
        return f"--- {self.name}\n" + "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])

    def is_primary(self) -> bool:
        status = self.status() or {}
        return (status.get("state"), status.get("role")) == ("running", "primary")

    def direct_url(self, dbname: str) -> str:
        """The superuser's, past the links."""
        return f"postgresql://postgres:{PASSWORD}@{self._listen}:5432/{dbname}?connect_timeout=5"

    def status(self) -> dict | None:
        """What Patroni's REST API says of this node; None if it does not answer."""
        return _get(f"http://{self._listen}:8008/patroni")


def _get(url: str) -> dict | None:
    request = urllib.request.Request(url)
    try:
        with urllib.request.urlopen(request, timeout=2) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        with suppress(ValueError):
            return json.load(error)
    except OSError:
        pass
    return None


class Shop:
    """Three nodes and their etcd.

    :param network: the first three numbers of their addresses
    """

    def __init__(self, nodes: list[Node], network: str) -> None:
        self.nodes = nodes
        self.network = network

    def url(self, user: str, dbname: str, password: str = PASSWORD) -> str:
        hosts = ",".join(f"{node.address}:5432" for node in self.nodes)
        return f"postgresql://{user}:{password}@{hosts}/{dbname}?target_session_attrs=primary"

    def roles(self) -> dict[str, str]:
        """By node, of those that answer: primary, replica, …; of a replica that follows, streaming."""
        found = {node.name: node.status() for node in self.nodes}
        return {
            name: "streaming" if status.get("replication_state") == "streaming" else status["role"]
            for name, status in found.items()
            if status is not None and status.get("state") == "running"
        }

    def primary(self) -> Node:
        """The node that is the primary, by its own word."""
        (node,) = [node for node in self.nodes if self.roles().get(node.name) == "primary"]
        return node

    def with_pg_cron(self) -> list[str]:
        """The nodes on which pg_cron runs."""
        query = "select count(*) from pg_stat_activity where backend_type = 'pg_cron launcher'"
        found = []
        for node in self.nodes:
            with psycopg.connect(node.direct_url("postgres")) as conn:
                found += [node.name] * conn.execute(query).fetchone()[0]
        return found

    def is_whole(self) -> bool:
        """Whether there is a primary, and both others follow it and count for its commits."""
        if sorted(self.roles().values()) != ["primary", "streaming", "streaming"]:
            return False
        status = self.primary().status() or {}
        states = [standby["sync_state"] for standby in status.get("replication", [])]
        return states == ["quorum", "quorum"]

    def wait_until_whole(self, timeout: float = 300) -> None:
        try:
            wait_until(self.is_whole, "the primary has both standbys", timeout)
        except AssertionError as error:
            raise AssertionError(
                "\n".join([f"{error}: {self.roles()}", *map(Node.log_tail, self.nodes)])
            ) from None


def _configuration(network: str, folder: Path, times: Mapping[str, int]) -> str:
    text = (OPS / "patroni.yml").read_text()
    replacements = {
        NETWORK: network,
        "/var/lib/postgresql/15/flashsale": str(folder / "data"),
        "/usr/lib/postgresql/15/bin": str(find_binary("postgres").parent),
        "/var/run/postgresql": str(folder),
        "mode: automatic": "mode: 'off'",
    }
    defaults = {"ttl": 30, "loop_wait": 10, "retry_timeout": 10}
    replacements |= {f"{name}: {defaults[name]}": f"{name}: {seconds}" for name, seconds in times.items()}
    for old, new in replacements.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


@contextmanager
def _etcd(name: str, folder: Path, account: Account, network: str, number: int) -> Iterator[None]:
    text = (OPS / "etcd").read_text()
    *own, cluster, token = [line for line in text.splitlines() if not line.startswith("#")]
    own = [line.replace("=db1", f"={name}").replace("10.0.0.11", f"10.0.0.1{number}") for line in own]
    lines = [line.replace(NETWORK, network) for line in (*own, cluster, token)]
    environment = dict(line.split("=", 1) for line in lines)
    program = servers.copy("etcd", folder / "etcd") / "usr/bin/etcd"
    with (folder / "etcd.log").open("ab") as log:
        child = subprocess.Popen(
            account.command(program, pdeathsig=signal.SIGTERM),
            cwd=folder, env=os.environ | environment | {"ETCD_DATA_DIR": str(folder / "default.etcd")},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        yield
    finally:
        child.kill()
        child.wait(30)


@contextmanager
def running_nodes(times: Mapping[str, int] | None = None, *, with_links: bool = False) -> Iterator[Shop]:
    """Three nodes, each with an etcd, of which one has created the database and the others are its standbys.

    :param times: of QUICKEST, instead of those in the file
    :param with_links: each node can be cut off
    """
    network = free_network()
    with cluster_folder() as folder, ExitStack() as stack:
        # As root, the account of PostgreSQL has to be able to read the interpreter.
        interpreter = Path(sys.executable).resolve().parent
        account = account_for(interpreter if os.geteuid() == 0 else folder, folder / "none")
        programs = servers.copy("patroni", folder / "patroni")
        between = stack.enter_context(links()) if with_links else None
        nodes = []
        for number, name in enumerate(NAMES, 1):
            home = folder / name
            account.make_private_directory(home)
            address = f"{network}1{number}"
            listen = f"{network}10{number}" if between else address
            node = Node(name, home, account, programs, address, listen)
            nodes.append(node)
            stack.enter_context(_etcd(name, home, account, network, number))
            text = _configuration(network, home, times or {})
            if between is not None:
                etcd = f"{network}20{number}"
                node.links = [
                    between.open((address, 5432), (listen, 5432)),
                    between.open((address, 8008), (listen, 8008)),
                    # Of etcd one member is enough to be cut off from.
                    between.open((etcd, 2379), (f"{network}11", 2379)),
                ]
                hosts = next(line for line in text.splitlines() if line.startswith("  hosts: "))
                text = text.replace(hosts, f"  hosts: {etcd}:2379\n  use_proxies: true")
            node.configuration.write_text(text)
            os.chown(node.configuration, account.uid, account.gid)
        try:
            for node in nodes:
                node.start()
            shop = Shop(nodes, network)
            shop.wait_until_whole()
            yield shop
        finally:
            for node in nodes:
                node.stop()
