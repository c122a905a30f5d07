"""`flashsale webhook`: sends payment webhooks for tests."""

import http.client
import json
import shlex
import socket
import sys
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import click
from rich.text import Text

from flashsale import adyen_events, stripe_events
from flashsale.cli.output import console, json_option, printable, to_json
from flashsale.cli.types import ID, MONEY
from flashsale.database.connection import connect, fetch_value
from flashsale.errors import UserError
from flashsale.settings import Settings
from flashsale.webhooks import signature_headers, webhook_secrets

PATH = "/api/payments/webhook"
TIMEOUT_SECONDS = 10
"""seconds for one response"""


@click.group()
def webhook() -> None:
    """Act as the payment provider."""


@webhook.command()
@click.option("--order", "order_id", type=ID, help="The order that is paid.")
@click.option("--early", is_flag=True, help="Send it for the id of the next order, before that is created.")
@click.option(
    "--product", type=ID, help="With --early, the product of that order; needed if ids have several slots."
)
@click.option(
    "--status",
    type=click.Choice(["success", "failed", "cancelled", "declined"]),
    default="success",
    show_default=True,
)
@click.option("--amount", type=MONEY, help="Captured amount, such as 99.00.")
@click.option("--currency", help="ISO 4217 code.")
@click.option(
    "--key",
    help="Idempotency key, which names the payment and its outcome; with --provider, the provider's id of the"
    " payment. [default: a new one]",
)
@click.option("--provider", type=click.Choice(["stripe", "adyen"]), help="Send it as this provider does.")
@click.option(
    "--times", type=click.IntRange(1, 10_000), default=1, help="How often the same webhook is sent."
)
@click.option("--url", help="URL of the server. [default: from FLASHSALE_HOST and FLASHSALE_PORT]")
@json_option
def send(
    order_id: int | None,
    early: bool,
    product: int | None,
    status: str,
    amount: Decimal | None,
    currency: str | None,
    key: str | None,
    provider: str | None,
    times: int,
    url: str | None,
    as_json: bool,
) -> None:
    """Send a payment webhook and print each response.

    It is signed with the first of FLASHSALE_WEBHOOK_SECRETS, and unsigned if that is not set; as a provider
    sends it, with the first of FLASHSALE_STRIPE_SECRETS or FLASHSALE_ADYEN_HMAC_KEYS. Exits with 1 if the
    server rejected one.
    """
    if early == (order_id is not None):
        raise click.UsageError("give either --order N, or --early for the next order")
    if order_id is None:
        with connect("webhook send") as conn:
            order_id = fetch_value(conn, "select flashsale.next_order_id(%s::bigint)", (product,))
        if order_id is None:
            raise click.UsageError("ids have several slots: give --product with --early")
    if provider is None:
        webhook = _own(order_id, status, amount, currency, key)
    else:
        play = _stripe if provider == "stripe" else _adyen
        webhook = play(order_id, status, *_money(order_id, amount, currency), key)
    target = (url or Settings.from_environment().base_url).rstrip("/").removesuffix(PATH) + webhook.path
    out = console()
    if not as_json:
        signed = "signed" if webhook.headers or provider == "adyen" else "unsigned"
        out.print(Text(f"{target}  {printable(webhook.body.decode())}  {signed}", "dim"), soft_wrap=True)
    rejected = False
    for number in range(1, times + 1):
        response = _post(target, webhook)
        rejected |= response.status >= 300
        if as_json:
            click.echo(
                to_json({"status": response.status, "replayed": response.replayed, "body": response.body})
            )
        else:
            style = "green" if response.status == 200 else "yellow" if response.status == 202 else "bold red"
            line = Text(f"{number}/{times}  ").append(str(response.status), style)
            body_text = response.body if isinstance(response.body, str) else to_json(response.body)
            line.append(f"  {printable(body_text)}").append("  replayed" if response.replayed else "", "dim")
            out.print(line, soft_wrap=True)
    sys.exit(1 if rejected else 0)


@dataclass(frozen=True)
class _Webhook:
    path: str
    body: bytes
    headers: dict[str, str]
    """that sign it"""
    key: str
    """with which the command is repeated"""


def _own(
    order_id: int, status: str, amount: Decimal | None, currency: str | None, key: str | None
) -> _Webhook:
    event = {
        "idempotency_key": key if key is not None else f"pay_{uuid.uuid4().hex}",
        "order_id": order_id,
        "status": status,
        "amount": None if amount is None else f"{amount:f}",
        "currency": currency,
    }
    body = json.dumps({name: value for name, value in event.items() if value is not None}).encode()
    name = str(event["idempotency_key"])
    return _Webhook(PATH, body, signature_headers(body, name, webhook_secrets()), name)


def _money(order_id: int, amount: Decimal | None, currency: str | None) -> tuple[Decimal, str]:
    """What is missing is the order's."""
    if amount is None or currency is None:
        with connect("webhook send") as conn:
            row = conn.execute(
                "select o.amount, o.currency from flashsale_data.orders o where o.order_id = %s", (order_id,)
            ).fetchone()
        if row is None:
            raise click.UsageError("the order does not exist: give --amount and --currency")
        amount, currency = amount if amount is not None else row[0], currency or row[1]
    return amount, str(currency)


def _stripe(order_id: int, status: str, amount: Decimal, currency: str, key: str | None) -> _Webhook:
    if status not in stripe_events.EVENTS:
        raise click.UsageError(f"Stripe has no event for {status}; choose failed or declined")
    payment = key if key is not None else f"pi_{uuid.uuid4().hex}"
    body = stripe_events.payment_event(payment, order_id, status, amount, currency)
    return _Webhook(f"{PATH}/stripe", body, stripe_events.signature_headers(body), payment)


def _adyen(order_id: int, status: str, amount: Decimal, currency: str, key: str | None) -> _Webhook:
    if status not in adyen_events.STATUSES:
        raise click.UsageError(f"Adyen has no authorisation that is {status}; choose success or declined")
    payment = key if key is not None else uuid.uuid4().hex[:16].upper()
    body = adyen_events.notification(payment, order_id, status, amount, currency)
    return _Webhook(f"{PATH}/adyen", body, {}, payment)


@dataclass(frozen=True)
class _Response:
    status: int
    replayed: bool
    body: Any


def _post(url: str, webhook: _Webhook) -> _Response:
    headers = {"Content-Type": "application/json", **webhook.headers}
    try:
        request = urllib.request.Request(url, webhook.body, headers)  # noqa: S310
        if request.type not in ("http", "https"):
            raise UserError(f"{url} is not an http or https URL")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
                return _parse(response.status, response)
        except urllib.error.HTTPError as error:
            with error:
                return _parse(error.code, error)
    except ValueError as error:
        raise UserError(f"{url} is not an http or https URL") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, (ConnectionRefusedError, socket.gaierror)):
            raise UserError(f"no response from {url}: {reason}; is the server running?") from error
        said = " ".join(str(reason).split()) or type(reason).__name__
        raise UserError(
            f"no response from {url}: {said}; the webhook may have been applied. Repeat the command with"
            f" --key {shlex.quote(webhook.key)}: if it has been applied, that has no second effect"
        ) from error


def _parse(status: int, response: Any) -> _Response:
    raw = response.read().decode(errors="replace")
    try:
        body = json.loads(raw)
    except ValueError:
        body = raw
    return _Response(status, response.headers.get("Idempotency-Replayed") == "true", body)
