"""`flashsale migrate`: the schema, the functions and the scheduled sweep."""

from collections.abc import Sequence
from datetime import timedelta

import click

from flashsale.database import migrations
from flashsale.database.connection import admin_url
from flashsale.database.migration_lock import LOCK_TIMEOUT


@click.command()
@click.option("--no-schedule", is_flag=True, help="Do not schedule the sweep in pg_cron.")
@click.option(
    "--lock-timeout",
    type=click.IntRange(0, 86400),
    default=int(LOCK_TIMEOUT.total_seconds()),
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for another migrate of this database.",
)
@click.option(
    "--slots",
    type=click.IntRange(1, 256),
    metavar="N",
    help="Divide the ids of a new shop, for several databases: docs/shards.md. A power of 2.",
)
def migrate(
    no_schedule: bool, lock_timeout: int, slots: int | None, owned: Sequence[int] | None = None
) -> None:
    """Apply migrations, load functions and views, schedule the sweep.

    Safe to repeat, and during a sale. The role must be a superuser, or have CREATEROLE, and CREATE on the
    database; not through a pooler in transaction mode. If pg_cron does not accept the job, a warning says
    what to do.
    """
    migrations.migrate(
        admin_url(),
        schedule=not no_schedule,
        lock_timeout=timedelta(seconds=lock_timeout),
        slots=slots,
        owned=owned,
        say=click.echo,
    )
