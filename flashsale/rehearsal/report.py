"""The report of a rehearsal: one HTML file without scripts or external resources."""

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from flashsale.durations import format_duration
from flashsale.rehearsal import plots, statistics
from flashsale.rehearsal.buyers import Shares
from flashsale.rehearsal.checks import opening_delay
from flashsale.rehearsal.observations import NO_RESPONSE, ROUTES, Operation, Outcome, StockLevels
from flashsale.rehearsal.run import Options, Rehearsal

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
CLIENT_BOUND = 0.9
"""CPUs used by the buyers, above which their single process is the bottleneck"""


class Plot(NamedTuple):
    """A plot for wide and for narrow pages, with its content as text."""

    wide: Markup
    narrow: Markup
    description: str


def write(rehearsal: Rehearsal, path: Path) -> None:
    """Write the report to a file.

    :raises OSError: it cannot be written
    """
    path.write_text(html(rehearsal), encoding="utf-8")


def html(rehearsal: Rehearsal) -> str:
    """The report as a string."""
    by_operation = statistics.by_operation(rehearsal.observed)
    return _TEMPLATES.get_template("report.html").render(
        r=rehearsal,
        observed=rehearsal.observed,
        state=rehearsal.state,
        options=rehearsal.options,
        by_operation=by_operation,
        total=statistics.summarize(rehearsal.observed.calls),
        capacity=capacity(rehearsal),
        command=command(rehearsal.options),
        routes=ROUTES,
        colour=plots.COLOUR_OF,
        behaviours=behaviours(rehearsal),
        owed=len(rehearsal.state.due.keys() | rehearsal.state.refunded.keys()),
        opening=opening_figures(rehearsal),
        bots=bot_figures(rehearsal),
        outcomes=outcomes(rehearsal),
        responses=[
            (operation, "no response" if status == NO_RESPONSE else f"{status} {code}", count)
            for operation, status, code, count in statistics.responses(rehearsal.observed)
        ],
        samples=_select(rehearsal.observed.stock_levels),
        stock_levels=_stock_levels(rehearsal),
        rates=_rates(rehearsal),
        latencies=_latencies(by_operation),
        ms=milliseconds,
        duration=format_duration,
    )


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds: 0.82 ms, 4.1 ms, 17 ms, 1,240 ms."""
    value = seconds * 1000
    return f"{value:,.{0 if value >= 10 else 1 if value >= 1 else 2}f} ms"


def capacity(rehearsal: Rehearsal) -> str:
    """The throughput that was reached, and its bottleneck, in a few sentences."""
    total = statistics.summarize(rehearsal.observed.calls)
    holds = statistics.summarize(
        [call for call in rehearsal.observed.calls if call.operation in (Operation.HOLD, Operation.BOT)]
    )
    cpu = rehearsal.cpu
    reached = (
        f"The peak was {total.peak:,} responses per second, and {holds.peak:,} for holds alone, with"
        f" {rehearsal.options.concurrency:,} concurrent requests. Of {cpu.cpus} CPUs {cpu.busy:.1f} were"
        f" busy, {cpu.buyers:.1f} of them simulating buyers."
    )
    if cpu.buyers > CLIENT_BOUND:
        return f"{reached} The simulated buyers were the bottleneck; the server can handle more."
    if cpu.busy < cpu.cpus / 2:
        return f"{reached} No CPU was saturated; a higher --concurrency may reach more."
    return f"{reached} Without the simulated buyers on this machine the server can handle more."


def command(options: Options) -> str:
    """The command line that repeats this rehearsal."""
    words = ["flashsale", "rehearse"]
    words += [
        f"--buyers={options.buyers}",
        f"--stock={options.stock}",
        f"--concurrency={options.concurrency}",
    ]
    defaults = vars(Shares())
    words += [
        f"--{name}={share:g}" for name, share in vars(options.shares).items() if share != defaults[name]
    ]
    words += [f"--limit={options.limit}"] if options.limit is not None else []
    if options.starts_in is not None:
        words.append(f"--starts-in={options.starts_in.total_seconds():g}s")
    words += [f"--lapse-after={options.lapse_after:g}"] if options.lapse_after is not None else []
    return shlex.join([*words, f"--seed={options.seed}"])


def opening_figures(rehearsal: Rehearsal) -> dict[str, Any] | None:
    """What happened at the start of the sale; None if it had none."""
    starts_at = rehearsal.product.starts_at
    if starts_at is None:
        return None
    return {
        "starts_at": starts_at,
        "first_hold_after_seconds": opening_delay(rehearsal.state, starts_at),
        "early_requests_refused": rehearsal.observed.count("sale_not_started"),
        "of_bots": rehearsal.observed.count("sale_not_started", Operation.BOT),
    }


def opening(rehearsal: Rehearsal) -> str:
    """The start of the sale in a sentence; empty if it had none."""
    found = opening_figures(rehearsal)
    if found is None:
        return ""
    delay = found["first_hold_after_seconds"]
    first = "no hold was placed" if delay is None else f"first hold {delay * 1000:,.0f} ms after it"
    return f"{first}, {found['early_requests_refused']:,} early requests refused"


def bot_figures(rehearsal: Rehearsal) -> dict[str, int] | None:
    """What the bots did; None if there were none."""
    if not rehearsal.buyers.bots:
        return None
    observed = rehearsal.observed
    purchases = [purchase for purchase in observed.purchases if purchase.buyer.is_bot]
    return {
        "bots": len(rehearsal.buyers.bots),
        "accounts": len({bot.account for bot in rehearsal.buyers.bots}),
        "requests": len(observed.of(Operation.BOT)),
        "early": observed.count("sale_not_started", Operation.BOT),
        "limit_reached": observed.count("limit_reached", Operation.BOT),
        "sold_out": observed.count("insufficient_stock", Operation.BOT),
        "holds": len(purchases),
        "units_bought": sum(purchase.qty for purchase in purchases if purchase.outcome is Outcome.BOUGHT),
    }


def bots(rehearsal: Rehearsal) -> str:
    """What the bots did in a sentence; empty if there were none."""
    found = bot_figures(rehearsal)
    if found is None:
        return ""
    return (
        f"{found['requests']:,} requests of {found['bots']:,} bots with {found['accounts']:,}"
        f" account{'s' if found['accounts'] > 1 else ''},"
        f" {found['limit_reached']:,} refused for the limit; they bought {found['units_bought']:,} units"
    )


def outcomes(rehearsal: Rehearsal) -> list[tuple[str, int]]:
    """The number of buyers by outcome, the most frequent first; without bots."""
    counts = Counter(
        str(purchase.outcome) for purchase in rehearsal.observed.purchases if not purchase.buyer.is_bot
    )
    counts[str(Outcome.SOLD_OUT)] += rehearsal.observed.sold_out
    return [(outcome, count) for outcome, count in counts.most_common() if count]


def behaviours(rehearsal: Rehearsal) -> list[tuple[str, str, int, int]]:
    """Each behaviour: name, description, number of buyers, and number of those who got a hold."""
    buyers = [*rehearsal.buyers.early, *rehearsal.buyers.crowd]
    purchases = [purchase for purchase in rehearsal.observed.purchases if not purchase.buyer.is_bot]
    came = Counter(buyer.behaviour for buyer in buyers)
    held = Counter(purchase.buyer.behaviour for purchase in purchases)
    rows = [(one.name, one.description, count, held[one]) for one, count in came.most_common()]
    duplicated = sum(buyer.duplicated for buyer in buyers)
    if duplicated:
        with_hold = sum(purchase.buyer.duplicated for purchase in purchases)
        rows.append(("duplicated", "any of the above, every request sent twice", duplicated, with_hold))
    return rows


def _select(samples: Sequence[StockLevels], count: int = 12) -> list[StockLevels]:
    """About `count` of the samples, evenly spaced, with the first and the last."""
    step = max(1, len(samples) // count)
    return [*samples[:-1:step], samples[-1]]


def _plot(draw: Callable[..., str], *arguments: object, description: str) -> Plot:
    wide, narrow = (Markup(draw(*arguments, width)) for width in (plots.WIDE, plots.NARROW))  # noqa: S704
    return Plot(wide, narrow, description)


def _stock_levels(rehearsal: Rehearsal) -> Plot:
    samples = rehearsal.observed.stock_levels
    sold_out = next((levels.at for levels in samples if levels.available == 0), None)
    last = samples[-1]
    description = f"Of {rehearsal.options.stock:,} units, " + (
        f"none was available after {sold_out:.1f} seconds. "
        if sold_out is not None
        else "some were available at all times. "
    )
    description += f"After {last.at:.1f} seconds {last.paid:,} were paid and {last.available:,} available."
    return _plot(plots.stock_levels, rehearsal.observed, description=description)


def _rates(rehearsal: Rehearsal) -> Plot:
    total = statistics.summarize(rehearsal.observed.calls)
    description = f"{total.count:,} responses, {total.peak:,} per second at the peak."
    return _plot(plots.response_rates, rehearsal.observed, description=description)


def _latencies(by_operation: dict[Operation, statistics.Statistics]) -> Plot:
    description = "; ".join(
        f"{operation}: median {milliseconds(found.latency.p50)}, 99th percentile"
        f" {milliseconds(found.latency.p99)}, maximum {milliseconds(found.latency.max)}"
        for operation, found in by_operation.items()
    )
    return _plot(plots.latencies, by_operation, description=f"{description}.")
