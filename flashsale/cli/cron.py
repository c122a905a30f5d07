"""`flashsale cron`: the pg_cron jobs."""

import sys
from typing import Any

import click
from psycopg import errors
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from flashsale.cli.output import console, json_option, table, text, to_json
from flashsale.database import pg_cron
from flashsale.database.connection import admin_url, connect, fetch_row
from flashsale.durations import format_duration
from flashsale.errors import UserError

_JOBS = """
    select j.jobname as name, j.schedule, j.active, j.username as role, j.command,
           r.start_time as last_run_at, r.end_time - r.start_time as took, r.status,
           r.return_message as message,
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

    Exits with 1 if the sweep does not run. Stock stays exact without it, but rows accumulate.
    """
    with connect("cron status") as conn:
        state, detail, lag = fetch_row(
            conn,
            "select r.scheduler, r.scheduler_detail, s.lag"
            " from flashsale.readiness() r, flashsale.scheduler s",
        )
        cron_database = pg_cron.cron_database(conn)
        jobs = _jobs(cron_database, conn.info.dbname) if cron_database else []
    if as_json:
        click.echo(to_json({"scheduler": state, "detail": detail, "lag": lag, "jobs": jobs}))
    else:
        out = console()
        out.print(text(f"{state}: {detail}", "green" if state == "alive" else "bold red"))
        out.print(f"{format_duration(lag)} behind" if lag else "no lag")
        if jobs:
            columns = ["name", "schedule", "active", "last_run_at", "took", "status", "failures", "message"]
            out.print()
            out.print(table(columns, ([_cell(job, column) for column in columns] for job in jobs)))
    sys.exit(0 if state == "alive" else 1)


def _jobs(cron_database: str, database: str) -> list[dict[str, Any]]:
    with connect("cron status", make_conninfo(admin_url(), dbname=cron_database)) as conn:
        names = [name for name, *_ in pg_cron.jobs(database, cron_database)]
        try:
            return conn.cursor(row_factory=dict_row).execute(_JOBS, (names,)).fetchall()
        except errors.UndefinedTable:
            return []
        except errors.InsufficientPrivilege as error:
            message = error.diag.message_primary
            raise UserError(f"{message}: use the role that migrates, or a superuser") from error


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
