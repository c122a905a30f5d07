"""The `flashsale` command."""

import os
import sys

import click

from flashsale import up as foreground
from flashsale.cluster import SUPERUSER, Cluster
from flashsale.migrate import migrate as migrate_database
from flashsale.refusal import Refusal


class _Commands(click.Group):
    """Commands whose Refusal is one message on standard error, not a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except Refusal as refusal:
            raise click.ClickException(str(refusal)) from refusal


@click.group(cls=_Commands)
def main() -> None:
    """A flash-sale checkout that lives in PostgreSQL."""


@main.command()
def up() -> None:
    """Start PostgreSQL and the HTTP server in the foreground; Ctrl-C stops both.

    With FLASHSALE_DATABASE_URL set, starts no PostgreSQL and uses that one.
    """
    sys.exit(foreground.run(_settings()))


@main.command()
@click.option("--no-schedule", is_flag=True, help="Leave pg_cron alone.")
def migrate(no_schedule: bool) -> None:
    """Apply migrations, load sql/, schedule the tidying. Safe to repeat, and while the database is in use.

    The database is FLASHSALE_DATABASE_URL, or else the running private cluster. The role in it must be a
    superuser, or have CREATEROLE and CREATE on the database.
    """
    migrate_database(_admin_url(), schedule=not no_schedule, say=click.echo)


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(arguments: tuple[str, ...]) -> None:
    """Open psql on FLASHSALE_DATABASE_URL, or else on the running private cluster.

    Takes psql's own options.
    """
    os.execvp("psql", ["psql", _admin_url(), *arguments])  # noqa: S606


@main.command()
def destroy() -> None:
    """Stop the private cluster if it runs, and remove it with all its data."""
    foreground.destroy(_settings())


def _settings() -> foreground.Settings:
    return foreground.Settings.from_environment(os.environ)


def _admin_url() -> str:
    settings = _settings()
    if settings.database_url:
        return settings.database_url
    cluster = Cluster(settings.data_directory)
    if not cluster.is_running():
        raise Refusal("set FLASHSALE_DATABASE_URL, or start the private cluster with: make up")
    return cluster.url(SUPERUSER, foreground.DATABASE)
