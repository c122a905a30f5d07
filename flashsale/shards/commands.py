"""The commands of one database, over several: each runs as it is, on one shard after the other.

With --json, what they print is one array, and each of its objects says which shard it is of; what a command
prints as one object a line stays that. --shard chooses one; a command that cannot do without is told so.
"""

import copy
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any, TypeAlias

import click
import psycopg

from flashsale.cli.output import console, text
from flashsale.cli.types import ID
from flashsale.database.connection import describe_error, use_database
from flashsale.errors import UserError
from flashsale.shards import databases as shards
from flashsale.shards.databases import Database
from flashsale.shards.doctor import report as doctor
from flashsale.shards.watch import watch

Arguments: TypeAlias = dict[str, Any]
Callback: TypeAlias = Callable[..., Any]
Rule: TypeAlias = Callable[[Callback, Arguments, list[Database]], object]

PAYMENT_NOT_FOUND = "SA020"


def adapt(command: click.Command, path: str = "") -> click.Command:
    """The command over several databases, if there are."""
    found = shards.databases()
    if not found:
        return command
    path = f"{path} {command.name}".strip()
    command = copy.copy(command)
    if isinstance(command, click.Group):
        command.commands = {name: adapt(each, path) for name, each in command.commands.items()}
    elif path in RULES and command.callback is not None:
        command.callback = _over(command.callback, RULES[path], found)
        options = [click.Option(["--shard"], help="Only on this shard; see `flashsale shard list`.")]
        if path == "product create":
            about = "In the slot of this product: the limit of a group counts within one."
            options.append(click.Option(["--with-product"], type=ID, help=about))
        command.params = [*command.params, *options]
    return command


def _over(callback: Callback, rule: Rule, among: list[Database]) -> Callback:
    def run(shard: str | None, with_product: int | None = None, **arguments: Any) -> None:
        chosen = None if shard is None else shards.named(shard, among)
        if with_product is not None:
            owner = shards.owners_of("product create", [with_product], among)[with_product]
            if chosen not in (None, owner):
                raise UserError(f"product {with_product} is on {owner.name}")
            chosen = owner
            arguments["slot"] = with_product % shards.read_owned("product create", owner.url).slots
        if chosen is None:
            rule(callback, arguments, among)
        else:
            with use_database(chosen.url):
                callback(**arguments)

    return run


def on_each(callback: Callback, arguments: Arguments, among: Iterable[Database]) -> None:
    """On all shards, with what each prints under its name; exits with 1 if one did."""
    _run_each(callback, ((database, arguments) for database in among), by_line=False)


def on_each_by_line(callback: Callback, arguments: Arguments, among: Iterable[Database]) -> None:
    """As on_each(), for a command that prints one object a line."""
    _run_each(callback, ((database, arguments) for database in among), by_line=True)


def on_one(callback: Callback, arguments: Arguments, among: list[Database]) -> None:
    """On a shard that the user must choose."""
    raise UserError(f"choose a database with --shard: {shards.describe_choice(among)}")


def on_owner(parameter: str) -> Rule:
    """On the shard of an id, or on those of several, each with its own ids; without ids, on all."""

    def run(callback: Callback, arguments: Arguments, among: list[Database]) -> None:
        given = arguments[parameter]
        if not given:
            on_each(callback, arguments, among)
            return
        ids = [given] if isinstance(given, int) else list(given)
        owners = shards.owners_of("shards", ids, among)
        grouped: dict[Database, list[int]] = {}
        for id_ in ids:
            grouped.setdefault(owners[id_], []).append(id_)
        if len(grouped) == 1:
            with use_database(next(iter(grouped)).url):
                callback(**arguments)
            return
        _run_each(
            callback,
            ((database, arguments | {parameter: tuple(found)}) for database, found in grouped.items()),
            by_line=False,
        )

    return run


def on_payment(callback: Callback, arguments: Arguments, among: list[Database]) -> None:
    """On the shard that has the payment: its key names no slot."""
    unknown: psycopg.Error | None = None
    unreachable = []
    for database in among:
        try:
            with use_database(database.url):
                callback(**arguments)
            return
        except psycopg.Error as error:
            if error.sqlstate == PAYMENT_NOT_FOUND:
                unknown = error
            elif isinstance(error, psycopg.OperationalError):
                unreachable.append(f"{database.name}: {describe_error(error)}")
            else:
                raise
    if unreachable or unknown is None:
        raise UserError(f"the payment may be on a shard that is not reachable: {'; '.join(unreachable)}")
    raise unknown


def events(callback: Callback, arguments: Arguments, among: list[Database]) -> None:
    """The ledgers, one after the other; each has a counter of its own, so to go on needs one of them."""
    if arguments["follow"] or arguments["after"]:
        on_one(callback, arguments, among)
    on_each_by_line(callback, arguments, among)


def webhook(callback: Callback, arguments: Arguments, among: list[Database]) -> None:
    """The shard is needed for the id of the next order, and to look up an order's amount."""
    if arguments["order_id"] is None and arguments["product"] is not None:
        on_owner("product")(callback, arguments, among)
    elif arguments["order_id"] is None:
        on_one(callback, arguments, among)
    elif arguments["provider"] is None:
        callback(**arguments)
    else:
        on_owner("order_id")(callback, arguments, among)


def migrate(callback: Callback, arguments: Arguments, among: list[Database]) -> None:
    """A new shop is divided evenly: the first shards own the lowest slots."""
    slots = arguments["slots"]
    if slots is None:
        return on_each(callback, arguments, among)
    if slots < len(among):
        raise UserError(f"{slots} slots are too few for {len(among)} databases")
    bounds = [number * slots // len(among) for number in range(len(among) + 1)]
    _run_each(
        callback,
        (
            (database, arguments | {"owned": list(range(bounds[number], bounds[number + 1]))})
            for number, database in enumerate(among)
        ),
        by_line=False,
    )


def refuse(callback: Callback, arguments: Arguments, among: list[Database]) -> None:
    raise UserError("this command is for one database: unset FLASHSALE_DATABASE_URLS, or see docs/shards.md")


RULES: Mapping[str, Rule] = {
    "up": refuse,
    "doctor": doctor,
    "product create": on_one,
    "product list": on_each,
    "product restock": on_owner("product_id"),
    "product price": on_owner("product_id"),
    "product forget-tests": on_owner("product_ids"),
    "product terms": on_owner("product_ids"),
    "product pause": on_owner("product_ids"),
    "product resume": on_owner("product_ids"),
    "rehearse": on_one,
    "watch": watch,
    "webhook send": webhook,
    "refunds list": on_each,
    "refunds begin": on_each,
    "refunds record": on_payment,
    "refunds pay": on_each_by_line,
    "events": events,
    "audit": on_each,
    "cron status": on_each,
    "psql": on_one,
    "migrate": migrate,
}
"""What a command does without --shard; a command without a rule uses no database"""


def _run_each(callback: Callback, calls: Iterable[tuple[Database, Arguments]], *, by_line: bool) -> None:
    status = 0
    objects: list[Any] = []
    as_json = False
    for database, arguments in calls:
        as_json = bool(arguments.get("as_json"))
        if not as_json:
            console().print(text(database.name, "bold"))
        with use_database(database.url), _labelled(database.name, objects, as_json, by_line):
            status |= _run(callback, arguments, database)
        if not as_json:
            click.echo()
    if as_json and not by_line:
        click.echo(json.dumps(objects, ensure_ascii=False))
    sys.exit(status)


def _run(callback: Callback, arguments: Arguments, database: Database) -> int:
    """Run the command; returns its exit status. An error is printed: the other shards have their turn."""
    try:
        callback(**arguments)
    except SystemExit as exit_:
        return int(bool(exit_.code))
    except (UserError, psycopg.Error) as error:
        said = str(error) if isinstance(error, UserError) else describe_error(error)
        click.echo(f"Error: {database.name}: {said}", err=True)
        return 1
    return 0


@contextmanager
def _labelled(shard: str, objects: list[Any], as_json: bool, by_line: bool) -> Iterator[None]:
    """Take the JSON that a command prints, and put the shard's name into each object."""
    if not as_json:
        yield
        return
    printed = _Lines(shard, None if by_line else objects, sys.stdout)
    with redirect_stdout(printed):
        yield


class _Lines(io.TextIOBase):
    """Collects the objects of printed lines, or prints them at once."""

    def __init__(self, shard: str, objects: list[Any] | None, out: Any) -> None:
        self._shard = shard
        self._objects = objects
        self._out = out
        self._rest = ""

    def writable(self) -> bool:
        return True

    def write(self, data: str) -> int:
        *lines, self._rest = (self._rest + data).split("\n")
        for line in filter(None, lines):
            value = json.loads(line)
            found = [
                {"shard": self._shard, **each} for each in (value if isinstance(value, list) else [value])
            ]
            if self._objects is not None:
                self._objects += found
            else:
                for each in found:
                    self._out.write(json.dumps(each, ensure_ascii=False) + "\n")
        return len(data)
