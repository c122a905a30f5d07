"""`flashsale webhook`: what a payment provider would send."""

import http.client
import json
import os
import sys
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import click
from rich.text import Text

from flashsale.cli.output import console, json_option, printable, to_json
from flashsale.cli.product import BIGINT, Money
from flashsale.database.connection import connect, settings
from flashsale.errors import Refusal
from flashsale.webhook_secrets import webhook_secrets
from flashsale.webhooks import signature_headers

PATH = "/api/payments/webhook"
TIMEOUT = 10
"""seconds for one answer"""


@click.group()
def webhook() -> None:
    """Play the payment provider."""


@webhook.command()
@click.option("--order", "order_id", type=BIGINT, help="The order that the payment is for.")
@click.option("--early", is_flag=True, help="For the next order, before anybody creates it.")
@click.option(
    "--status", type=click.Choice(["success", "failed", "cancelled"]), default="success", show_default=True
)
@click.option("--amount", type=Money(), help="What was paid, as in 99.00.")
@click.option("--currency", help="ISO 4217.")
@click.option("--key", help="The provider's word for this one event; a new one unless you say.")
@click.option("--times", type=click.IntRange(1, 10_000), default=1, help="Send the same webhook so often.")
@click.option("--url", help="As in http://127.0.0.1:8000; else FLASHSALE_HOST and FLASHSALE_PORT.")
@json_option
def send(
    order_id: int | None,
    early: bool,
    status: str,
    amount: Decimal | None,
    currency: str | None,
    key: str | None,
    times: int,
    url: str | None,
    as_json: bool,
) -> None:
    """Send a payment webhook and print each answer.

    Signed with the first of FLASHSALE_WEBHOOK_SECRETS, or not at all if there is none. Exits with 1 if any
    was refused.
    """
    if early == (order_id is not None):
        raise click.UsageError("give --order N, or --early for the next order there will be")
    if early:
        with connect("webhook send") as conn:
            order_id = conn.execute("select flashsale.next_order_id()").fetchone()[0]
    event = {
        "idempotency_key": key if key is not None else f"pay_{uuid.uuid4().hex}",
        "order_id": order_id,
        "status": status,
        "amount": None if amount is None else f"{amount:f}",
        "currency": currency,
    }
    body = json.dumps({name: value for name, value in event.items() if value is not None}).encode()
    target = (url or settings().base_url).rstrip("/").removesuffix(PATH) + PATH
    secrets = webhook_secrets(os.environ)
    out = console()
    if not as_json:
        signed = "signed" if secrets else "unsigned"
        out.print(Text(f"{target}  {printable(body.decode())}  {signed}", "dim"), soft_wrap=True)
    refused = False
    for number in range(1, times + 1):
        answer = _post(target, body, str(event["idempotency_key"]), secrets)
        refused |= answer.status >= 300
        if as_json:
            click.echo(to_json({"status": answer.status, "replayed": answer.replayed, "body": answer.body}))
        else:
            style = "green" if answer.status == 200 else "yellow" if answer.status == 202 else "bold red"
            line = Text(f"{number}/{times}  ").append(str(answer.status), style)
            body_text = answer.body if isinstance(answer.body, str) else to_json(answer.body)
            line.append(f"  {printable(body_text)}").append("  replayed" if answer.replayed else "", "dim")
            out.print(line, soft_wrap=True)
    sys.exit(1 if refused else 0)


@dataclass(frozen=True)
class _Answer:
    status: int
    replayed: bool
    body: Any


def _post(url: str, body: bytes, key: str, secrets: tuple[str, ...]) -> _Answer:
    headers = {"Content-Type": "application/json", **signature_headers(body, key, secrets)}
    try:
        request = urllib.request.Request(url, body, headers)  # noqa: S310
        if request.type not in ("http", "https"):
            raise Refusal(f"{url} is no http or https address")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310
                return _read(response.status, response)
        except urllib.error.HTTPError as error:
            with error:
                return _read(error.code, error)
    except ValueError as error:
        raise Refusal(f"{url} is no http or https address") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error or type(error).__name__
        raise Refusal(f"no answer from {url}: {reason}; is the server up?") from error


def _read(status: int, response: Any) -> _Answer:
    raw = response.read().decode(errors="replace")
    try:
        body = json.loads(raw)
    except ValueError:
        body = raw
    return _Answer(status, response.headers.get("Idempotency-Replayed") == "true", body)
