"""Signatures of payment webhooks: Standard Webhooks (https://www.standardwebhooks.com)."""

import base64
import hmac
import time
from collections.abc import Iterable
from typing import NamedTuple

from falcon.asgi import Request

from api.problems import INVALID_SIGNATURE, Problem

HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")
TOLERANCE_SECONDS = 300
"""seconds that a timestamp may differ from the clock"""

_SVIX_HEADERS = ("svix-id", "svix-timestamp", "svix-signature")
"""the same headers under the names that Svix sends"""


class Signature(NamedTuple):
    """The signature headers of a request, as they were sent."""

    webhook_id: str
    timestamp: str
    signatures: str


class SignatureVerifier:
    """Verifies webhook signatures. The detail of each problem says which check has failed.

    :param secrets: `whsec_` secrets, all of them valid, so that secrets can be rotated without a gap
    :param allow_unsigned: accept a request without any of the signature headers
    """

    def __init__(self, secrets: Iterable[str], *, allow_unsigned: bool) -> None:
        # Superfluous padding is ignored.
        self._keys = [base64.b64decode(secret.removeprefix("whsec_") + "==") for secret in secrets]
        self.allow_unsigned = allow_unsigned

    def parse(self, req: Request) -> Signature | None:
        """The signature headers of a request whose body has not been read yet.

        :returns: None for an unsigned request, if such requests are allowed
        :raises Problem: invalid_signature, if headers are missing or the timestamp is stale
        """
        for names in (HEADERS, _SVIX_HEADERS):
            values = [req.get_header(name) for name in names]
            if any(value is not None for value in values):
                break
        else:
            if self.allow_unsigned:  # guard: unsigned-webhooks
                return None
            raise Problem(
                INVALID_SIGNATURE,
                f"The request is not signed: it has no headers {', '.join(HEADERS)}.",
            )
        if missing := [name for name, value in zip(names, values, strict=True) if not value]:
            raise Problem(INVALID_SIGNATURE, f"Missing signature headers: {', '.join(missing)}.")
        signature = Signature._make(value or "" for value in values)
        check_timestamp(signature.timestamp)
        return signature

    def verify(self, signature: Signature, data: bytes) -> None:
        """Verify the signature of a raw body.

        The headers are signed as they were sent: another spelling of a timestamp or of a signature does not
        verify.

        :raises Problem: invalid_signature
        """
        message = f"{signature.webhook_id}.{signature.timestamp}.".encode("latin-1") + data
        given = signature.signatures.encode("latin-1").split(b" ")
        for key in self._keys:  # guard: every-secret
            expected = b"v1," + base64.b64encode(hmac.digest(key, message, "sha256"))
            if any(hmac.compare_digest(expected, each) for each in given):  # guard: signature
                return
        detail = "No configured secret matches the signature." if self._keys else "No secret is configured."
        raise Problem(INVALID_SIGNATURE, detail)


def check_timestamp(text: str) -> None:
    """Check that the time of a signature is at most TOLERANCE_SECONDS away, in either direction.

    :raises Problem: invalid_signature
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise Problem(INVALID_SIGNATURE, "The timestamp is not a number of seconds since 1970.")
    off = int(text) - time.time()
    if abs(off) > TOLERANCE_SECONDS:  # guard: timestamp-tolerance
        direction = "ahead of" if off > 0 else "behind"
        raise Problem(
            INVALID_SIGNATURE,
            f"The timestamp is {abs(off):.0f} seconds {direction} the server's clock;"
            f" at most {TOLERANCE_SECONDS} are allowed.",
        )
