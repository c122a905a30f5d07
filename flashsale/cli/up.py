"""`flashsale up`: PostgreSQL and the HTTP server in the foreground."""

import sys

import click

from flashsale.local import supervisor
from flashsale.settings import Settings


@click.command()
def up() -> None:
    """Start PostgreSQL and the HTTP server in the foreground; Ctrl-C stops both.

    The private cluster is in FLASHSALE_DATA_DIR, .flashsale/ below the current directory by default. With
    FLASHSALE_DATABASE_URL set, starts the HTTP server only, on that database.
    """
    sys.exit(supervisor.run(Settings.from_environment()))
