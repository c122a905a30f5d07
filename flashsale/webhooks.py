"""How a payment provider signs a webhook: Standard Webhooks (https://www.standardwebhooks.com)."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from standardwebhooks import Webhook


def signature_headers(body: bytes, key: str, secrets: Sequence[str]) -> dict[str, str]:
    """The headers that sign `body` with the first of `secrets`, as of now; none if there are no secrets.

    :param key: the provider's word for the event, which has one message id however often it is sent
    """
    if not secrets:
        return {}
    now = datetime.now(UTC)
    # Not the key itself: that may hold what no header can.
    message = f"msg_{uuid.uuid5(uuid.NAMESPACE_OID, key).hex}"
    return {
        "webhook-id": message,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secrets[0]).sign(message, now, body.decode()),
    }
