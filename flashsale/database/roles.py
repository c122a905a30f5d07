"""The roles of flashsale, and what the role that migrates needs.

Roles belong to the whole server: the migration of another database may have created them, as another role.
Before PostgreSQL 16 CREATEROLE is a right over all roles. Since then it is a right over those that the role
has created, and being a member is three things: ADMIN (to grant), SET (to act as) and INHERIT (to have the
rights). CREATEROLE gives ADMIN alone for a new role.
"""

from collections.abc import Iterator
from contextlib import suppress

from psycopg import errors

from flashsale.database.connection import Connection, fetch_row

OWNER = "flashsale_owner"
ROLES = (OWNER, "flashsale_api", "flashsale_ops")
YOYO_SCHEMA = "flashsale_migrations"
"""A schema of its own: yoyo's tables exist before the first migration creates those of flashsale."""

FINE_GRAINED = 160000
"""the version since which ADMIN, SET and INHERIT are granted apart"""
_ATTEMPTS = 3
# Another database's migration creates or grants the same at the same time.
_CONCURRENT = (errors.DuplicateObject, errors.UniqueViolation, errors.InternalError_)


def prepare(conn: Connection) -> list[str]:
    """Create the roles, and grant this role what it needs to migrate, as far as it may itself.

    Returns the statements that remain for a superuser: all of them, not the first one.
    """
    for _ in range(_ATTEMPTS):
        statements = [*_missing_roles(conn), *missing(conn)]
        if not statements:
            break
        for statement in statements:
            with suppress(errors.InsufficientPrivilege, *_CONCURRENT):
                conn.execute(statement)
    return list(missing(conn))


def missing(conn: Connection) -> Iterator[str]:
    """The statements that let this role migrate this database; none if it can."""
    fine_grained = conn.info.server_version >= FINE_GRAINED
    user, database, is_superuser, may_create_roles, may_create, is_new = fetch_row(
        conn,
        "select quote_ident(current_user), quote_ident(current_database()), rolsuper, rolcreaterole,"
        " has_database_privilege(current_database(), 'create'),"
        # Unlike to_regclass(), this requires no right on the schema.
        " not exists (select from pg_namespace where nspname = 'flashsale')"
        " from pg_roles where rolname = current_user",
    )
    if not is_superuser:
        # The first migration comments on the roles, which is the right of those that may change them.
        if is_new and not may_create_roles:
            yield f"alter role {user} createrole;"
        yield from _memberships(conn, user, is_new, fine_grained)
        if not may_create:
            yield f"grant create on database {database} to {user};"
    if not is_new:
        for name, exists, *_ in _roles(conn, fine_grained):
            if not exists:
                yield f"create role {name} nologin;"
    for (statement,) in conn.execute(_FOREIGN_BOOKKEEPING, {"schema": YOYO_SCHEMA, "owner": OWNER}):
        yield statement


def _memberships(conn: Connection, user: str, is_new: bool, fine_grained: bool) -> Iterator[str]:
    """What this role lacks in the roles that exist."""
    roles = {name: rights for name, exists, *rights in _roles(conn, fine_grained) if exists}
    if OWNER not in roles:
        return
    may_set, inherits, _ = roles[OWNER]
    if not fine_grained:
        if not may_set:
            yield f"grant {OWNER} to {user};"
        if is_new and not inherits:
            yield f"{inherit(user, OWNER, conn.info.server_version)};"
        return
    # The first migration changes what belongs to the roles, which is the right of an admin that inherits.
    without_admin = [name for name, (_, _, is_admin) in roles.items() if is_new and not is_admin]
    if without_admin:
        yield f"grant {', '.join(without_admin)} to {user} with admin true, inherit true, set true;"
    if OWNER not in without_admin and not (may_set and (inherits or not is_new)):
        yield f"grant {OWNER} to {user} with inherit true, set true;"


def _missing_roles(conn: Connection) -> Iterator[str]:
    for name, exists, *_ in _roles(conn, fine_grained=False):
        if not exists:
            yield f"create role {name} nologin"


def _roles(conn: Connection, fine_grained: bool) -> list[tuple[str, bool, bool, bool, bool]]:
    """Name of each role, whether it exists, and whether this role has SET, INHERIT and ADMIN for it."""
    return conn.execute(
        """
        select w.name, r.oid is not null, pg_has_role(r.oid, %(set)s), pg_has_role(r.oid, 'usage'),
               pg_has_role(r.oid, 'member with admin option')
          from unnest(%(roles)s::text[]) with ordinality w (name, i)
          left join pg_roles r on r.rolname = w.name
         order by w.i
        """,
        {"roles": list(ROLES), "set": "set" if fine_grained else "member"},
    ).fetchall()


# The tables of yoyo belong to the owner, so that another member of it can migrate next time.
_FOREIGN_BOOKKEEPING = """
    select format('alter schema %%I owner to %%I;', nspname, %(owner)s::text)
      from pg_namespace where nspname = %(schema)s and nspowner::regrole::text <> %(owner)s
    union all
    select format('alter table %%I.%%I owner to %%I;', n.nspname, c.relname, %(owner)s::text)
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = %(schema)s and c.relkind = 'r' and c.relowner::regrole::text <> %(owner)s
"""


def inherit(member: str, role: str, server_version: int) -> str:
    """The statement that lets `member`, a member of `role`, use the rights of it; both are quoted."""
    if server_version >= FINE_GRAINED:
        return f"grant {role} to {member} with inherit true"
    return f"alter role {member} inherit"
