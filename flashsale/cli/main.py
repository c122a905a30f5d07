"""The `flashsale` command with its subcommands."""

import click
import psycopg

from flashsale.cli.audit import audit
from flashsale.cli.completion import completion
from flashsale.cli.cron import cron
from flashsale.cli.destroy import destroy
from flashsale.cli.doctor import doctor
from flashsale.cli.events import events
from flashsale.cli.migrate import migrate
from flashsale.cli.product import product
from flashsale.cli.psql import psql
from flashsale.cli.refunds import refunds
from flashsale.cli.rehearse import rehearse
from flashsale.cli.shard import shard
from flashsale.cli.up import up
from flashsale.cli.watch import watch
from flashsale.cli.webhook import webhook
from flashsale.database.connection import describe_error
from flashsale.errors import UserError
from flashsale.shards.commands import adapt


class _Commands(click.Group):
    """Commands in the order of their first use; an error is one message on standard error."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = super().get_command(ctx, cmd_name)
        try:
            return command and adapt(command)
        except UserError as error:
            raise click.ClickException(str(error)) from error

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise click.ClickException(str(error)) from error
        except psycopg.Error as error:
            raise click.ClickException(describe_error(error)) from error
        except UnicodeEncodeError as error:
            raise click.ClickException("an argument is not valid UTF-8") from error


@click.group(cls=_Commands)
@click.version_option(package_name="flashsale")
def main() -> None:
    """A flash-sale checkout that lives in PostgreSQL.

    Commands connect to FLASHSALE_DATABASE_URL, or else to the running private cluster of `flashsale up`.
    Exit status: 0 success, 1 an error or a failed check, 2 wrong usage.
    """


for command in (
    up, doctor, product, rehearse, watch, webhook, refunds, events, audit, cron, psql, migrate, shard,
    destroy, completion,
):  # fmt: skip
    main.add_command(command)
