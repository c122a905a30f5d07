"""What `flashsale doctor` looks at: one function for each check, which yields what it found."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo
from yoyo.migrations import default_migration_table

from api.database.schema_version import SQL, digest, migration_ids
from flashsale.cli.output import seconds
from flashsale.database import pg_cron as scheduler
from flashsale.database.connection import admin_url, connect, explain
from flashsale.database.drift import differences, wrong_grants
from flashsale.database.migrations import OLDEST_SERVER, YOYO_SCHEMA
from flashsale.errors import Refusal
from flashsale.webhook_secrets import VARIABLE, webhook_secrets

CLOCK_WARNING = 1.0
CLOCK_LIMIT = 30.0
"""seconds between two clocks; a webhook's timestamp may be off by 300, a hold lasts 120"""
LOCKS = 256
"""max_locks_per_transaction that is plenty; each keyed request of a batch takes one"""
STALE = timedelta(minutes=3)
"""what readiness() grants the scheduler, too"""

MIGRATE = "run: flashsale migrate"


@dataclass(frozen=True)
class Finding:
    """What a check found, and what to do about it if it is not ok."""

    check: str
    status: Literal["ok", "warning", "wrong"]
    found: str
    remedy: str | None = None


Conn = psycopg.Connection[Any]
Findings = Iterator[Finding]


def diagnose(environment: Mapping[str, str]) -> Findings:
    """Every check there is; those that need what another found missing are left out."""
    yield from secrets(environment)
    try:
        conn = connect("doctor")
    except (Refusal, psycopg.OperationalError) as error:
        said = str(error) if isinstance(error, Refusal) else explain(error)
        yield Finding("database", "wrong", said, "start it, or set FLASHSALE_DATABASE_URL to where it is")
        return
    with conn:
        checks: list[Callable[[Conn], Findings]] = [database, server, clock, durability, settings, migrations]
        if conn.execute(_MIGRATED).fetchone()[0]:
            checks += [functions, grants, roles, sale_settings, pg_cron, audit]
        for check in checks:
            name = check.__name__
            try:
                yield from check(conn)
            except errors.InsufficientPrivilege as error:
                yield Finding(
                    name, "warning", f"role {conn.info.user} may not look: {error.diag.message_primary}",
                    "run doctor as the role that migrates, or as a superuser",
                )  # fmt: skip
            except (errors.UndefinedFunction, errors.UndefinedTable, errors.UndefinedColumn) as error:
                found = f"the schema is incomplete: {error.diag.message_primary}"
                yield Finding(name, "wrong", found, MIGRATE)


# Without asking for a right to look inside, as to_regclass() would.
_MIGRATED = "select count(*) = 2 from pg_namespace where nspname in ('flashsale', 'flashsale_data')"


def secrets(environment: Mapping[str, str]) -> Findings:
    try:
        count = len(webhook_secrets(environment))
    except Refusal as refusal:
        yield Finding("secrets", "wrong", str(refusal), "copy the secret from your payment provider anew")
        return
    if count:
        yield Finding("secrets", "ok", f"{count} webhook secret{'s' if count > 1 else ''} in {VARIABLE}")
    else:
        yield Finding(
            "secrets", "warning", f"{VARIABLE} is not set here: nobody's webhook can be verified",
            "set it for the server (and here) to your payment provider's whsec_ secret before you sell",
        )  # fmt: skip


def database(conn: Conn) -> Findings:
    yield Finding("database", "ok", f"{conn.info.dbname} as role {conn.info.user}")


def server(conn: Conn) -> Findings:
    version, standby, encoding = conn.execute(
        "select current_setting('server_version'), pg_is_in_recovery(), current_setting('server_encoding')"
    ).fetchone()
    if conn.info.server_version < OLDEST_SERVER:
        oldest = OLDEST_SERVER // 10000
        yield Finding("server", "wrong", f"PostgreSQL {version}", f"upgrade to PostgreSQL {oldest} or newer")
    elif standby:
        yield Finding("server", "wrong", "a standby, which only reads", "point the URL at the primary")
    elif encoding != "UTF8":
        yield Finding("server", "wrong", f"the database's encoding is {encoding}", "create it anew with UTF8")
    else:
        yield Finding("server", "ok", f"PostgreSQL {version}")


def clock(conn: Conn) -> Findings:
    before = time.time()
    there = float(conn.execute("select extract(epoch from clock_timestamp())").fetchone()[0])
    after = time.time()
    apart = there - (before + after) / 2
    # Half of the way there and back is what cannot be known.
    sure = max(0.0, abs(apart) - (after - before) / 2)
    found = f"the server's clock is {abs(apart):.1f} s {'ahead of' if apart > 0 else 'behind'} this machine's"
    remedy = "have both keep time by NTP (timedatectl, chronyc tracking)"
    if sure >= CLOCK_LIMIT:
        yield Finding("clock", "wrong", found, remedy)
    elif sure >= CLOCK_WARNING:
        yield Finding("clock", "warning", found, remedy)
    else:
        yield Finding("clock", "ok", "the server and this machine agree on the time")


_SETTINGS = """
    select p.name, p.setting, 'the server' from pg_settings p where p.name = any (%(names)s)
    union all
    select split_part(given, '=', 1), substr(given, strpos(given, '=') + 1),
           concat_ws(' in ', 'role ' || r.rolname, 'database ' || d.datname)
      from pg_db_role_setting s
      left join pg_roles r on r.oid = s.setrole
      left join pg_database d on d.oid = s.setdatabase
      cross join unnest(s.setconfig) given
     where (s.setdatabase = 0 or d.datname = current_database())
       and split_part(given, '=', 1) = any (%(names)s)
"""
_OFF = {"off", "false", "no", "0"}


def durability(conn: Conn) -> Findings:
    """An answered request has to survive a power cut."""
    names = ["fsync", "full_page_writes", "synchronous_commit"]
    lost = [
        Finding("durability", "wrong", f"{name} is off for {where}", _set_right(name, "on", where))
        for name, value, where in conn.execute(_SETTINGS, {"names": names})
        if value.lower() in _OFF
    ]
    yield from lost or [Finding("durability", "ok", "a commit that was answered survives a crash")]


def settings(conn: Conn) -> Findings:
    odd = []
    names = ["default_transaction_isolation", "default_transaction_read_only", "max_locks_per_transaction"]
    for name, value, where in conn.execute(_SETTINGS, {"names": names}):
        found = f"{name} is {value} for {where}"
        if name == "default_transaction_isolation" and value != "read committed":
            remedy = _set_right(name, "'read committed'", where)
            odd.append(Finding("settings", "wrong", f"{found}: read_events() refuses it", remedy))
        elif name == "default_transaction_read_only" and value.lower() not in _OFF:
            odd.append(Finding("settings", "wrong", found, _set_right(name, "off", where)))
        elif name == "max_locks_per_transaction" and int(value) < LOCKS:
            remedy = f"alter system set {name} = {LOCKS}, and restart PostgreSQL, if several workers serve"
            odd.append(Finding("settings", "warning", found, remedy))
    yield from odd or [Finding("settings", "ok", "isolation and locks are as they should be")]


def _set_right(name: str, value: str, where: str) -> str:
    if where == "the server":
        return f"alter system set {name} = {value}; select pg_reload_conf()"
    return f"alter {where} set {name} = {value}"


def migrations(conn: Conn) -> Findings:
    known = migration_ids()
    if not conn.execute("select to_regnamespace(%s) is not null", (YOYO_SCHEMA,)).fetchone()[0]:
        yield Finding("migrations", "wrong", "this database was never migrated", MIGRATE)
        return
    query = sql.SQL("select migration_id from {}").format(
        sql.Identifier(YOYO_SCHEMA, default_migration_table)
    )
    applied = [name for (name,) in conn.execute(query)]
    pending = [name for name in known if name not in applied]
    foreign = sorted(set(applied) - set(known))
    if pending:
        yield Finding("migrations", "wrong", f"pending: {', '.join(pending)}", MIGRATE)
    if foreign:
        yield Finding(
            "migrations", "wrong", f"the database is ahead of this checkout by {', '.join(foreign)}",
            "use the checkout that migrated it",
        )  # fmt: skip
    if not pending and not foreign:
        yield Finding("migrations", "ok", f"{known[-1]} is the last, and applied")


def functions(conn: Conn) -> Findings:
    loaded = conn.execute("select schema_digest from flashsale.readiness()").fetchone()[0]
    if loaded != digest():
        yield Finding("functions", "wrong", "the sql/ that was loaded is not this checkout's", MIGRATE)
    found = list(differences(conn, SQL))
    for difference in found:
        yield Finding("functions", "wrong", difference, f"{MIGRATE} (it loads sql/ anew, and drops the rest)")
    if loaded == digest() and not found:
        yield Finding("functions", "ok", "functions and views are those of sql/")


def grants(conn: Conn) -> Findings:
    found = [Finding("grants", "wrong", wrong, MIGRATE) for wrong in wrong_grants(conn, SQL)]
    found += [Finding("grants", "wrong", wrong, remedy) for wrong, remedy in conn.execute(_OPEN).fetchall()]
    yield from found or [Finding("grants", "ok", "each role may do what its files say; no table is open")]


_OPEN = """
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
              from ours o join pg_class c on c.relnamespace = o.oid where c.relkind in ('r', 'p', 'v', 'S')
            union all
            select 'routine ' || p.oid::regprocedure, p.proowner::regrole::text
              from ours o join pg_proc p on p.pronamespace = o.oid
           ) as belongings (what, owner)
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


def roles(conn: Conn) -> Findings:
    wrong = []
    for name, missing, powerful, member_of in conn.execute(_ROLES).fetchall():
        wanted = ["flashsale_api"] if name == "flashsale_ops" else []
        if missing:
            wrong.append((f"role {name} is missing", f"create role {name} nologin, then {MIGRATE}"))
            continue
        if powerful:
            remedy = (
                f"alter role {name} nologin nosuperuser nocreaterole nocreatedb noreplication nobypassrls"
            )
            wrong.append((f"role {name} can log in, or more", remedy))
        for other in sorted({*wanted} - {*member_of}):
            wrong.append((f"role {name} is not in {other}", f"grant {other} to {name}"))
        for other in sorted({*member_of} - {*wanted}):
            wrong.append((f"role {name} is in {other}", f"revoke {other} from {name}"))
    for found, remedy in wrong:
        yield Finding("roles", "wrong", found, remedy)
    if wrong:
        return
    logins = [name for (name,) in conn.execute(_LOGINS)]
    if logins:
        yield Finding("roles", "ok", f"callers log in as {', '.join(logins)}")
    else:
        yield Finding(
            "roles", "warning", "no login role is in flashsale_api",
            "give the server one: create role … login in role flashsale_api",
        )  # fmt: skip


def sale_settings(conn: Conn) -> Findings:
    hold_time, payment_window, inbox_limit = conn.execute(
        "select hold_time, payment_window, inbox_limit from flashsale.settings"
    ).fetchone()
    found = f"holds last {seconds(hold_time)}, payments may take {seconds(payment_window)}"
    if hold_time < timedelta(seconds=10) or payment_window < timedelta(minutes=1):
        remedy = "flashsale psql -c \"select flashsale.change_settings('2 minutes', '15 minutes')\""
        yield Finding("sale_settings", "warning", f"{found}: too short for a buyer", remedy)
    elif inbox_limit == 0:
        remedy = 'flashsale psql -c "select flashsale.change_settings(p_inbox_limit => 10000)"'
        yield Finding("sale_settings", "warning", "inbox_limit is 0: early webhooks are refused", remedy)
    else:
        yield Finding("sale_settings", "ok", found)


def pg_cron(conn: Conn) -> Findings:
    """Installed, loaded, alive, on schedule: each only if the one before is so."""
    otherwise = "or call flashsale.sweep() every minute from a scheduler of your own"
    available = conn.execute("select 1 from pg_available_extensions where name = 'pg_cron'").fetchone()
    home = scheduler.cron_database(conn)
    last_run_at, swept, on_time, lag = conn.execute(
        "select last_run_at, coalesce(last_run_at > now() - %(stale)s, false),"
        " coalesce(greatest(last_run_at, scheduled_at) > now() - %(stale)s, false), lag"
        " from flashsale.scheduler",
        {"stale": STALE},
    ).fetchone()

    if not available or not home:
        major = conn.info.server_version // 10000
        if swept:
            yield Finding("pg_cron", "ok", "pg_cron is not loaded, and another scheduler calls sweep()")
        elif not available:
            package = f"postgresql-{major}-cron"
            remedy = f"install its package (Debian: {package}), load it, and migrate; {otherwise}"
            yield Finding("pg_cron", "warning", "pg_cron is not installed: nothing sweeps", remedy)
        else:
            remedy = f"set shared_preload_libraries = 'pg_cron', restart PostgreSQL, {MIGRATE}; {otherwise}"
            yield Finding("pg_cron", "warning", "pg_cron is installed but not loaded: nothing sweeps", remedy)
        return
    launchers, hidden = conn.execute(_LAUNCHERS).fetchone()
    if not launchers and not hidden:
        yield Finding("pg_cron", "wrong", "pg_cron is loaded, but its launcher is dead", "restart PostgreSQL")
        return
    with connect("doctor", make_conninfo(admin_url(), dbname=home)) as cron:
        faults = list(_job_faults(cron, conn.info.dbname))
    if faults:
        yield from faults
    elif not on_time or lag > STALE:
        last = f"last ran at {last_run_at:%Y-%m-%d %H:%M:%SZ}" if last_run_at else "never ran"
        remedy = "see flashsale cron status, and PostgreSQL's log"
        late = f"sweep() {last}; what lapsed {seconds(lag)} ago is not swept" if lag else f"sweep() {last}"
        yield Finding("pg_cron", "wrong", late, remedy)
    else:
        last = f"last run at {last_run_at:%H:%M:%SZ}" if last_run_at else "no run yet"
        yield Finding("pg_cron", "ok", f"installed, loaded, alive and on schedule; {last}")


_LAUNCHERS = """
    select count(*) filter (where backend_type = 'pg_cron launcher'),
           count(*) filter (where backend_type is null)
      from pg_stat_activity
"""
_JOB = """
    select j.jobid, j.active, j.command, j.database, r.status, r.return_message
      from cron.job j
      left join lateral (
        select d.status, d.return_message from cron.job_run_details d
         where d.jobid = j.jobid and d.end_time is not null
         order by d.runid desc limit 1) r on true
     where j.jobname = %s
"""


def _job_faults(cron: Conn, database: str) -> Findings:
    home = cron.info.dbname
    if not cron.execute("select 1 from pg_extension where extname = 'pg_cron'").fetchone():
        yield Finding("pg_cron", "wrong", f"extension pg_cron is not in database {home}", MIGRATE)
        return
    for name, command, where in scheduler.jobs(database, home):
        job = cron.execute(_JOB, (name,)).fetchone()
        if job is None:
            yield Finding("pg_cron", "wrong", f"there is no job '{name}'", MIGRATE)
            continue
        job_id, active, does, at, status, message = job
        if not active:
            remedy = f"in database {home}: select cron.alter_job({job_id}, active => true)"
            yield Finding("pg_cron", "wrong", f"job '{name}' is switched off", remedy)
        elif (does, at) != (command, where):
            yield Finding("pg_cron", "wrong", f"job '{name}' does something else: {does} in {at}", MIGRATE)
        elif status == "failed":
            said = " ".join((message or "").split())
            remedy = f"see PostgreSQL's log; if a function is missing, {MIGRATE}"
            yield Finding("pg_cron", "wrong", f"job '{name}' failed: {said}", remedy)


def audit(conn: Conn) -> Findings:
    rows = conn.execute("select check_name, detail from flashsale.audit()").fetchall()
    for name, detail in rows:
        remedy = "stop selling this product and find out who wrote to flashsale_data by hand"
        yield Finding("audit", "wrong", f"{name}: {detail}", remedy)
    if not rows:
        yield Finding("audit", "ok", "every invariant holds")
