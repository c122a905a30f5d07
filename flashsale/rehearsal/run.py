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

from flashsale.database.connection import Connection, describe_error, fetch_value
from flashsale.errors import UserError
from flashsale.rehearsal import checks, database_state, preflight, throwaway_product
from flashsale.rehearsal.buyers import Buyers, Shares, generate_buyers
from flashsale.rehearsal.client import open_client
from flashsale.rehearsal.config import SaleConfig
from flashsale.rehearsal.cpu import CpuUsage, measure_cpu
from flashsale.rehearsal.database_state import DatabaseState
from flashsale.rehearsal.identity import Identity, signing_key
from flashsale.rehearsal.observations import Observations, StockLevels
from flashsale.rehearsal.sale import Sale
from flashsale.rehearsal.shop import open_shop
from flashsale.rehearsal.temporary_settings import temporary_settings
from flashsale.rehearsal.throwaway_product import Product

SAMPLE_INTERVAL_SECONDS = 0.05
"""seconds between two samples of the stock levels"""


@dataclass(frozen=True)
class Options:
    """The options of the command."""

    buyers: int
    stock: int
    concurrency: int
    shares: Shares
    lapse_after: float | None
    seed: int
    limit: int | None = None
    """units that one buyer can have"""
    starts_in: timedelta | None = None
    """from the creation of the product to the start of its sale"""
    keep: bool = False
    """the throwaway product is withdrawn at the end instead of removed"""


@dataclass(frozen=True)
class Rehearsal:
    """The result."""

    options: Options
    url: str
    began_at: datetime
    product: Product
    buyers: Buyers
    observed: Observations
    state: DatabaseState
    checks: Sequence[checks.Check]
    cpu: CpuUsage
    versions: dict[str, str]
    notes: Sequence[str]
    """conditions that a reader of the report has to know"""

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


@dataclass(frozen=True)
class Progress:
    """The progress of the sale."""

    phase: str
    served: int
    stock_levels: StockLevels


def rehearse(
    options: Options,
    url: str,
    database_url: str,
    conn: Connection,
    secrets: Sequence[str],
    show: Callable[[Progress], None],
) -> Rehearsal:
    """Sell a throwaway product, check the sale, and remove the product.

    :param url: of the server, without a trailing slash
    :param conn: an operator's, to the same database as `database_url`; autocommit
    :param secrets: the first signs the webhooks
    :raises UserError: a precondition does not hold, or the rehearsal was interrupted
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, ExitStack() as stack:
        runner.run(preflight.check_server(url, secrets))
        throwaway_product.lock(conn)
        shares, notes = _protect_customers(options, throwaway_product.active_products(conn))
        key = signing_key()
        if not secrets:
            notes.append("The server accepted webhooks without a signature.")
        hold_time, payment_window = before = throwaway_product.time_limits(conn)
        lapsing = options.lapse_after is not None
        if options.lapse_after is not None:
            hold_time = payment_window = timedelta(seconds=options.lapse_after)
            stack.enter_context(temporary_settings(options.lapse_after, database_url, before))
            notes.append(
                f"Holds and orders lapsed after {options.lapse_after:g} s; the settings have been restored."
            )
        buyers = generate_buyers(options.buyers, options.stock, shares, lapsing=lapsing, seed=options.seed)
        product = throwaway_product.create(
            conn, options.stock, limit=options.limit, starts_in=options.starts_in
        )
        identity = None if options.limit is None else Identity(key, f"rehearsal-{product.token}")
        if identity is not None and not identity.signs:
            notes.append("The server let this command name the buyers, as it would let any other client.")
        try:
            config = SaleConfig(
                product_id=product.product_id,
                price=throwaway_product.PRICE,
                currency=throwaway_product.CURRENCY,
                limit=product.limit,
                starts_at=product.starts_at,
                hold_time=hold_time.total_seconds(),
                payment_window=payment_window.total_seconds(),
                lapsing=lapsing,
                concurrency=options.concurrency,
                cancelled=shares.cancelled,
                seed=options.seed,
                token=f"rehearsal-{product.token}",
                secrets=secrets,
            )
            began_at, cpu_usage = datetime.now(UTC), measure_cpu()
            try:
                observed = runner.run(_sell(url, database_url, product, buyers, config, identity, show))
            except (asyncio.CancelledError, KeyboardInterrupt):
                removed = "withdrawn" if options.keep else "removed"
                raise UserError(f"interrupted; the throwaway product is {removed}") from None
            cpu = cpu_usage()
            keys = [webhook.key for webhook in observed.webhooks]
            state = database_state.read_state(conn, product, keys)
            state.audit = database_state.audit(conn)
        finally:
            if options.keep:
                _withdraw(conn, product)
            else:
                _forget(conn, product)
        if (remaining := throwaway_product.count_remaining(conn, keys)) and not options.keep:
            notes.append(
                f"{remaining:,} early webhooks met no order of the rehearsal and remain in the books: their"
                f" keys in flashsale.payments begin with rehearsal-{product.token}."
            )
        return Rehearsal(
            options=options,
            url=url,
            began_at=began_at,
            product=product,
            buyers=buyers,
            observed=observed,
            state=state,
            checks=checks.check(observed, state, product),
            cpu=cpu,
            versions={
                "flashsale": importlib.metadata.version("flashsale"),
                "PostgreSQL": fetch_value(conn, "show server_version").split()[0],
            },
            notes=notes,
        )


def _withdraw(conn: Connection, product: Product) -> None:
    try:
        throwaway_product.withdraw(conn, product)
    except psycopg.Error as error:
        raise UserError(
            f"product {product.product_id} could not be withdrawn and may still be on sale:"
            f" {describe_error(error)}; see its stock with flashsale product list, and remove it with"
            " flashsale product restock"
        ) from error


def _forget(conn: Connection, product: Product) -> None:
    try:
        throwaway_product.forget(conn, product)
    except psycopg.Error as error:
        raise UserError(
            f"product {product.product_id} could not be removed and may still be on sale:"
            f" {describe_error(error)}; remove it with: flashsale product forget-tests {product.product_id}"
        ) from error


def _protect_customers(options: Options, active_products: Sequence[int]) -> tuple[Shares, list[str]]:
    """The shares of buyers and the notes of a rehearsal while customers buy `active_products`.

    :raises UserError: the rehearsal would shorten the holds of customers
    """
    if not active_products:
        return options.shares, []
    names = f"product{'s' if len(active_products) > 1 else ''} {', '.join(map(str, active_products))}"
    if options.lapse_after is not None:
        raise UserError(f"customers are buying {names}; --lapse-after would shorten their holds, too")
    notes = [f"Customers were buying {names} at the start, so the rates are lower than the machine allows."]
    if options.shares.early:
        # An early webhook has a predicted order id, which a customer's order may get.
        notes.append("No early webhooks were sent, because one could have matched a customer's order.")
    return replace(options.shares, early=0), notes


async def _sell(
    url: str,
    database_url: str,
    product: Product,
    buyers: Buyers,
    config: SaleConfig,
    identity: Identity | None,
    show: Callable[[Progress], None],
) -> Observations:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine runs in a task
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await preflight.check_database(url, product)
    if identity is not None:
        await preflight.check_identity(url, product, identity)
    observed = Observations()
    async with (
        open_shop(database_url, product) as shop,
        open_client(
            url, config.concurrency, observed, config.seed, others=config.concurrency if buyers.bots else 0
        ) as client,
    ):

        async def sample() -> StockLevels:
            levels = StockLevels(client.now(), *await shop.stock_levels())
            observed.stock_levels.append(levels)
            return levels

        async def sample_until_over() -> None:
            while not over.is_set():
                show(Progress(sale.phase, sale.served, await sample()))
                with suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), SAMPLE_INTERVAL_SECONDS)

        client.start_clock()
        sale = Sale(client, buyers, config, identity, observed, sample, shop)
        over = asyncio.Event()
        sampler = asyncio.create_task(sample_until_over())
        try:
            await sale.run()
        finally:
            over.set()
            await sampler
        show(Progress("done", sale.served, await sample()))
    return observed
