"""Roles, and what they are granted."""

from collections.abc import Iterator

from api.database.schema_version import SQL_DIRECTORY
from flashsale.database.connection import Connection, fetch_value
from flashsale.database.drift import wrong_grants
from flashsale.database.roles import FINE_GRAINED, inherit, missing
from flashsale.doctor.finding import MIGRATE, Finding, Findings


def grants(conn: Connection) -> Findings:
    findings = [Finding("grants", "failed", *row) for row in conn.execute(_UNEXPECTED_GRANTS)]
    findings += [Finding("grants", "failed", detail, MIGRATE) for detail in wrong_grants(conn, SQL_DIRECTORY)]
    yield from findings or [Finding("grants", "ok", "grants are those of sql/; no table is accessible")]


_UNEXPECTED_GRANTS = """
    with ours as (
      select n.oid, n.nspname, n.nspowner, n.nspacl from pg_namespace n
       where n.nspname in ('flashsale', 'flashsale_data')
    )
    select format('%s may %s in schema %s', coalesce(r.rolname, 'public'), lower(a.privilege_type),
                  o.nspname),
           format('revoke %s on schema %I from %s', lower(a.privilege_type), o.nspname,
                  coalesce(quote_ident(r.rolname), 'public'))
      from ours o cross join aclexplode(o.nspacl) a left join pg_roles r on r.oid = a.grantee
     where a.grantee <> o.nspowner
       and (o.nspname = 'flashsale_data' or a.privilege_type = 'CREATE' or a.grantee = 0)
    union all
    select format('%I lacks usage on schema flashsale', r.rolname),
           format('grant usage on schema flashsale to %I', r.rolname)
      from pg_roles r
     where r.rolname in ('flashsale_api', 'flashsale_ops')
       and not has_schema_privilege(r.oid, 'flashsale', 'usage')
    union all
    select format('%s may %s %s', coalesce(r.rolname, 'public'), lower(a.privilege_type), c.oid::regclass),
           format('revoke %s on %s from %s', lower(a.privilege_type), c.oid::regclass,
                  coalesce(quote_ident(r.rolname), 'public'))
      from ours o join pg_class c on c.relnamespace = o.oid
      cross join aclexplode(c.relacl) a left join pg_roles r on r.oid = a.grantee
     where o.nspname = 'flashsale_data' and c.relkind in ('r', 'p', 'S') and a.grantee <> c.relowner
    union all
    select format('%s belongs to %s', what, owner), format('alter %s owner to flashsale_owner', what)
      from (select 'schema ' || o.nspname, o.nspowner::regrole::text from ours o
            union all
            select case c.relkind when 'v' then 'view ' when 'S' then 'sequence ' else 'table ' end
                   || c.oid::regclass, c.relowner::regrole::text
              from ours o join pg_class c on c.relnamespace = o.oid
             where c.relkind in ('r', 'p', 'v', 'S')
               -- The sequence of a column follows the owner of its table, and has no other.
               and not (c.relkind = 'S' and exists (
                 select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid
                    and d.deptype in ('a', 'i')))
            union all
            select 'routine ' || p.oid::regprocedure, p.proowner::regrole::text
              from ours o join pg_proc p on p.pronamespace = o.oid
           ) as objects (what, owner)
     where owner <> 'flashsale_owner'
"""

_ROLES = """
    select wanted.name, r.oid is null,
           coalesce(r.rolcanlogin or r.rolsuper or r.rolcreaterole or r.rolcreatedb or r.rolreplication
                    or r.rolbypassrls, false),
           coalesce(pg_has_role(r.oid, to_regrole('flashsale_api'), 'usage'), true)
      from (values ('flashsale_owner', 1), ('flashsale_api', 2), ('flashsale_ops', 3)) as wanted (name, i)
      left join pg_roles r on r.rolname = wanted.name
     order by i
"""
_MEMBERSHIPS = """
    select m.member::regrole::text, m.roleid::regrole::text, m.grantor::regrole::text
      from pg_auth_members m
     where m.member::regrole::text in ('flashsale_owner', 'flashsale_api', 'flashsale_ops')
     order by 1, 2, 3
"""
_LOGINS = """
    select r.rolname, quote_ident(r.rolname), pg_has_role(r.oid, 'flashsale_api', 'usage')
      from pg_roles r
     where r.rolcanlogin and not r.rolsuper and r.rolname <> 'flashsale_sweep'
       and (pg_has_role(r.oid, 'flashsale_api', 'usage')
            or pg_has_role(r.oid, 'flashsale_api', 'member')
               -- Since PostgreSQL 16 a role that has created another is a member of it, as its admin.
               and not pg_has_role(r.oid, 'flashsale_api', 'member with admin option'))
     order by 1
"""


def roles(conn: Connection) -> Findings:
    findings = [Finding("roles", "failed", *row) for row in _wrong_roles(conn)]
    findings += _rights_to_migrate(conn)
    yield from findings
    if any(finding.status == "failed" for finding in findings):
        return
    logins = conn.execute(_LOGINS).fetchall()
    inheriting = [name for name, _, inherits in logins if inherits]
    if inheriting:
        yield Finding("roles", "ok", f"login roles in flashsale_api: {', '.join(inheriting)}")
    elif logins:
        for name, quoted, _ in logins:
            detail = f"login role {name} is a member of flashsale_api, but does not inherit its rights"
            remedy = inherit(quoted, "flashsale_api", conn.info.server_version)
            yield Finding("roles", "warning", detail, remedy)
    else:
        yield Finding(
            "roles", "warning", "flashsale_api has no login role as a member",
            "create role checkout login in role flashsale_api",
        )  # fmt: skip


def _wrong_roles(conn: Connection) -> Iterator[tuple[str, str]]:
    """What is wrong with the roles that flashsale creates, and the remedy."""
    version = conn.info.server_version
    members = conn.execute(_MEMBERSHIPS).fetchall()
    for name, is_missing, has_attributes, inherits in conn.execute(_ROLES).fetchall():
        if is_missing:
            yield f"role {name} does not exist", MIGRATE
            continue
        if has_attributes:
            yield (
                f"role {name} has LOGIN or another attribute",
                f"alter role {name} nologin nosuperuser nocreaterole nocreatedb noreplication nobypassrls",
            )
        wanted = "flashsale_api" if name == "flashsale_ops" else None
        roles = [role for member, role, _ in members if member == name]
        if wanted and wanted not in roles:
            yield f"role {name} is not a member of {wanted}", f"grant {wanted} to {name}"
        elif wanted and not inherits:
            yield f"role {name} does not inherit {wanted}", inherit(name, wanted, version)
        for member, role, grantor in members:
            if member == name and role != wanted:
                # Since PostgreSQL 16 a membership is revoked from the role that granted it.
                by = f" granted by {grantor}" if version >= FINE_GRAINED else ""
                yield f"role {name} is a member of {role}", f"revoke {role} from {name}{by}"


def _rights_to_migrate(conn: Connection) -> Findings:
    """What this role lacks to migrate, if it is a member of the owner at all."""
    is_member = fetch_value(
        conn,
        "select not rolsuper and coalesce(pg_has_role(to_regrole('flashsale_owner'), 'member'), false)"
        " from pg_roles where rolname = current_user",
    )
    statements = " ".join(missing(conn)) if is_member else ""
    if statements:
        detail = f"role {conn.info.user} is a member of flashsale_owner, but lacks rights to migrate"
        yield Finding("roles", "warning", detail, statements)
