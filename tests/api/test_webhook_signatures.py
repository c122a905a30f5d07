"""Webhook signatures: who may say that an order is paid."""

import base64
import hmac
import random
import string
from datetime import UTC, datetime, timedelta

import falcon.testing
import pytest
from standardwebhooks import Webhook

from api.problems import Problem
from api.webhook_signatures import SignatureVerifier

OLD, NEW, OTHER = ("whsec_" + base64.b64encode(bytes([n]) * 24).decode() for n in (1, 2, 3))
BODY = b'{"idempotency_key":"pay_abc_123","order_id":99,"status":"success"}'


def signed(secret: str, *, off: float = 0, body: bytes = BODY) -> dict[str, str]:
    """The headers that a sender whose clock is `off` by so many seconds would send."""
    at = datetime.now(UTC) + timedelta(seconds=off)
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", at, body.decode()),
    }


def is_accepted(
    headers: dict[str, str], *, body: bytes = BODY, secrets: tuple[str, ...] = (OLD, NEW)
) -> bool:
    return why_refused(headers, body=body, secrets=secrets) == ""


def why_refused(headers: dict[str, str], *, body: bytes = BODY, secrets: tuple[str, ...] = (OLD, NEW)) -> str:
    """The detail of the refusal; empty if the webhook is accepted."""
    verifier = SignatureVerifier(secrets, allow_unsigned=False)
    try:
        signature = verifier.parse(falcon.testing.create_asgi_req(headers=headers))
        assert signature is not None
        verifier.verify(signature, body)
    except Problem as problem:
        assert (problem.type.status, problem.type.code) == (401, "invalid_signature")
        return problem.detail
    return ""


def test_every_secret_that_is_set_is_valid() -> None:
    assert is_accepted(signed(OLD))
    assert is_accepted(signed(NEW))
    assert not is_accepted(signed(OTHER))


def test_one_of_several_signatures_is_enough() -> None:
    headers, other = signed(NEW), signed(OTHER)
    headers["webhook-signature"] = f"v1a,xyz {other['webhook-signature']} {headers['webhook-signature']}"
    assert is_accepted(headers)


def test_another_body_is_not_what_was_signed() -> None:
    assert not is_accepted(signed(NEW), body=BODY.replace(b"99", b"98"))
    assert not is_accepted(signed(NEW), body=b"\xff")


@pytest.mark.parametrize(("off", "accepted"), [(-298, True), (298, True), (-302, False), (302, False)])
def test_a_timestamp_may_be_off_by_300_seconds(off: float, accepted: bool) -> None:
    assert is_accepted(signed(NEW, off=off)) is accepted


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_every_header_is_needed(missing: str) -> None:
    headers = signed(NEW)
    del headers[missing]
    assert not is_accepted(headers)


@pytest.mark.parametrize(
    "signature",
    [
        "",
        " ",
        ",",
        "v1",
        "v1,",
        "v1,?",
        "v1,Zm9v",
        "v1,a,b",
        "v2,a,b",
        "v2,Zm9v",
        "v1,\u00e9",
        "Zm9v",
        "v1,=",
        "v1,A" * 900,
    ],
)
def test_a_malformed_signature_is_refused(signature: str) -> None:
    assert not is_accepted(signed(NEW) | {"webhook-signature": signature})


@pytest.mark.parametrize(
    "timestamp", ["", "now", "nan", "inf", "-1", "0x1", "\u00b2", "1e9", "9" * 400, "1_700_000_000"]
)
def test_a_malformed_timestamp_is_refused(timestamp: str) -> None:
    assert not is_accepted(signed(NEW) | {"webhook-timestamp": timestamp})


def test_other_spellings_of_the_same_timestamp_and_signature_are_refused() -> None:
    headers = signed(NEW)
    at, signature = headers["webhook-timestamp"], headers["webhook-signature"]
    for spelled in (f"{at}.0", f"{at}.9", f"+{at}", f"0{at}", f"{at[:1]}_{at[1:]}", f"{at}e0"):
        assert not is_accepted(headers | {"webhook-timestamp": spelled}), spelled
    spare_bits = signature[:-2] + chr(ord(signature[-2]) + 1) + "="
    for spelled in (spare_bits, signature + "=", signature.rstrip("="), signature[:9] + "!" + signature[9:]):
        assert not is_accepted(headers | {"webhook-signature": spelled}), spelled


def test_no_altered_character_is_accepted() -> None:
    rng = random.Random(1)
    headers = signed(NEW)
    for _ in range(1000):
        name = rng.choice(list(headers))
        value = headers[name]
        place = rng.randrange(len(value))
        altered = value[:place] + rng.choice(string.ascii_letters + string.digits) + value[place + 1 :]
        if altered != value:
            assert not is_accepted(headers | {name: altered}), (name, altered)


def test_unsigned_webhooks_are_accepted_only_when_allowed_and_wrong_signatures_never() -> None:
    unsigned = falcon.testing.create_asgi_req()
    forged = falcon.testing.create_asgi_req(headers=signed(OTHER))
    assert SignatureVerifier([], allow_unsigned=True).parse(unsigned) is None
    for verifier, req in (
        (SignatureVerifier([NEW], allow_unsigned=False), unsigned),
        (SignatureVerifier([NEW], allow_unsigned=True), forged),
        (SignatureVerifier([], allow_unsigned=True), forged),
    ):
        with pytest.raises(Problem):
            signature = verifier.parse(req)
            assert signature is not None
            verifier.verify(signature, BODY)


def test_the_id_of_the_message_is_known() -> None:
    req = falcon.testing.create_asgi_req(headers=signed(NEW))
    signature = SignatureVerifier([NEW], allow_unsigned=True).parse(req)
    assert signature is not None
    assert signature.webhook_id == "msg_1"


def as_svix(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("webhook", "svix"): value for name, value in headers.items()}


def test_the_headers_may_have_the_names_of_svix_all_of_them() -> None:
    headers = signed(NEW)
    svix = as_svix(headers)
    assert is_accepted(svix)
    for name in headers:
        mixed = {**headers, **svix}
        del mixed[name]
        assert not is_accepted(mixed), name
    assert is_accepted({**svix, **headers})
    assert not is_accepted({**svix, **signed(OTHER)})


def test_a_refusal_says_why() -> None:
    headers = signed(NEW)
    assert why_refused({}).startswith("The request is not signed")
    assert why_refused({"stripe-signature": "t=1,v1=2"}).startswith("The request is not signed")
    assert why_refused(headers | {"webhook-signature": ""}) == (
        "Missing signature headers: webhook-signature."
    )
    assert why_refused(headers | {"webhook-timestamp": "now"}).startswith("The timestamp is not a number")
    assert why_refused(signed(NEW, off=-4000)).startswith("The timestamp is 400")
    assert "seconds behind the server's clock" in why_refused(signed(NEW, off=-4000))
    assert "seconds ahead of the server's clock" in why_refused(signed(NEW, off=4000))
    assert why_refused(signed(OTHER)) == "No configured secret matches the signature."
    assert why_refused(headers, secrets=()) == "No secret is configured."


def test_a_body_of_any_bytes_can_be_signed() -> None:
    """The library signs text only; a signature is one of bytes."""
    headers = signed(NEW)
    body = b'{"note":"\xff"}'
    message = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(NEW.removeprefix("whsec_"))
    headers["webhook-signature"] = "v1," + base64.b64encode(hmac.digest(key, message, "sha256")).decode()
    assert is_accepted(headers, body=body)
    assert not is_accepted(headers, body=body.replace(b"\xff", b"?"))
