"""`flashsale cron`: the sweep's schedule."""

import sys
from typing import Any

import click
from psycopg import errors
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from flashsale.cli.output import console, json_option, seconds, table, text, to_json
from flashsale.database import pg_cron as scheduler
from flashsale.database.connection import admin_url, connect
from flashsale.errors import Refusal

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
    """Look after the scheduler that marks what has lapsed."""


@cron.command()
@json_option
def status(as_json: bool) -> None:
    """Show pg_cron's jobs for this database, their last runs, and how far behind the sweep is.

    Exits with 1 if nothing sweeps. Stock is exact all the same; rows pile up.
    """
    with connect("cron status") as conn:
        word, detail, lag = conn.execute(
            "select r.scheduler, r.scheduler_detail, s.lag"
            " from flashsale.readiness() r, flashsale.scheduler s"
        ).fetchone()
        home = scheduler.cron_database(conn)
        jobs = _jobs(home, conn.info.dbname) if home else []
    if as_json:
        click.echo(to_json({"scheduler": word, "detail": detail, "lag": lag, "jobs": jobs}))
    else:
        out = console()
        out.print(text(f"{word}: {detail}", "green" if word == "alive" else "bold red"))
        out.print(f"what lapsed {seconds(lag)} ago is not swept yet" if lag else "nothing waits to be swept")
        if jobs:
            columns = ["name", "schedule", "active", "last_run_at", "took", "status", "failures", "message"]
            out.print()
            out.print(table(columns, ([_cell(job, column) for column in columns] for job in jobs)))
    sys.exit(0 if word == "alive" else 1)


def _jobs(home: str, database: str) -> list[dict[str, Any]]:
    with connect("cron status", make_conninfo(admin_url(), dbname=home)) as conn:
        names = [name for name, *_ in scheduler.jobs(database, home)]
        try:
            return conn.cursor(row_factory=dict_row).execute(_JOBS, (names,)).fetchall()
        except errors.UndefinedTable:
            return []
        except errors.InsufficientPrivilege as error:
            said = error.diag.message_primary
            raise Refusal(f"{said}: use the role that migrates, or a superuser") from error


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
