"""How requests of a rehearsal name their buyer."""

import pytest

from api.buyer_identity import TokenVerifier
from api.settings import parse_buyer_keys
from flashsale.errors import UserError
from flashsale.rehearsal.identity import Identity, signing_key
from tests.support.buyer_tokens import HS256, SECRET, key_pair, pem_file


def test_a_token_is_what_the_server_verifies():
    identity = Identity(signing_key({"FLASHSALE_BUYER_KEYS": HS256}), "rehearsal-ab12")
    scheme, token = identity.headers("buyer-7")["Authorization"].split()
    assert scheme == "Bearer"
    assert TokenVerifier(parse_buyer_keys(HS256)).verify(token) == "rehearsal-ab12-buyer-7"
    assert identity.headers("buyer-7") == identity.headers("buyer-7") != identity.headers("buyer-8")
    assert identity.members("buyer-7") == {}


def test_without_a_key_the_buyer_is_in_the_body():
    identity = Identity(None, "rehearsal-ab12")
    assert (identity.signs, identity.headers("buyer-7")) == (False, {})
    assert identity.members("buyer-7") == {"buyer": "rehearsal-ab12-buyer-7"}


def test_the_first_key_that_can_sign_is_taken(tmp_path):
    public = f"es256:{pem_file(tmp_path, key_pair('ES256'))}"
    assert signing_key({}) is None
    assert signing_key({"FLASHSALE_BUYER_KEYS": public}) is None
    assert signing_key({"FLASHSALE_BUYER_KEYS": f"{public},{HS256}"}) == SECRET


def test_an_invalid_key_is_an_error():
    with pytest.raises(UserError, match="key 1 in FLASHSALE_BUYER_KEYS"):
        signing_key({"FLASHSALE_BUYER_KEYS": "hs256:short"})
