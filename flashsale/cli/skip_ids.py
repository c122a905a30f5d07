"""`flashsale skip-ids`: a gap in the ids, after commits were lost."""

import click

from flashsale.cli.output import console, json_option, table, to_json
from flashsale.database.connection import connect


@click.command("skip-ids")
@click.option("--count", type=click.IntRange(1000, 100_000_000), default=1_000_000, show_default=True,
              help="How many order and event ids; of product ids at most 1,000.")  # fmt: skip
@click.option(
    "--order", "order_id", type=click.IntRange(0, 2**52), help="The newest order the provider knows."
)
@json_option
def skip_ids(count: int, order_id: int | None, as_json: bool) -> None:
    """Skip ids that lost commits may have used, after a lossy failover or a restore.

    Run it once, before the servers accept requests: a provider's late webhook for a lost order would
    otherwise pay the order of another buyer that got the same id. Prints where each sequence stands now.
    """
    with connect("skip-ids") as conn:
        rows = conn.execute(
            "select * from flashsale.skip_ids(%s::int, %s::bigint)", (count, order_id)
        ).fetchall()
    if as_json:
        click.echo(to_json(dict(rows)))
    else:
        console().print(table(["sequence", "last id"], rows))
