"""A rehearsal from beginning to end."""

import asyncio
import importlib.metadata
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import psycopg
import uvloop

from flashsale.database.connection import explain
from flashsale.errors import Refusal
from flashsale.rehearsal import checks, machine, preflight, shop
from flashsale.rehearsal.buyers import Cast, Shares, cast
from flashsale.rehearsal.client import opened
from flashsale.rehearsal.lapsing import lapsing_after
from flashsale.rehearsal.record import Seen, Units
from flashsale.rehearsal.sale import Sale, Terms

LOOK_EVERY = 0.05
"""seconds between two looks at the stock"""


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    buyers: int
    stock: int
    at_once: int
    shares: Shares
    lapse: float | None
    seed: int


@dataclass(frozen=True)
class Rehearsal:
    """What came of it."""

    options: Options
    url: str
    began_at: datetime
    product: shop.Product
    cast: Cast
    seen: Seen
    books: shop.Books
    checks: Sequence[checks.Check]
    load: machine.Load
    versions: dict[str, str]
    notes: Sequence[str]
    """what a reader must know of this one rehearsal"""

    @property
    def held(self) -> bool:
        """Whether every check did."""
        return all(check.held for check in self.checks)


@dataclass(frozen=True)
class Progress:
    """How far the sale is."""

    phase: str
    served: int
    units: Units | None


def rehearse(
    options: Options,
    url: str,
    database_url: str,
    conn: shop.Conn,
    secrets: Sequence[str],
    show: Callable[[Progress], None],
) -> Rehearsal:
    """Sell a throwaway product, judge the sale, and withdraw the product.

    :param url: of the server, without a slash at its end
    :param conn: an operator's, to the same database as `database_url`; autocommit
    :param secrets: the first signs the webhooks
    :raises Refusal: it makes no sense, or was stopped
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, ExitStack() as stack:
        runner.run(preflight.check_server(url, secrets))
        shop.only_one(conn)
        shares, notes = _be_careful(options, shop.busy(conn))
        if not secrets:
            notes.append("The webhooks went unsigned: this server believes anybody.")
        windows = before = shop.windows(conn)
        if options.lapse is not None:
            windows = (timedelta(seconds=options.lapse),) * 2
            stack.enter_context(lapsing_after(options.lapse, database_url, before))
            notes.append(f"Holds and orders lapsed after {options.lapse:g} s; the shop's settings are back.")
        company = cast(
            options.buyers, options.stock, shares, lapsing=options.lapse is not None, seed=options.seed
        )
        product = shop.create(conn, options.stock)
        try:
            terms = Terms(
                product_id=product.product_id,
                price=str(shop.PRICE),
                currency=shop.CURRENCY,
                hold_time=windows[0].total_seconds(),
                payment_window=windows[1].total_seconds(),
                lapsing=options.lapse is not None,
                at_once=options.at_once,
                seed=options.seed,
                token=f"rehearsal-{product.token}",
                secrets=secrets,
            )
            began_at, load = datetime.now(UTC), machine.measure()
            try:
                seen = runner.run(_sell(url, database_url, product, company, terms, show))
            except (asyncio.CancelledError, KeyboardInterrupt):
                raise Refusal("stopped before its end; the throwaway product is withdrawn") from None
            measured = load()
            books = shop.read_books(conn, product, [word.key for word in seen.words])
        finally:
            _withdraw(conn, product)
        books.audit = shop.audit(conn)
        return Rehearsal(
            options=options,
            url=url,
            began_at=began_at,
            product=product,
            cast=company,
            seen=seen,
            books=books,
            checks=checks.check(seen, books, options.stock),
            load=measured,
            versions={
                "flashsale": importlib.metadata.version("flashsale"),
                "PostgreSQL": conn.execute("show server_version").fetchone()[0].split()[0],
            },
            notes=notes,
        )


def _withdraw(conn: shop.Conn, product: shop.Product) -> None:
    try:
        shop.withdraw(conn, product)
    except psycopg.Error as error:
        raise Refusal(
            f"product {product.product_id} could not be withdrawn and may still be on sale: {explain(error)};"
            " see what is left with flashsale product list, and take it away with flashsale product restock"
        ) from error


def _be_careful(options: Options, busy: Sequence[int]) -> tuple[Shares, list[str]]:
    """Who may come while customers buy products `busy`, and what the report must say of it.

    :raises Refusal: the rehearsal would touch the customers' holds
    """
    if not busy:
        return options.shares, []
    names = f"product{'s' if len(busy) > 1 else ''} {', '.join(map(str, busy))}"
    if options.lapse is not None:
        raise Refusal(f"somebody is buying {names}; --lapse would shorten their holds, too")
    notes = [f"Somebody was buying {names} when it began: the figures are of what was left of the machine."]
    if options.shares.early:
        # An early webhook guesses the id of the next order, which may be a customer's.
        notes.append("There were no early webhooks: one might have met a customer's order.")
    return replace(options.shares, early=0), notes


async def _sell(
    url: str,
    database_url: str,
    product: shop.Product,
    company: Cast,
    terms: Terms,
    show: Callable[[Progress], None],
) -> Seen:
    task = asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await preflight.check_database(url, product)
    seen = Seen()
    async with (
        shop.window(database_url, product) as window,
        opened(url, terms.at_once, seen, terms.seed) as client,
    ):

        async def look() -> Units:
            units = Units(client.now(), *await window.units())
            seen.units.append(units)
            return units

        async def watch() -> None:
            while not over.is_set():
                show(Progress(sale.phase, sale.served, await look()))
                with suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), LOOK_EVERY)

        sale = Sale(client, company, terms, seen, look, window.next_order_id)
        over = asyncio.Event()
        client.start_the_clock()
        watcher = asyncio.create_task(watch())
        try:
            await sale.run()
        finally:
            over.set()
            await watcher
        show(Progress("done", sale.served, await look()))
    return seen
