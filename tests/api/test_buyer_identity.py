"""The buyer of a request: bearer tokens, and names by trusted callers."""

import base64
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import falcon.asgi
import falcon.testing
import jwt
import pytest

from api.buyer_identity import MAX_TOKEN_LENGTH, BuyerIdentity, TokenVerifier
from api.problems import Problem
from api.settings import parse_buyer_keys
from tests.support.buyer_tokens import HS256, SECRET, claims, key_pair, pem_file, public_pem, token

OTHER = "hs256:" + base64.urlsafe_b64encode(b"another secret of thirty-two bytes").decode()


def verifier(keys: str = HS256) -> TokenVerifier:
    return TokenVerifier(parse_buyer_keys(keys))


def refusal(act: Callable[[], Any]) -> tuple[int, str, str]:
    with pytest.raises(Problem) as refused:
        act()
    return refused.value.type.status, refused.value.type.code, refused.value.detail


def refused(text: str, keys: str = HS256) -> str:
    """The detail of the problem of a token."""
    status, code, detail = refusal(lambda: verifier(keys).verify(text))
    assert (status, code) == (401, "invalid_token")
    return detail


def encoded(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_a_token_is_verified_with_a_public_key(algorithm: str, tmp_path: Path) -> None:
    key = key_pair(algorithm)
    keys = f"{algorithm.lower()}:{pem_file(tmp_path, key)}"
    assert verifier(keys).verify(token("ada", key, algorithm)) == "ada"
    assert refused(token("ada", key_pair(algorithm), algorithm), keys).startswith("No configured key")


def test_every_key_is_valid_whatever_their_order(tmp_path: Path) -> None:
    key = key_pair("ES256")
    keys = [OTHER, f"es256:{pem_file(tmp_path, key)}", HS256]
    for each in (keys, keys[::-1]):
        assert verifier(",".join(each)).verify(token("ada")) == "ada"
        assert verifier(", ".join(each)).verify(token("bob", key, "ES256")) == "bob"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"exp": int(time.time()) - 1}, "The token has expired."),
        ({"exp": 0}, "The token has expired."),
        ({"exp": None}, "The token has no claim exp."),
        ({"exp": "soon"}, "The bearer token is not a valid JSON Web Token."),
        ({"exp": float("inf")}, "The bearer token is not a valid JSON Web Token."),
        ({"nbf": int(time.time()) + 86_400}, "The token is not valid yet (nbf)."),
        ({"aud": None}, "The token has no claim aud."),
        ({"aud": "shop"}, "The token is for another audience: aud must be flashsale."),
        ({"aud": ["shop", "flashsales"]}, "The token is for another audience: aud must be flashsale."),
        ({"sub": None}, "The token has no claim sub."),
        ({"sub": 4711}, "The bearer token is not a valid JSON Web Token."),
        ({"sub": ""}, "sub must have 1 to 255 characters, without NUL and lone surrogates."),
        ({"sub": "x" * 256}, "sub must have 1 to 255 characters, without NUL and lone surrogates."),
        ({"sub": "a\0"}, "sub must have 1 to 255 characters, without NUL and lone surrogates."),
        ({"sub": "\ud800"}, "sub must have 1 to 255 characters, without NUL and lone surrogates."),
    ],
)
def test_a_token_is_refused_for_its_claims(changed: dict[str, Any], said: str) -> None:
    whole = {"sub": "ada", "aud": "flashsale", "exp": int(time.time()) + 300} | changed
    kept = {name: value for name, value in whole.items() if value is not None}
    signed = f"{encoded({'alg': 'HS256'})}.{encoded(kept)}"
    signature = hmac.digest(SECRET, signed.encode(), "sha256")
    assert refused(f"{signed}.{encoded(signature)}") == said


def test_a_buyer_has_up_to_255_characters_of_any_kind() -> None:
    for buyer in ("x", "ключ 🦶", "🦶" * 255, " "):
        assert verifier().verify(token(buyer)) == buyer


def test_other_claims_decide_nothing() -> None:
    later = int(time.time()) + 3600
    assert (
        verifier().verify(token("ada", aud=["shop", "flashsale"], iat=later, iss="https://shop.example"))
        == "ada"
    )


def test_a_key_verifies_its_own_algorithm_alone(tmp_path: Path) -> None:
    key = key_pair("RS256")
    keys = f"rs256:{pem_file(tmp_path, key)}"
    # The classic confusion: the public key, which anyone may have, as the secret of an HMAC.
    signed = f"{encoded({'alg': 'HS256', 'typ': 'JWT'})}.{encoded(claims())}"
    forged = f"{signed}.{encoded(hmac.digest(public_pem(key), signed.encode(), 'sha256'))}"
    unsigned = f"{encoded({'alg': 'none'})}.{encoded(claims())}."
    for text in (forged, unsigned, token("ada", key, "RS512"), token("ada", SECRET * 2, "HS512")):
        assert (
            refused(text, f"{keys},{HS256}")
            == "No configured key matches the token's algorithm and signature."
        )
    for algorithm in (None, "", ["HS256"], {"HS256": 1}, 256, "hs256"):
        signed = f"{encoded({'alg': algorithm})}.{encoded(claims())}"
        text = f"{signed}.{encoded(hmac.digest(SECRET, signed.encode(), 'sha256'))}"
        assert refused(text).startswith("No configured key")


def test_a_changed_token_is_refused() -> None:
    header, payload, signature = token("ada").split(".")
    assert refused(f"{header}.{encoded(claims('bob'))}.{signature}").startswith("No configured key")
    assert refused(f"{header}.{payload}.{encoded(b'x' * 32)}").startswith("No configured key")


def test_without_a_key_every_token_is_refused() -> None:
    assert refused(token(), "") == "No buyer key is configured."


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a.b.c",
        "x" * 100,
        encoded(b"[" * 3000) + ".e30.e30",
        encoded(b"\xff") + ".e30.e30",
        "é.é.é",
    ],
)
def test_what_is_no_token_is_refused(text: str) -> None:
    assert refused(text) == "The bearer token is not a valid JSON Web Token."


def test_a_long_token_is_refused_before_it_is_read() -> None:
    assert refused("x" * (MAX_TOKEN_LENGTH + 1)) == "The token has more than 8192 characters."


HOSTILE = [
    None, True, False, 0, -1, 2**63, 10**400, 1e308, float("inf"), float("nan"), "", "x", "\0", "\ud800",
    "9" * 5000, [], [None], [["x"]], {}, {"x": {}}, ["flashsale", 1],
]  # fmt: skip


@pytest.mark.parametrize("name", ["sub", "aud", "exp", "nbf", "iat", "iss", "jti"])
def test_no_claim_makes_an_unexpected_error(name: str) -> None:
    for value in HOSTILE:
        signed = f"{encoded({'alg': 'HS256'})}.{encoded(claims() | {name: value})}"
        text = f"{signed}.{encoded(hmac.digest(SECRET, signed.encode(), 'sha256'))}"
        try:
            assert verifier().verify(text) in ("ada", "x")
        except Problem as problem:
            assert problem.type.code == "invalid_token"


@pytest.mark.parametrize("name", ["alg", "typ", "kid", "crit", "b64", "jwk", "zip"])
def test_no_header_makes_an_unexpected_error(name: str) -> None:
    for value in HOSTILE:
        assert refused(f"{encoded({'alg': 'HS256', name: value})}.{encoded(claims())}.{encoded(b'x' * 32)}")


def test_a_token_that_was_verified_before_expires_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = verifier()
    text = token("ada", exp=int(time.time()) + 300)
    assert tokens.verify(text) == tokens.verify(text) == "ada"
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 301)
    assert refusal(lambda: tokens.verify(text))[2] == "The token has expired."


def test_few_verified_tokens_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.buyer_identity._CACHE_SIZE", 2)
    calls: list[str] = []
    decode = jwt.decode
    monkeypatch.setattr(
        jwt, "decode", lambda text, *args, **kw: calls.append(text) or decode(text, *args, **kw)
    )
    tokens = verifier()
    first, second, third = (token(buyer) for buyer in ("ada", "bob", "eve"))
    for text in (first, second, first, second, third, second, first):
        tokens.verify(text)
    assert calls == [first, second, third, first]


# Who names the buyer.


def request(authorization: str | None = None) -> falcon.asgi.Request:
    headers = {} if authorization is None else {"Authorization": authorization}
    return falcon.testing.create_asgi_req(headers=headers)


def identity(*, trusts_callers: bool) -> BuyerIdentity:
    return BuyerIdentity(verifier(), trusts_callers=trusts_callers)


@pytest.mark.parametrize("trusts_callers", [False, True])
def test_a_token_names_the_buyer_trust_or_not(*, trusts_callers: bool) -> None:
    buyers = identity(trusts_callers=trusts_callers)
    assert buyers.buyer_of(request(), None) is None
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert buyers.buyer_of(request(f"{scheme} {token('ada')}"), None) == "ada"
    for bad in ("Bearer", "Bearer ", "Bearer x", f"Bearer {token(exp=1)}", f"Bearer {token(aud='x')}"):
        assert refusal(lambda bad=bad: buyers.buyer_of(request(bad), None))[:2] == (401, "invalid_token")
        assert refusal(lambda bad=bad: buyers.buyer_of(request(bad), "ada"))[:2] == (401, "invalid_token")


def test_a_name_is_taken_from_trusted_callers_alone() -> None:
    assert identity(trusts_callers=True).buyer_of(request(), "ada") == "ada"
    status, code, said = refusal(lambda: identity(trusts_callers=False).buyer_of(request(), "ada"))
    assert (status, code) == (422, "invalid_request")
    assert "FLASHSALE_TRUST_BUYER" in said
    both = request(f"Bearer {token('ada')}")
    assert refusal(lambda: identity(trusts_callers=False).buyer_of(both, "ada"))[0] == 422


def test_a_token_and_a_name_must_agree() -> None:
    buyers = identity(trusts_callers=True)
    both = request(f"Bearer {token('ada')}")
    assert buyers.buyer_of(both, "ada") == "ada"
    assert refusal(lambda: buyers.buyer_of(both, "bob"))[:2] == (422, "invalid_request")


def test_credentials_of_another_scheme_are_ignored() -> None:
    assert identity(trusts_callers=False).buyer_of(request("Basic YTpi"), None) is None
    assert identity(trusts_callers=True).buyer_of(request("Basic YTpi"), "ada") == "ada"
