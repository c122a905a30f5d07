"""`flashsale migrate`: the schema, the functions and the scheduled sweep."""

import click

from flashsale.database import migrations
from flashsale.database.connection import admin_url


@click.command()
@click.option("--no-schedule", is_flag=True, help="Do not schedule the sweep in pg_cron.")
def migrate(no_schedule: bool) -> None:
    """Apply migrations, load functions and views, schedule the sweep.

    Safe to repeat, and during a sale. The role must be a superuser, or have CREATEROLE, and CREATE on the
    database.
    """
    migrations.migrate(admin_url(), schedule=not no_schedule, say=click.echo)
