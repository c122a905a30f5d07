"""Checks before the sale: the server is ready, accepts our webhooks and buyers, and uses our database."""

import asyncio
import os
from collections.abc import Sequence
from typing import Any

import aiohttp

from flashsale.errors import UserError
from flashsale.rehearsal.identity import KEYS_VARIABLE, Identity
from flashsale.rehearsal.throwaway_product import Product
from flashsale.webhooks import SECRETS_VARIABLE, signature_headers

TIMEOUT = aiohttp.ClientTimeout(10)
ATTEMPTS = 5
"""of a request to a server that is overloaded for the moment"""

# Refused for its amount, and not kept, because it reports no captured money.
_INVALID_EVENT = b'{"idempotency_key":"rehearsal","order_id":1,"status":"failed","amount":"none"}'


async def check_server(url: str, secrets: Sequence[str]) -> None:
    """Check the server by requests that change nothing.

    :raises UserError: it does not respond, is not ready, is not flashsale, or has other secrets
    """
    status, body = await _request("GET", f"{url}/readyz")
    if status == 503:
        raise UserError(f"the server at {url} is not ready: {body.get('detail')}; see: flashsale doctor")
    if status != 200:
        raise UserError(f"the server at {url} is not flashsale: GET /readyz returned {status}")
    # The signature is verified before the event, which is not valid.
    status, _ = await _request(
        "POST",
        f"{url}/api/payments/webhook",
        data=_INVALID_EVENT,
        headers={
            "Content-Type": "application/json",
            **signature_headers(_INVALID_EVENT, "rehearsal", secrets),
        },
    )
    if status == 401:
        raise UserError(
            f"the server at {url} rejects webhooks of this command: set {SECRETS_VARIABLE} to its value"
        )


async def check_database(url: str, product: Product) -> None:
    """Check that the server returns the product that was created in the database.

    :raises UserError: it does not
    """
    status, body = await _request("GET", f"{url}/api/products/{product.product_id}")
    if status != 200 or body.get("name") != product.name:
        raise UserError(
            f"the server at {url} uses another database than this command: set FLASHSALE_DATABASE_URL"
            " to the server's database, with a role that is a member of flashsale_ops"
        )


async def check_identity(url: str, product: Product, identity: Identity) -> None:
    """Check that the server knows the buyers of this command.

    :raises UserError: it does not
    """
    for _ in range(ATTEMPTS):
        status, body = await _request(
            "GET",
            f"{url}/api/products/{product.product_id}/allowance",
            params=identity.members("preflight"),
            headers=identity.headers("preflight"),
        )
        if status != 503:
            break
        await asyncio.sleep(1)
    detail = body.get("detail")
    match status:
        case 200:
            return
        case 401:
            raise UserError(
                f"the server at {url} rejects the tokens of this command: {detail} Set {KEYS_VARIABLE} to its"
                " value"
            )
        case 422:
            raise UserError(
                f"a limit needs buyers, and the server at {url} does not let this command name them: set"
                f" {KEYS_VARIABLE} to its value, with an hs256 key, or start it with FLASHSALE_TRUST_BUYER=1"
            )
    raise UserError(f"the server at {url} does not tell what a buyer may have: {status} {detail}")


async def _request(method: str, url: str, **options: Any) -> tuple[int, dict[str, Any]]:
    try:
        async with (
            aiohttp.ClientSession(timeout=TIMEOUT) as session,
            session.request(method, url, **options) as response,
        ):
            try:
                body = await response.json(content_type=None)
            except ValueError:
                body = None
            return response.status, body if isinstance(body, dict) else {}
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
        raise UserError(f"{url} is not an http or https URL") from error
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number else str(error) or type(error).__name__
        raise UserError(f"no response from {url}: {reason}; is the server running?") from error
