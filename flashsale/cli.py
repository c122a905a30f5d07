"""The `flashsale` command: what it can do. Each command is in flashsale/commands, in the file of its name."""

import click
import psycopg

from flashsale.commands.audit import audit
from flashsale.commands.completion import completion
from flashsale.commands.cron import cron
from flashsale.commands.database import destroy, migrate, psql, up
from flashsale.commands.doctor import doctor
from flashsale.commands.events import events
from flashsale.commands.product import product
from flashsale.commands.rehearse import rehearse
from flashsale.commands.watch import watch
from flashsale.commands.webhook import webhook
from flashsale.connection import explain
from flashsale.refusal import Refusal


class _Commands(click.Group):
    """Commands in the order of a first day; their objections are one message on standard error."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except Refusal as refusal:
            raise click.ClickException(str(refusal)) from refusal
        except psycopg.Error as error:
            raise click.ClickException(explain(error)) from error
        except UnicodeEncodeError as error:
            raise click.ClickException("an argument is not valid UTF-8") from error


@click.group(cls=_Commands)
@click.version_option(package_name="flashsale")
def main() -> None:
    """A flash-sale checkout that lives in PostgreSQL.

    Commands talk to FLASHSALE_DATABASE_URL, or else to the running private cluster of `flashsale up`. They
    exit with 0 if all is well, 1 if something was refused or a check failed, 2 if they were not understood.
    """


for command in (
    up, doctor, product, rehearse, watch, webhook, events, audit, cron, psql, migrate, destroy, completion,
):  # fmt: skip
    main.add_command(command)
