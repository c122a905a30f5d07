"""Webhook secrets and signatures (Standard Webhooks, https://www.standardwebhooks.com)."""

import os
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from standardwebhooks import Webhook

from api.settings import InvalidSettings, parse_webhook_secrets
from flashsale.errors import UserError

SECRETS_VARIABLE = "FLASHSALE_WEBHOOK_SECRETS"


def webhook_secrets(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The secrets in FLASHSALE_WEBHOOK_SECRETS, the newest first; empty if the variable is not set.

    :raises UserError: a secret does not have the form that Standard Webhooks prescribes
    """
    try:
        return parse_webhook_secrets(environment.get(SECRETS_VARIABLE, ""))
    except InvalidSettings as error:
        raise UserError(str(error)) from error


def signature_headers(body: bytes, key: str, secrets: Sequence[str]) -> dict[str, str]:
    """The headers that sign `body` with the first of `secrets` and the current time; empty without secrets.

    :param key: the idempotency key of the event; repeated webhooks have the same message id
    """
    if not secrets:
        return {}
    now = datetime.now(UTC)
    # A hash, because a key may contain characters that a header cannot.
    message = f"msg_{uuid.uuid5(uuid.NAMESPACE_OID, key).hex}"
    return {
        "webhook-id": message,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secrets[0]).sign(message, now, body.decode()),
    }
