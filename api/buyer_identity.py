"""The buyer of a request: the `sub` of a bearer token (RFC 6750), or named by a trusted caller.

A token is a JSON Web Token (RFC 7519) that the shop has signed. Each key is bound to one algorithm when it is
configured; a token's header selects among the keys of its algorithm, and nothing else (RFC 8725, 3.1).
"""

import re
import time
from collections import OrderedDict
from collections.abc import Iterable

import jwt
from falcon.asgi import Request

from api.problems import INVALID_REQUEST, INVALID_TOKEN, Problem
from api.schemas.fields import MAX_BUYER_LENGTH
from api.settings import BuyerKey

AUDIENCE = "flashsale"
MAX_TOKEN_LENGTH = 8192
"""characters; a longer token is refused before anything is computed from it"""

_CACHE_SIZE = 4096
"""verified tokens that are remembered: a buyer who retries sends the same one again"""

# PostgreSQL's text has neither of them.
_is_unstorable = re.compile("[\0\ud800-\udfff]").search


class TokenVerifier:
    """Verifies tokens. The detail of each problem says which check has failed.

    :param keys: all of them valid, so that keys can be rotated without a gap
    """

    def __init__(self, keys: Iterable[BuyerKey]) -> None:
        self._keys = [jwt.PyJWK(key.jwk, key.algorithm) for key in keys]
        self._verified: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def verify(self, token: str) -> str:
        """The buyer that a token names.

        :raises Problem: invalid_token
        """
        verified = self._verified.get(token)
        if verified is None:
            verified = self._verified[token] = self._verify(token)
            if len(self._verified) > _CACHE_SIZE:
                self._verified.popitem(last=False)
        buyer, expires_at = verified
        if time.time() >= expires_at:  # guard: remembered-token-expires
            del self._verified[token]
            raise Problem(INVALID_TOKEN, "The token has expired.")
        return buyer

    def _verify(self, token: str) -> tuple[str, float]:
        """The buyer, and the instant of expiry."""
        if len(token) > MAX_TOKEN_LENGTH:
            raise Problem(INVALID_TOKEN, f"The token has more than {MAX_TOKEN_LENGTH} characters.")
        if not self._keys:
            raise Problem(INVALID_TOKEN, "No buyer key is configured.")
        try:
            claims = self._claims(token)
        except jwt.ExpiredSignatureError:
            detail = "The token has expired."
        except jwt.ImmatureSignatureError:
            detail = "The token is not valid yet (nbf)."
        except jwt.MissingRequiredClaimError as error:
            detail = f"The token has no claim {error.claim}."
        except jwt.InvalidAudienceError:
            detail = f"The token is for another audience: aud must be {AUDIENCE}."
        except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
            detail = "No configured key matches the token's algorithm and signature."
        except (jwt.InvalidTokenError, ArithmeticError, RecursionError, TypeError, ValueError):
            detail = "The bearer token is not a valid JSON Web Token."
        else:
            buyer = claims["sub"]
            if 1 <= len(buyer) <= MAX_BUYER_LENGTH and not _is_unstorable(buyer):
                return buyer, int(claims["exp"])
            detail = f"sub must have 1 to {MAX_BUYER_LENGTH} characters, without NUL and lone surrogates."
        raise Problem(INVALID_TOKEN, detail)

    def _claims(self, token: str) -> dict[str, str]:
        """The claims of a token that a key verifies.

        :raises jwt.InvalidTokenError:
        """
        mismatch: jwt.InvalidTokenError | None = None
        for key in self._keys:  # guard: every-buyer-key
            try:
                claims: dict[str, str] = jwt.decode(
                    token,
                    key,
                    algorithms=[key.algorithm_name],
                    audience=AUDIENCE,  # guard: token-audience
                    # iat decides nothing, and the issuer's clock may be ahead of this one.
                    options={"require": ["exp", "sub"], "verify_iat": False},  # guard: token-expiry-required
                )
            except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError) as error:
                mismatch = error
            else:
                return claims
        raise mismatch or jwt.InvalidTokenError


class BuyerIdentity:
    """Identifies the buyers of requests.

    :param tokens: verifies bearer tokens
    :param trusts_callers: whether a caller may name the buyer itself
    """

    def __init__(self, tokens: TokenVerifier, *, trusts_callers: bool) -> None:
        self._tokens = tokens
        self.trusts_callers = trusts_callers

    def buyer_of(self, req: Request, named: str | None) -> str | None:
        """The buyer of a request, if it has one.

        :param named: by the caller, in the body or in the query
        :raises Problem: invalid_token; invalid_request if the caller may not name a buyer, or names another
            one than the token
        """
        authorization = req.auth
        if authorization is None and named is None:
            return None
        buyer: str | None = None
        if authorization is not None:
            scheme, _, token = authorization.partition(" ")
            # Credentials of another scheme are not for this server: a proxy may have its own.
            if scheme.lower() == "bearer":
                buyer = self._tokens.verify(token.strip())
        if named is None:
            return buyer
        if not self.trusts_callers:  # guard: buyer-not-trusted
            raise Problem(
                INVALID_REQUEST,
                "A buyer can be named only where the server trusts its callers (FLASHSALE_TRUST_BUYER);"
                " send the buyer's token as Authorization: Bearer.",
            )
        if buyer is not None and buyer != named:
            raise Problem(INVALID_REQUEST, "The request names another buyer than its token.")
        return named
