"""`flashsale doctor`: the role of each host that the URL names."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from flashsale.doctor import hosts
from flashsale.doctor.diagnosis import diagnose
from flashsale.local.cluster import DATABASE, PORT, SUPERUSER, Cluster
from tests.support.clusters import standby_of
from tests.support.sale_steps import one
from tests.support.shops import running_shop
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

Findings = list[tuple[str, str]]


class Machines:
    """A primary and its standby."""

    def __init__(self, primary: Cluster, standby: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        self.primary, self.standby = primary, standby
        self._monkeypatch = monkeypatch
        self.conn = psycopg.connect(primary.url(SUPERUSER, DATABASE), autocommit=True)
        self.on_standby = psycopg.connect(standby.url(SUPERUSER, DATABASE), autocommit=True)

    def find(self, *others: Path, user: str = SUPERUSER) -> Findings:
        """What doctor finds; a host is P or S."""
        names = {self.primary.socket_directory: "P", self.standby.socket_directory: "S"}
        url = make_conninfo(user=user, dbname=DATABASE, port=PORT, host=",".join(map(str, [*names, *others])))
        self._monkeypatch.setenv("FLASHSALE_DATABASE_URL", url)
        found = []
        with psycopg.connect(self.primary.url(user, DATABASE), autocommit=True) as conn:
            for finding in hosts.hosts(conn):
                detail = finding.detail
                for directory, name in names.items():
                    detail = detail.replace(f"{directory}:{PORT}", name)
                found.append((finding.status, detail))
                assert (finding.remedy is None) == (finding.status == "ok")
        return found

    def set(self, conn: psycopg.Connection, name: str, value: str) -> None:
        conn.execute(f"alter system set {name} = '{value}'")
        conn.execute("select pg_reload_conf()")
        wait_until(lambda: one(conn, f"select current_setting('{name}') = %s", value), f"{name} is set")

    def wait_until_caught_up(self) -> None:
        lsn = one(self.conn, "select pg_current_wal_lsn()")
        query = "select pg_last_wal_replay_lsn() >= %s::pg_lsn"
        wait_until(lambda: one(self.on_standby, query, lsn), "caught up")


@contextmanager
def two_machines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machines]:
    with running_shop() as primary, standby_of(primary) as standby:
        machines = Machines(primary, standby, monkeypatch)
        try:
            yield machines
        finally:
            machines.conn.close()
            machines.on_standby.close()


def test_each_host_has_its_role(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with two_machines(monkeypatch) as machines:
        machines.wait_until_caught_up()
        assert machines.find() == [
            (
                "warning",
                "P is the primary, and commits wait for no standby: a failover may lose the last",
            ),
            ("warning", "S is a standby that no commit waits for: a failover to it may lose the last ones"),
        ]
        machines.set(machines.conn, "synchronous_standby_names", "*")
        query = "select sync_state from pg_stat_replication"
        wait_until(lambda: one(machines.conn, query) == "sync", "the standby is synchronous")
        machines.wait_until_caught_up()
        assert machines.find() == [
            ("ok", "P is the primary; commits wait for *"),
            ("ok", "S is a standby, synchronous, 0 bytes behind"),
        ]
        # A role that may not see who replicates.
        machines.conn.execute("create role olivia login in role flashsale_ops")
        machines.wait_until_caught_up()
        assert machines.find(user="olivia")[1] == ("ok", "S is a standby, 0 bytes behind")

        *_, missing = machines.find(tmp_path / "gone")
        assert missing[0] == "warning"
        assert missing[1].startswith(f"{tmp_path}/gone:{PORT} does not answer: ")

        machines.set(machines.conn, "synchronous_standby_names", "")
        machines.set(machines.on_standby, "primary_conninfo", "")
        wait_until(
            lambda: one(machines.on_standby, "select count(*) = 0 from pg_stat_wal_receiver"), "it is cut off"
        )
        assert machines.find()[1] == (
            "warning", "S is a standby that receives nothing: it does not follow the primary",
        )  # fmt: skip


def test_two_primaries_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    with two_machines(monkeypatch) as machines:
        machines.on_standby.execute("select pg_promote()")
        assert machines.find() == [("failed", "P and S accept writes: the same units are sold twice")]


def test_one_host_needs_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASHSALE_DATABASE_URL", "host=somewhere")
    assert list(hosts.hosts_without_primary()) == []


def test_without_a_primary_each_host_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with two_machines(monkeypatch) as machines:
        directory = machines.standby.socket_directory
        url = make_conninfo(user=SUPERUSER, dbname=DATABASE, port=PORT, host=f"{directory},{tmp_path}")
        monkeypatch.setenv("FLASHSALE_DATABASE_URL", url)
        found = [(f.check, f.status, f.detail) for f in diagnose({}) if f.check in ("database", "hosts")]
        assert [(check, status) for check, status, _ in found] == [
            ("database", "failed"), ("hosts", "failed"), ("hosts", "warning"),
        ]  # fmt: skip
        assert found[1][2] == f"{directory}:{PORT} is a standby, and no host is the primary"
        assert found[2][2].startswith(f"{tmp_path}:{PORT} does not answer: ")
