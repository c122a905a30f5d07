"""`flashsale up`, `migrate`, `psql` and `destroy`."""

import os
import sys

import click

from flashsale.database.connection import admin_url
from flashsale.database.migrations import migrate as migrate_database
from flashsale.errors import UserError
from flashsale.local import supervisor
from flashsale.settings import Settings


@click.command()
def up() -> None:
    """Start PostgreSQL and the HTTP server in the foreground; Ctrl-C stops both.

    The private cluster is in FLASHSALE_DATA_DIR, .flashsale/ below the current directory by default. With
    FLASHSALE_DATABASE_URL set, starts the HTTP server only, on that database.
    """
    sys.exit(supervisor.run(Settings.from_environment()))


@click.command()
@click.option("--no-schedule", is_flag=True, help="Do not schedule the sweep in pg_cron.")
def migrate(no_schedule: bool) -> None:
    """Apply migrations, load functions and views, schedule the sweep.

    Safe to repeat, and during a sale. The role must be a superuser, or have CREATEROLE, and CREATE on the
    database.
    """
    migrate_database(admin_url(), schedule=not no_schedule, say=click.echo)


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(arguments: tuple[str, ...]) -> None:
    """Open psql on the database. Options are passed to psql, as in: flashsale psql -c 'select 1'"""
    try:
        os.execvp("psql", ["psql", admin_url(), *arguments])  # noqa: S606
    except FileNotFoundError:
        raise UserError("psql is not installed; on Debian: apt-get install postgresql-client") from None


@click.command()
def destroy() -> None:
    """Stop the private cluster if it is running, and delete it with all its data."""
    supervisor.destroy(Settings.from_environment())
