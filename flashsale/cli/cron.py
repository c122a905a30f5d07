"""`flashsale cron`: the pg_cron jobs."""

import sys
from typing import Any

import click
from psycopg import errors
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from flashsale.cli.output import console, json_option, table, text, to_json
from flashsale.database import pg_cron
from flashsale.database.connection import (
    CannotConnect,
    Connection,
    admin_url,
    connect,
    fetch_row,
    fetch_value,
)
from flashsale.durations import format_duration

_JOBS = """
    select j.jobname as name, j.schedule, j.active, j.username as role, j.command,
           r.start_time as last_run_at, r.end_time - r.start_time as took, r.status,
           r.return_message as message,
           (select d.status || ': ' || coalesce(d.return_message, '') from cron.job_run_details d
             where d.jobid = j.jobid and d.status in ('succeeded', 'failed')
             order by d.runid desc limit 1) as last_result,
           (select count(*) from cron.job_run_details d
             where d.jobid = j.jobid and d.status = 'failed') as failures
      from cron.job j
      left join lateral (
        select * from cron.job_run_details d where d.jobid = j.jobid order by d.runid desc limit 1) r on true
     where j.jobname = any (%s)
     order by j.jobname desc
"""


@click.group()
def cron() -> None:
    """Inspect the scheduled sweep of lapsed holds and overdue orders."""


@cron.command()
@json_option
def status(as_json: bool) -> None:
    """Show pg_cron's jobs for this database, their last runs, and the lag of the sweep.

    Exits with 1 if the sweep does not run, or its last run failed. Stock stays exact without it, but rows
    accumulate. The jobs are shown to the role that has scheduled them and to superusers.
    """
    with connect("cron status") as conn:
        state, detail, lag = fetch_row(conn, "select status, detail, lag from flashsale.scheduler")
        jobs = _visible_jobs(conn)
        user = conn.info.user
    results = [job.pop("last_result") for job in jobs or []]
    # In the order of the jobs: the sweep is the first.
    if state == "alive" and results and (results[0] or "").startswith("failed: "):  # guard: failed-run
        state, detail = "failing", f"The last run failed: {' '.join(results[0].split()[1:])}"
    if as_json:
        click.echo(to_json({"scheduler": state, "detail": detail, "lag": lag, "jobs": jobs}))
    else:
        out = console()
        out.print(text(f"{state}: {detail}", "green" if state == "alive" else "bold red"))
        out.print(f"{format_duration(lag)} behind" if lag else "no lag")
        if jobs is None:
            out.print(f"pg_cron shows its jobs to the role that has scheduled them, not to {user}")
        if jobs:
            columns = ["name", "schedule", "active", "last_run_at", "took", "status", "failures", "message"]
            out.print()
            out.print(table(columns, ([_cell(job, column) for column in columns] for job in jobs)))
    sys.exit(0 if state == "alive" else 1)


def _visible_jobs(conn: Connection) -> list[dict[str, Any]] | None:
    """pg_cron's jobs for this database; None if this role cannot see them."""
    try:
        database = pg_cron.cron_database(conn)
        if database is None:
            return []
        with connect("cron status", make_conninfo(admin_url(), dbname=database)) as cron:
            names = [name for name, *_ in pg_cron.jobs(conn.info.dbname, database)]
            found = cron.cursor(row_factory=dict_row).execute(_JOBS, (names,)).fetchall()
            # Row security limits a role that is no superuser to its own jobs.
            is_limited = not found and fetch_value(cron, "select row_security_active('cron.job')")
            return None if is_limited else found
    except errors.UndefinedTable:
        return []
    except (errors.InsufficientPrivilege, CannotConnect):
        return None


def _cell(job: dict[str, Any], column: str) -> object:
    if column == "took" and job["took"] is not None:
        return f"{job['took'].total_seconds():.2f} s"
    if column == "active":
        return "yes" if job["active"] else text("no", "bold red")
    if column == "status" and job["status"] == "failed":
        return text("failed", "bold red")
    if column == "message":
        return " ".join((job["message"] or "").split())
    return job[column]
