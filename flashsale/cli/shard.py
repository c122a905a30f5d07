"""`flashsale shard`: several databases, each with a share of the products."""

import sys
from typing import Any

import click

from api.shards.names import shard_names
from api.shards.slots import parse_slots, slot_ranges
from flashsale.cli.output import console, json_option, table, text, to_json
from flashsale.database.connection import admin_url
from flashsale.durations import format_duration
from flashsale.errors import UserError
from flashsale.shards import adding, moving
from flashsale.shards.databases import Database, address, databases, named
from flashsale.shards.listing import read_listing


class _Slots(click.ParamType[list[int]]):
    """Slots such as 8-15 or 1,3,8-11."""

    name = "slots"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        try:
            return parse_slots(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.group()
def shard() -> None:
    """Divide a shop among several databases: docs/shards.md."""


@shard.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the databases of FLASHSALE_DATABASE_URLS: their slots, products, units, schema and lag.

    Exits with 1 if one is not reachable, or a slot has no owner, or two.
    """
    listing = read_listing(_all())
    if as_json:
        click.echo(to_json({"shards": listing.shards, "problems": listing.problems}))
    else:
        out = console()
        columns = ["shard", "address", "slots", "products", "units", "schema", "lag"]
        out.print(table(columns, (_cells(row) for row in listing.shards)))
        for problem in listing.problems:
            out.print(text(problem, "bold red"))
    sys.exit(1 if listing.problems else 0)


@shard.command()
@click.argument("url")
def add(url: str) -> None:
    """Make the empty database at URL a further shard. It owns no slot until some are moved to it.

    Repeated, it changes nothing.
    """
    if not url.startswith(("postgresql://", "postgres://")):
        raise UserError("URL must be a libpq connection URI, such as postgresql://host/name")
    adding.add(url, [each for each in _all() if each.url != url], click.echo)
    if url not in [each.url for each in _all()]:
        click.echo(
            f"append the URL of {address(url)} to FLASHSALE_DATABASE_URLS, here and for the HTTP servers;"
            " restart these, and then move slots to it: flashsale shard move"
        )


@shard.command()
@click.argument("slots", type=_Slots())
@click.option("--to", "name", required=True, help="The shard that is to own them.")
@click.option("--dry-run", is_flag=True, help="Say what would move.")
@click.option("--force", is_flag=True, help="Even if no HTTP server is connected to that shard.")
@json_option
def move(slots: list[int], name: str, dry_run: bool, force: bool, as_json: bool) -> None:
    """Move SLOTS, such as 8-15, with all their products, holds, orders and payments.

    They are sold on while they are copied, and then stand still, one after the other, for as long as it says.
    Repeat the command after whatever has interrupted it: it resumes. Requests that meet a slot on its way are
    answered by its new owner, or 503 with Retry-After.
    """
    among = _all()
    target = named(name, among)
    steps = moving.plan(slots, target, among)
    if dry_run:
        _print_plan(steps, target, as_json)
        return
    if not force:
        for source in {step.source for step in steps if step.source is not None}:
            moving.check_servers(source, target)
    moved = []
    for step in steps:
        found = moving.move(step, target, lambda line: click.echo(line, err=True))
        moved.append(found)
        if not as_json:
            click.echo(_sentence(found))
    moving.clear(slots, among)
    if as_json:
        click.echo(to_json([each._asdict() for each in moved]))
    elif not moved:
        click.echo(f"{target.name} owns slots {slot_ranges(slots)} already")


def _all() -> list[Database]:
    """All shards, also if there is one."""
    if found := databases():
        return found
    url = admin_url()
    return [Database(shard_names([url])[0], url)]


def _cells(row: dict[str, Any]) -> list[object]:
    if row["error"] is not None:
        return [row["shard"], row["address"], text("not reachable", "bold red"), None, None, None, None]
    owned = slot_ranges(row["owned"]) or "none"
    schema = row["schema_version"] if row["schema"] == "current" else text("outdated", "bold red")
    return [
        row["shard"], row["address"], f"{owned} of {row['slots']}", row["products"], row["units"], schema,
        format_duration(row["lag"]) if row["lag"] else "none",
    ]  # fmt: skip


def _print_plan(steps: list[moving.Step], target: Database, as_json: bool) -> None:
    if as_json:
        plan = [
            {
                "slot": step.slot, "source": step.source and step.source.name, "target": target.name,
                "products": step.products,
            }
            for step in steps
        ]  # fmt: skip
        click.echo(to_json(plan))
        return
    for step in steps:
        if step.source is None:
            click.echo(f"slot {step.slot}: its move to {target.name} was interrupted, and is finished")
        else:
            products = f"{step.products} product{'' if step.products == 1 else 's'}"
            click.echo(f"slot {step.slot}: {products}, from {step.source.name} to {target.name}")
    if not steps:
        click.echo("nothing to move")


def _sentence(moved: moving.Moved) -> str:
    if moved.source is None or moved.stood_still is None:
        return f"slot {moved.slot}: its move to {moved.target} was interrupted; it is finished now"
    stood_still = f"it stood still for {moved.stood_still:.2f} s"
    return f"slot {moved.slot}: from {moved.source} to {moved.target}; {stood_still}"
