"""Roles, and what they are granted."""

from api.database.schema_version import SQL_DIRECTORY
from flashsale.database.connection import Connection
from flashsale.database.drift import wrong_grants
from flashsale.doctor.finding import MIGRATE, Finding, Findings


def grants(conn: Connection) -> Findings:
    findings = [Finding("grants", "failed", detail, MIGRATE) for detail in wrong_grants(conn, SQL_DIRECTORY)]
    findings += [Finding("grants", "failed", *row) for row in conn.execute(_UNEXPECTED_GRANTS)]
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
           array(select m.roleid::regrole::text from pg_auth_members m where m.member = r.oid order by 1)
      from (values ('flashsale_owner', 1), ('flashsale_api', 2), ('flashsale_ops', 3)) as wanted (name, i)
      left join pg_roles r on r.rolname = wanted.name
     order by i
"""
_LOGINS = """
    select r.rolname from pg_roles r
     where r.rolcanlogin and not r.rolsuper and pg_has_role(r.oid, 'flashsale_api', 'usage') order by 1
"""


def roles(conn: Connection) -> Findings:
    wrong = []
    for name, missing, has_attributes, member_of in conn.execute(_ROLES).fetchall():
        wanted = ["flashsale_api"] if name == "flashsale_ops" else []
        if missing:
            wrong.append((f"role {name} does not exist", f"create role {name} nologin, then {MIGRATE}"))
            continue
        if has_attributes:
            remedy = (
                f"alter role {name} nologin nosuperuser nocreaterole nocreatedb noreplication nobypassrls"
            )
            wrong.append((f"role {name} has LOGIN or another attribute", remedy))
        for other in sorted({*wanted} - {*member_of}):
            wrong.append((f"role {name} is not a member of {other}", f"grant {other} to {name}"))
        for other in sorted({*member_of} - {*wanted}):
            wrong.append((f"role {name} is a member of {other}", f"revoke {other} from {name}"))
    for detail, remedy in wrong:
        yield Finding("roles", "failed", detail, remedy)
    if wrong:
        return
    logins = [name for (name,) in conn.execute(_LOGINS)]
    if logins:
        yield Finding("roles", "ok", f"login roles in flashsale_api: {', '.join(logins)}")
    else:
        yield Finding(
            "roles", "warning", "flashsale_api has no login role as a member",
            "create one for the server: create role … login in role flashsale_api",
        )  # fmt: skip
