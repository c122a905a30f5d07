"""How requests name their buyer: by a token that this command signs, or in the body.

A shop's server verifies tokens with FLASHSALE_BUYER_KEYS. This command can sign them if one of the keys is an
hs256 key; the others are public keys. Otherwise the server has to trust its callers (FLASHSALE_TRUST_BUYER),
as the local start makes it do.
"""

import base64
import os
import time
from collections.abc import Mapping

import jwt

from api.buyer_identity import AUDIENCE
from api.settings import InvalidSettings, parse_buyer_keys
from flashsale.errors import UserError

KEYS_VARIABLE = "FLASHSALE_BUYER_KEYS"
LIFETIME_SECONDS = 3600


class Identity:
    """Names buyers in requests.

    :param key: signs the tokens, HS256; without one the buyer is named in the body
    :param prefix: of every buyer's name
    """

    def __init__(self, key: bytes | None, prefix: str) -> None:
        self._key = key
        self._prefix = prefix
        self._tokens: dict[str, str] = {}

    @property
    def signs(self) -> bool:
        """Whether buyers are named by tokens."""
        return self._key is not None

    def headers(self, account: str) -> dict[str, str]:
        """The headers of a request by this buyer."""
        if self._key is None:
            return {}
        if account not in self._tokens:
            claims = {
                "sub": self._name(account), "aud": AUDIENCE, "exp": int(time.time()) + LIFETIME_SECONDS,
            }  # fmt: skip
            self._tokens[account] = jwt.encode(claims, self._key, "HS256")
        return {"Authorization": f"Bearer {self._tokens[account]}"}

    def members(self, account: str) -> dict[str, str]:
        """The members of the body, or of the query, of a request by this buyer."""
        return {} if self._key else {"buyer": self._name(account)}

    def _name(self, account: str) -> str:
        return f"{self._prefix}-{account}"


def signing_key(environment: Mapping[str, str] = os.environ) -> bytes | None:
    """The first hs256 key in FLASHSALE_BUYER_KEYS; None if there is none.

    :raises UserError: the variable is not valid
    """
    try:
        keys = parse_buyer_keys(environment.get(KEYS_VARIABLE, ""))
    except InvalidSettings as error:
        raise UserError(str(error)) from error
    for key in keys:
        if key.algorithm == "HS256":
            encoded = str(key.jwk["k"])
            return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    return None
