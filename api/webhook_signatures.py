"""Signatures of payment webhooks: Standard Webhooks (https://www.standardwebhooks.com)."""

import base64
import binascii
from collections.abc import Iterable

from falcon.asgi import Request
from standardwebhooks import Webhook, WebhookVerificationError

from api.problems import INVALID_SIGNATURE, Problem

HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")


class SignatureVerifier:
    """Verifies webhook signatures.

    :param secrets: `whsec_` secrets, all of them valid, so that secrets can be rotated without a gap
    :param allow_unsigned: accept a request without any of the signature headers
    """

    def __init__(self, secrets: Iterable[str], *, allow_unsigned: bool) -> None:
        self._webhooks = [Webhook(secret) for secret in secrets]
        self.allow_unsigned = allow_unsigned

    def verify(self, req: Request, data: bytes) -> None:
        """Verify the signature of a raw body. The timestamp may differ from the clock by 300 seconds.

        :raises Problem: invalid_signature
        """
        headers = {name: value for name in HEADERS if (value := req.get_header(name)) is not None}
        if not headers and self.allow_unsigned:  # guard: unsigned-webhooks
            return
        if len(headers) == len(HEADERS) and _is_canonical(headers):  # guard: canonical-signature
            for webhook in self._webhooks:
                try:
                    webhook.verify(data, headers, json_parse=False)  # guard: signature
                    return
                except (WebhookVerificationError, ValueError):
                    continue  # guard: every-secret
        raise Problem(INVALID_SIGNATURE)


def _is_canonical(headers: dict[str, str]) -> bool:
    """Whether timestamp and signatures have their canonical spelling.

    The library parses the timestamp with float() and base64 leniently: altered ones, such as 1700000000.5 or
    a signature with its unused bits set, would pass.
    """
    timestamp = headers["webhook-timestamp"]
    if not (timestamp.isascii() and timestamp.isdigit() and timestamp[0] != "0"):
        return False
    for versioned in headers["webhook-signature"].split(" "):
        version, comma, signature = versioned.partition(",")
        if not comma or (version == "v1" and not _is_canonical_base64(signature)):
            return False
    return True


def _is_canonical_base64(text: str) -> bool:
    try:
        return base64.b64encode(base64.b64decode(text, validate=True)).decode() == text
    except (binascii.Error, ValueError):
        return False
