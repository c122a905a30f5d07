"""`flashsale psql`: psql on the database of the command line."""

import os

import click

from flashsale.database.connection import admin_url
from flashsale.errors import UserError


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(arguments: tuple[str, ...]) -> None:
    """Open psql on the database. Options are passed to psql, as in: flashsale psql -c 'select 1'"""
    try:
        os.execvp("psql", ["psql", admin_url(), *arguments])  # noqa: S606
    except FileNotFoundError:
        raise UserError("psql is not installed; on Debian: apt-get install postgresql-client") from None
