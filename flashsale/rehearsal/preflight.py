"""Whether a server can be rehearsed on: it is up, believes the webhooks, and sells from this database."""

import os
from collections.abc import Sequence
from typing import Any

import aiohttp

from flashsale.errors import Refusal
from flashsale.rehearsal.shop import Product
from flashsale.webhook_secrets import VARIABLE
from flashsale.webhooks import signature_headers

TIMEOUT = aiohttp.ClientTimeout(10)


async def check_server(url: str, secrets: Sequence[str]) -> None:
    """Look at the server without leaving a trace.

    :raises Refusal: it is away, not ready, not ours, or has other secrets
    """
    status, body = await _ask("GET", f"{url}/readyz")
    if status == 503:
        raise Refusal(f"the server at {url} is not ready: {body.get('detail')}; see: flashsale doctor")
    if status != 200:
        raise Refusal(f"what answers at {url} is not flashsale: GET /readyz is {status}")
    # The signature is looked at before the body, which says nothing.
    status, _ = await _ask(
        "POST",
        f"{url}/api/payments/webhook",
        data=b"{}",
        headers={"Content-Type": "application/json", **signature_headers(b"{}", "", secrets)},
    )
    if status == 401:
        raise Refusal(
            f"the server at {url} does not believe these webhooks: set {VARIABLE} to what the server has"
        )


async def check_database(url: str, product: Product) -> None:
    """See whether the server has the product that was just put into the database.

    :raises Refusal:
    """
    status, body = await _ask("GET", f"{url}/api/products/{product.product_id}")
    if status != 200 or body.get("name") != product.name:
        raise Refusal(
            f"the server at {url} works on another database than this command: set FLASHSALE_DATABASE_URL"
            " to the server's, with a role that has flashsale_ops"
        )


async def _ask(method: str, url: str, **options: Any) -> tuple[int, dict[str, Any]]:
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
        raise Refusal(f"{url} is no http or https address") from error
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number else str(error) or type(error).__name__
        raise Refusal(f"no answer from {url}: {reason}; is the server up?") from error
