"""`flashsale doctor`: grants and roles; each remedy works."""

import pytest

from flashsale.doctor import roles
from flashsale.doctor.finding import MIGRATE
from tests.doctor.findings import after, only, problems

GRANTS = {
    "public may call": ("grant execute on function flashsale.audit() to public",
        "public may use flashsale.audit"),
    "the api may call too much": ("grant execute on function flashsale.purge(interval) to flashsale_api",
        "flashsale_api may use flashsale.purge"),
    "the api may call too little": (
        "revoke execute on function flashsale.get_product(bigint) from flashsale_api",
        "flashsale_api may not use flashsale.get_product"),
    "operators see too little": ("revoke select on flashsale.stock from flashsale_ops",
        "flashsale_ops may not use flashsale.stock"),
    "a table is open": ("grant insert on flashsale_data.payments to flashsale_app",
        "flashsale_app may insert flashsale_data.payments"),
    "a sequence is open": ("grant usage on sequence flashsale_data.order_ids to public",
        "public may usage flashsale_data.order_ids"),
    "the closed schema is open": ("grant usage on schema flashsale_data to flashsale_api",
        "flashsale_api may usage in schema flashsale_data"),
    "public may create": ("grant create on schema flashsale to public",
        "public may create in schema flashsale"),
    "the schema is closed": ("revoke usage on schema flashsale from flashsale_api",
        "flashsale_api lacks usage on schema flashsale"),
    "a table is owned by another role": ("alter table flashsale_data.payments owner to postgres",
        "table flashsale_data.payments belongs to postgres"),
    "a function is owned by another role": ("alter function flashsale.audit() owner to postgres",
        "routine flashsale.audit() belongs to postgres"),
}  # fmt: skip


def test_a_migrated_database_has_the_grants_of_its_files(db):
    assert problems(roles.grants, db) == []


@pytest.mark.parametrize(("statement", "said"), GRANTS.values(), ids=GRANTS)
def test_a_wrong_grant_is_found_and_its_remedy_works(db, statement, said):
    with after(db, statement):
        assert ("failed", said) in problems(roles.grants, db)
        for finding in list(roles.grants(db)):
            if finding.remedy != MIGRATE:
                db.execute(finding.remedy)
                assert ("failed", said) not in problems(roles.grants, db)


def test_grants_to_other_roles_are_ignored(db):
    with after(db, "grant execute on function flashsale.read_events(bigint, int, boolean) to flashsale_app"):
        assert problems(roles.grants, db) == []


ROLES = {
    "one can log in": ("alter role flashsale_api login", "role flashsale_api has LOGIN or another attribute"),
    "one is a superuser": ("alter role flashsale_owner superuser",
        "role flashsale_owner has LOGIN or another attribute"),
    "one is in another": ("grant flashsale_owner to flashsale_ops",
        "role flashsale_ops is a member of flashsale_owner"),
    "one is not in the other": ("revoke flashsale_api from flashsale_ops",
        "role flashsale_ops is not a member of flashsale_api"),
}  # fmt: skip


@pytest.mark.parametrize(("statement", "said"), ROLES.values(), ids=ROLES)
def test_a_wrong_role_is_found_and_its_remedy_works(db, statement, said):
    with after(db, statement):
        assert problems(roles.roles, db) == [("failed", said)]
        db.execute(only(roles.roles, db).remedy)
        assert problems(roles.roles, db) == []


def test_a_missing_role_fails(db):
    with after(db, "alter role flashsale_ops rename to flashsale_gone"):
        assert ("failed", "role flashsale_ops does not exist") in problems(roles.roles, db)


def test_a_missing_login_role_is_a_warning(db):
    with after(db, "alter role flashsale_app nologin"):
        others = [row[0] for row in db.execute(roles._LOGINS)]
        for other in others:
            db.execute(f"alter role {other} nologin")
        assert problems(roles.roles, db) == [("warning", "flashsale_api has no login role as a member")]
