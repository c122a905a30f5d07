"""A sender of signed webhooks, for a process of its own."""

import json
import socket
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from urllib.parse import urlsplit

from standardwebhooks import Webhook

from proof.raw_http import JSON, request

URL = b"/api/payments/webhook"
CONNECTIONS = 16


def signed(webhook: Webhook, number: int, order_id: int) -> bytes:
    """A payment's webhook, as the provider sends it."""
    at = datetime.now(UTC)
    body = json.dumps({"idempotency_key": f"flood {number}", "order_id": order_id, "status": "success"})
    headers = b"webhook-id: msg_%d\r\nwebhook-timestamp: %d\r\nwebhook-signature: %s\r\n" % (
        number,
        int(at.timestamp()),
        webhook.sign(f"msg_{number}", at, body).encode(),
    )
    return request(b"POST", URL, JSON + headers, body.encode())


def prepare(secret: str, numbers: Sequence[int], first_order_id: int) -> list[bytes]:
    """Requests for orders that do not exist, one each."""
    webhook = Webhook(secret)
    return [signed(webhook, number, first_order_id + number) for number in numbers]


def send(server: str, requests: list[bytes]) -> Counter[str]:
    """Send them on CONNECTIONS connections, each after the response to the one before. Returns how often each
    status came, with the code of a problem."""
    address = urlsplit(server)

    def one_connection(share: list[bytes]) -> Counter[str]:
        responses: Counter[str] = Counter()
        with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for data in share:
                connection.sendall(data)
                # The response is small and ends with its JSON.
                response = connection.recv(1 << 14)
                while not response.endswith(b"}"):
                    more = connection.recv(1 << 14)
                    assert more, response
                    response += more
                head, _, body = response.partition(b"\r\n\r\n")
                responses[f"{head[9:12].decode()} {json.loads(body).get('code', '')}".strip()] += 1
        return responses

    shares = [requests[n::CONNECTIONS] for n in range(CONNECTIONS)]
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return sum(pool.map(one_connection, shares), Counter())
