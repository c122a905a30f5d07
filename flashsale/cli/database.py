"""`flashsale up`, `migrate`, `psql`, `destroy`: the database itself."""

import os
import sys

import click

from flashsale.database.connection import admin_url, settings
from flashsale.database.migrations import migrate as migrate_database
from flashsale.errors import Refusal
from flashsale.local import supervisor as foreground


@click.command()
def up() -> None:
    """Start PostgreSQL and the HTTP server in the foreground; Ctrl-C stops both.

    With FLASHSALE_DATABASE_URL set, starts no PostgreSQL and uses that one.
    """
    sys.exit(foreground.run(settings()))


@click.command()
@click.option("--no-schedule", is_flag=True, help="Leave pg_cron alone.")
def migrate(no_schedule: bool) -> None:
    """Apply migrations, load sql/, schedule the sweep. Safe to repeat, and while the database is in use.

    The role in the URL must be a superuser, or have CREATEROLE and CREATE on the database.
    """
    migrate_database(admin_url(), schedule=not no_schedule, say=click.echo)


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(arguments: tuple[str, ...]) -> None:
    """Open psql on the database. Takes psql's own options, as in: flashsale psql -c 'select 1'"""
    try:
        os.execvp("psql", ["psql", admin_url(), *arguments])  # noqa: S606
    except FileNotFoundError:
        raise Refusal("psql is not installed; on Debian its package is postgresql-client") from None


@click.command()
def destroy() -> None:
    """Stop the private cluster if it runs, and remove it with all its data."""
    foreground.destroy(settings())
