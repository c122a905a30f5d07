"""The remedies of `flashsale doctor` and of error messages, run as printed, beside another application.

Each test makes the situation, runs what is printed until nothing is left to say, and looks at the neighbour.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from flashsale.database.migrations import migrate
from flashsale.local.cluster import SUPERUSER, Cluster, stop_server
from tests.support import neighbours, servers
from tests.support.clusters import cluster_folder, new_cluster
from tests.support.flashsale_up import FLASHSALE
from tests.support.sale_steps import one, order

pytestmark = pytest.mark.slow

SECRET = "whsec_" + "c2VjcmV0" * 6
DATABASE = "shop-2026"
"""a name that must be quoted"""
PROSE = {"correct first what the checks of roles and grants have found"}
MAX_ROUNDS = 5
"""of reading all remedies and running them"""


class Shop:
    """A database of a server with the settings of `make up`, which can be restarted."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.url = cluster.url(SUPERUSER, DATABASE)

    def start(self) -> None:
        self._server = self.cluster.start(with_pg_cron=False)

    def stop(self) -> None:
        stop_server(self._server)

    def restart(self) -> None:
        self.stop()
        self.start()

    def execute(self, *statements: str, user: str = SUPERUSER) -> None:
        with psycopg.connect(self.cluster.url(user, DATABASE), autocommit=True) as conn:
            for statement in statements:
                conn.execute(statement)

    def run(
        self, command: str, user: str = SUPERUSER, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """A command line, in a shell that finds flashsale."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLASHSALE_")}
        settings = {
            "FLASHSALE_DATABASE_URL": self.cluster.url(user, DATABASE),
            "FLASHSALE_WEBHOOK_SECRETS": SECRET,
            "PATH": f"{Path(FLASHSALE[0]).parent}:{os.environ['PATH']}",
        }
        return subprocess.run(
            ["bash", "-c", command],
            env=inherited | settings | environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip

    def findings(self, user: str = SUPERUSER) -> list[dict]:
        """What doctor objects to, but that there is no pg_cron."""
        found = json.loads(self.run("flashsale doctor --json", user).stdout)["findings"]
        return [f for f in found if f["status"] != "ok" and f["check"] != "pg_cron"]

    def follow(self, remedy: str) -> None:
        """Do what a remedy says: SQL is pasted into psql, a command into a shell, the rest is prose."""
        for part in re.split(r"; (?=restart )|, then ", remedy):
            if part == "restart PostgreSQL":
                self.restart()
            elif part in PROSE:
                continue
            elif command := re.fullmatch(r"(?:run: )?(flashsale .*?)(?: \(it [^)]*\))?", part):
                done = self.run(command[1])
                assert done.returncode == 0, (remedy, done.stdout, done.stderr)
            else:
                done = subprocess.run(
                    ["psql", "-Xq", "-v", "ON_ERROR_STOP=1", self.url],
                    input=f"{part};\n", capture_output=True, text=True,
                )  # fmt: skip
                assert (done.returncode, done.stderr) == (0, ""), (remedy, done.stderr)

    def cure(self, *details: str) -> None:
        """Follow all remedies until doctor objects to nothing; it first finds `details`."""
        found = self.findings()
        assert {*details} <= {re.sub(": read_events.*", "", f["detail"]) for f in found}, found
        for _ in range(MAX_ROUNDS):
            for remedy in dict.fromkeys(finding["remedy"] for finding in found):
                self.follow(remedy)
            found = self.findings()
            if not found:
                return
        raise AssertionError(f"still after {MAX_ROUNDS} rounds: {found}")


@pytest.fixture(scope="module", params=[None, servers.versions()[-1]])
def new_shop(request: pytest.FixtureRequest) -> Iterator[Shop]:
    """On the installed version of PostgreSQL and on the newest: since 16, members do not inherit always."""
    with cluster_folder() as folder:
        shop = Shop(new_cluster(folder, request.param))
        shop.start()
        try:
            yield shop
        finally:
            shop.stop()


@pytest.fixture
def shop(new_shop: Shop) -> Iterator[Shop]:
    """A new database, in which doctor finds nothing; the neighbour is looked at in the end."""
    admin = new_shop.cluster.url(SUPERUSER, "postgres")
    with psycopg.connect(admin, autocommit=True) as conn:
        conn.execute(f'create database "{DATABASE}"')
    migrate(new_shop.url, schedule=False, say=lambda _: None)
    new_shop.execute('create role "Check-Out" login in role flashsale_api')
    assert new_shop.findings() == []
    neighbours.create(new_shop.cluster)
    new_shop.execute(f"alter role {neighbours.ROLE} set synchronous_commit = off")
    before = neighbours.state(new_shop.cluster)
    yield new_shop
    after = neighbours.state(new_shop.cluster)
    with psycopg.connect(admin, autocommit=True) as conn:
        conn.execute(f'drop database "{DATABASE}" with (force)')
        conn.execute(f"drop database {neighbours.DATABASE}")
        for role in (f'"{name}"' for (name,) in conn.execute(_ROLES).fetchall()):
            conn.execute(f"drop owned by {role}")
            conn.execute(f"drop role {role}")
        (new_shop.cluster.data / "postgresql.auto.conf").write_text("")
        conn.execute("select pg_reload_conf()")
    before.pop("server"), after.pop("server")
    assert after == before


_ROLES = "select rolname from pg_roles where rolname !~ '^pg_' and rolname <> current_user order by rolname"


SETTINGS = {
    "synchronous_commit": "off",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
}
"""of a server, a database or a role"""


def test_settings_of_the_server(shop: Shop) -> None:
    settings = {"fsync": "off", "full_page_writes": "off", "max_locks_per_transaction": "64", **SETTINGS}
    conf = shop.cluster.data / "postgresql.conf"
    text = conf.read_text()
    conf.write_text(text + "".join(f"{name} = {value}\n" for name, value in settings.items()))
    shop.restart()
    try:
        shop.cure(*(f"{name} is {value} for the server" for name, value in settings.items()))
    finally:
        conf.write_text(text)
        shop.restart()


def test_settings_of_databases_and_roles(shop: Shop) -> None:
    scopes = (f'database "{DATABASE}"', 'role "Check-Out"', f'role "Check-Out" in database "{DATABASE}"')
    shop.execute(
        *(f"alter {scope} set {name} = {value}" for name, value in SETTINGS.items() for scope in scopes)
    )
    shop.cure(*(f"{name} is {value} for {scope}" for name, value in SETTINGS.items() for scope in scopes))


def test_a_setting_of_all_roles(shop: Shop) -> None:
    shop.execute("alter role all set default_transaction_read_only = on")
    try:
        shop.cure("default_transaction_read_only is on for the server")
    finally:
        shop.execute("begin read write; alter role all reset default_transaction_read_only; commit")


def test_a_read_only_database_is_cured_by_one_call_of_psql(shop: Shop) -> None:
    """All statements of an option -c are one transaction."""
    shop.execute(f'alter database "{DATABASE}" set default_transaction_read_only = on')
    (finding,) = shop.findings()
    assert finding["detail"] == f'default_transaction_read_only is on for database "{DATABASE}"'
    done = shop.run(f"flashsale psql -c '{finding['remedy']}'")
    assert (done.returncode, done.stderr) == (0, "")
    assert shop.findings() == []


CHANGES = {
    "functions": {
        "create or replace function flashsale.audit() returns table (check_name text, detail text)"
        " language sql as 'select null, null where false'": "flashsale.audit differs from its file",
        "drop function flashsale.release_hold(bigint)": "flashsale.release_hold is missing",
        "create function flashsale.mine() returns int language sql as 'select 1'":
            "flashsale.mine has no file in sql/",
        "create view flashsale_data.mine as select flashsale.mine()":
            "flashsale_data.mine has no file in sql/",
        "update flashsale_data.schema_state set digest = 'other'": "the loaded sql/ is of another version",
        "drop view flashsale.settings": "flashsale.settings is missing",
        "drop function flashsale.get_hold(bigint); create function flashsale.get_hold(p_hold_id bigint)"
        " returns int language sql as 'select 1'": "flashsale.get_hold differs from its file",
    },
    "grants": {
        "revoke execute on function flashsale.get_product(bigint) from flashsale_api":
            "flashsale_api may not use flashsale.get_product",
        "grant execute on function flashsale.audit() to public": "public may use flashsale.audit",
        'grant insert on flashsale_data.payments to "Check-Out"':
            "Check-Out may insert flashsale_data.payments",
        "grant usage on flashsale_data.order_ids to public": "public may usage flashsale_data.order_ids",
        'grant create on schema flashsale to "Check-Out"': "Check-Out may create in schema flashsale",
        "revoke usage on schema flashsale from flashsale_api":
            "flashsale_api lacks usage on schema flashsale",
    },
    "owners": {
        "alter table flashsale_data.payments owner to postgres":
            "table flashsale_data.payments belongs to postgres",
        "alter view flashsale.stock owner to postgres": "view flashsale.stock belongs to postgres",
        "alter procedure flashsale.sweep() owner to postgres":
            "routine flashsale.sweep() belongs to postgres",
        "alter schema flashsale_data owner to postgres": "schema flashsale_data belongs to postgres",
    },
    "roles": {
        "alter role flashsale_owner login createdb": "role flashsale_owner has LOGIN or another attribute",
        "grant flashsale_owner to flashsale_api": "role flashsale_api is a member of flashsale_owner",
        "revoke flashsale_api from flashsale_ops": "role flashsale_ops is not a member of flashsale_api",
    },
    "a role": {"drop owned by flashsale_ops; drop role flashsale_ops": "role flashsale_ops does not exist"},
    "logins": {'alter role "Check-Out" nologin': "flashsale_api has no login role as a member"},
    "times": {
        "select flashsale.change_settings('1 second', '1 second')":
            "hold time 1 s, payment window 1 s: too short for buyers",
    },
    "inbox": {
        "select flashsale.change_settings(p_inbox_limit => 0)":
            "inbox_limit is 0: early webhooks are refused",
    },
}  # fmt: skip


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_changes_by_hand(shop: Shop, changes: dict[str, str]) -> None:
    shop.execute(*changes)
    shop.cure(*changes.values())
    with psycopg.connect(shop.url, autocommit=True) as conn:
        assert order(conn, one(conn, "select flashsale.create_product('Shoe', 5, 99)"))


def test_a_table_that_is_gone_comes_back_only_by_a_restore(shop: Shop) -> None:
    shop.execute("drop table flashsale_data.settings cascade")
    assert {
        "check": "migrations",
        "status": "failed",
        "detail": "table flashsale_data.settings is missing",
        "remedy": "restore the database from a backup",
    } in shop.findings()


def test_a_database_that_has_not_been_migrated(shop: Shop) -> None:
    shop.execute("drop schema flashsale, flashsale_data, flashsale_migrations cascade")
    done = shop.run("flashsale product list")
    assert (done.returncode, done.stderr.rstrip()[-22:]) == (1, "run: flashsale migrate")
    shop.cure("this database has not been migrated")
    assert shop.run("flashsale product list").returncode == 0


def test_a_role_that_may_not_look(shop: Shop) -> None:
    """Doctor as the role that migrates checks everything, which the role of the server cannot."""
    assert {f["remedy"] for f in shop.findings("Check-Out")} == {
        "run doctor as the role that migrates, or as a superuser"
    }
    shop.execute(
        "create role migrator login in role flashsale_owner",
        f'grant create on database "{DATABASE}" to migrator',
    )
    assert shop.findings("migrator") == []


def test_a_role_that_may_not_change(shop: Shop) -> None:
    create = "flashsale product create Shoe --stock 1 --price 1"
    refused = shop.run(create, "Check-Out")
    assert refused.returncode == 1
    assert refused.stderr.rstrip().endswith(
        "use a role that is a member of flashsale_ops, such as the one that migrates"
    )
    shop.execute(
        "create role olivia login in role flashsale_ops", "create role migrator login in role flashsale_owner"
    )
    for user in ("olivia", "migrator"):
        assert shop.run(create, user).returncode == 0
