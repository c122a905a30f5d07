"""`flashsale destroy`: deletes the private cluster."""

import click

from flashsale.local import supervisor
from flashsale.settings import Settings


@click.command()
def destroy() -> None:
    """Stop the private cluster if it is running, and delete it with all its data."""
    supervisor.destroy(Settings.from_environment())
