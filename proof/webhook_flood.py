"""A flood of signed webhooks, sent by a process of its own: it takes nothing from others but the machine."""

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
    """The request that tells of a payment, as the provider sends it."""
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
    """Send them as fast as they are answered, on a few connections; how often each was answered with what.

    What is counted is the status, and the code of a problem.
    """
    address = urlsplit(server)

    def one_connection(share: list[bytes]) -> Counter[str]:
        answers: Counter[str] = Counter()
        with socket.create_connection((address.hostname, address.port), timeout=30) as wire:
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for data in share:
                wire.sendall(data)
                # Such an answer is small, and ends with its JSON.
                answer = wire.recv(1 << 14)
                while not answer.endswith(b"}"):
                    more = wire.recv(1 << 14)
                    assert more, answer
                    answer += more
                head, _, body = answer.partition(b"\r\n\r\n")
                answers[f"{head[9:12].decode()} {json.loads(body).get('code', '')}".strip()] += 1
        return answers

    shares = [requests[n::CONNECTIONS] for n in range(CONNECTIONS)]
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return sum(pool.map(one_connection, shares), Counter())
