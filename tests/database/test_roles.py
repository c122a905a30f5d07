"""What the role that migrates needs: granted where it may do that itself, else told, all at once."""

import itertools
from collections.abc import Iterator

import psycopg
import pytest
from pytest_postgresql.janitor import DatabaseJanitor

from flashsale.database import roles
from flashsale.database.migrations import migrate
from flashsale.errors import UserError
from flashsale.local.cluster import PORT, SUPERUSER, Cluster
from tests.support import servers
from tests.support.clusters import running_cluster
from tests.support.sale_steps import one

DATABASE = "flashsale_empty"
MIGRATOR = "test-Migrator"
"""a name that must be quoted"""
INHERITANCE = ["", "noinherit"]


def ignore(_: str) -> None:
    pass


def drop(admin: psycopg.Connection, *names: str) -> None:
    for name in names:
        if one(admin, "select to_regrole(quote_ident(%s)) is not null", name):
            admin.execute(f'reassign owned by "{name}" to postgres')
            admin.execute(f'drop owned by "{name}" cascade')
            admin.execute(f'drop role "{name}"')


@pytest.fixture
def admin(empty_database: str) -> Iterator[psycopg.Connection]:
    """A superuser's session in an empty database; roles that the tests create are dropped at the end."""
    with psycopg.connect(empty_database, autocommit=True) as conn:
        yield conn
        drop(conn, MIGRATOR, "test_second")


@pytest.fixture
def url(cluster: Cluster) -> str:
    return cluster.url(MIGRATOR, DATABASE)


def fine_grained(conn: psycopg.Connection) -> bool:
    return conn.info.server_version >= roles.FINE_GRAINED


def refusal(url: str) -> str:
    """The statements that a refused migration prints."""
    with pytest.raises(UserError, match="lacks rights to migrate") as refused:
        migrate(url, schedule=False, say=ignore)
    return str(refused.value).partition("A superuser must run: ")[2]


@pytest.mark.parametrize("attribute", INHERITANCE)
def test_everything_that_a_new_database_needs_is_named_at_once(admin, url, attribute):
    admin.execute(f'create role "{MIGRATOR}" login {attribute}')
    statements = refusal(url)
    assert f'alter role "{MIGRATOR}" createrole;' in statements
    assert f'grant create on database {DATABASE} to "{MIGRATOR}";' in statements
    # The roles exist: the migration of another database has created them, as a superuser.
    assert ("with admin true, inherit true, set true;" in statements) == fine_grained(admin)
    admin.execute(statements)
    migrate(url, schedule=False, say=ignore)


@pytest.mark.parametrize("attribute", INHERITANCE)
def test_everything_that_a_migrated_database_needs_is_named_at_once(admin, empty_database, url, attribute):
    migrate(empty_database, schedule=False, say=ignore)
    admin.execute(f'create role "{MIGRATOR}" login {attribute}')
    statements = refusal(url)
    assert statements.count(";") == 2
    admin.execute(statements)
    migrate(url, schedule=False, say=ignore)


def test_a_member_of_the_owner_migrates_what_another_role_has_migrated(cluster, admin, url):
    admin.execute(f'create role "{MIGRATOR}" login')
    admin.execute(refusal(url))
    migrate(url, schedule=False, say=ignore)
    admin.execute(f"create role test_second login; grant create on database {DATABASE} to test_second")
    admin.execute("grant flashsale_owner to test_second")
    migrate(cluster.url("test_second", DATABASE), schedule=False, say=ignore)


def test_tables_of_yoyo_that_belong_to_another_role_are_handed_over(cluster, admin, url):
    """As versions before this one left them."""
    admin.execute(f'create role "{MIGRATOR}" login')
    admin.execute(refusal(url))
    migrate(url, schedule=False, say=ignore)
    admin.execute(f'alter schema {roles.YOYO_SCHEMA} owner to "{MIGRATOR}"')
    for (table,) in admin.execute(
        f"select oid::regclass::text from pg_class"
        f" where relkind = 'r' and relnamespace = '{roles.YOYO_SCHEMA}'::regnamespace"
    ).fetchall():
        admin.execute(f'alter table {table} owner to "{MIGRATOR}"')
    admin.execute(f"create role test_second login; grant create on database {DATABASE} to test_second")
    admin.execute("grant flashsale_owner to test_second")
    second = cluster.url("test_second", DATABASE)
    assert refusal(second).startswith(f"alter schema {roles.YOYO_SCHEMA} owner to flashsale_owner;")
    # Their owner hands them over without being asked.
    migrate(url, schedule=False, say=ignore)
    migrate(second, schedule=False, say=ignore)


def test_a_membership_that_may_not_be_used_is_not_enough(admin, empty_database, url):
    if not fine_grained(admin):
        pytest.skip("before PostgreSQL 16 every member may use its membership")
    migrate(empty_database, schedule=False, say=ignore)
    admin.execute(f'create role "{MIGRATOR}" login; grant create on database {DATABASE} to "{MIGRATOR}"')
    admin.execute(f'grant flashsale_owner to "{MIGRATOR}" with inherit true, set false')
    statements = refusal(url)
    assert statements == f'grant flashsale_owner to "{MIGRATOR}" with inherit true, set true;'
    admin.execute(statements)
    migrate(url, schedule=False, say=ignore)


def test_a_membership_that_its_admin_may_not_use_is_completed_without_a_superuser(admin, empty_database, url):
    if not fine_grained(admin):
        pytest.skip("before PostgreSQL 16 every member may use its membership")
    migrate(empty_database, schedule=False, say=ignore)
    admin.execute(f'create role "{MIGRATOR}" login; grant create on database {DATABASE} to "{MIGRATOR}"')
    admin.execute(f'grant flashsale_owner to "{MIGRATOR}" with admin true, inherit false, set false')
    migrate(url, schedule=False, say=ignore)


# What CREATEROLE gives for a role that it creates, since PostgreSQL 16.
SELF_GRANTS = ["", "set", "inherit", "set, inherit"]


@pytest.fixture(scope="module", params=[None, *servers.versions()])
def bare_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A server of each version that has none of the roles."""
    with running_cluster({"fsync": "off"}, with_pg_cron=False, version=request.param) as cluster:
        yield cluster


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attribute", "self_grant"),
    list(itertools.product(INHERITANCE, SELF_GRANTS)),
    ids=lambda value: value or "-",
)
def test_a_role_with_createrole_migrates_a_server_without_the_roles(bare_cluster, attribute, self_grant):
    janitor = DatabaseJanitor(
        user=SUPERUSER, host=str(bare_cluster.socket_directory), port=PORT, dbname=DATABASE
    )
    with psycopg.connect(bare_cluster.url(SUPERUSER, "postgres"), autocommit=True) as admin:
        if self_grant and not fine_grained(admin):
            pytest.skip("before PostgreSQL 16 CREATEROLE is a right over all roles")
        with janitor:
            admin.execute(f'create role "{MIGRATOR}" login createrole {attribute}')
            if self_grant:
                admin.execute(f"alter role \"{MIGRATOR}\" set createrole_self_grant = '{self_grant}'")
            admin.execute(f'grant create on database {DATABASE} to "{MIGRATOR}"')
            url = bare_cluster.url(MIGRATOR, DATABASE)
            migrate(url, schedule=False, say=ignore)
            migrate(url, schedule=False, say=ignore)
        for name in (*reversed(roles.ROLES), MIGRATOR):
            drop(admin, name)


@pytest.mark.slow
def test_a_role_that_is_missing_is_created_again(bare_cluster):
    url = bare_cluster.url(SUPERUSER, "postgres")
    migrate(url, schedule=False, say=ignore)
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("alter role flashsale_ops rename to renamed")
        migrate(url, schedule=False, say=ignore)
        may = "select has_function_privilege('flashsale_ops', 'flashsale.audit()', 'execute')"
        assert one(admin, may)
