"""Forgery: only a webhook that is signed with a configured secret, and within 300 s, is accepted."""

import random
import string
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import psycopg
import pytest
import standardwebhooks

from api import webhook_signatures
from proof.campaign import Campaign
from proof.raw_http import send_webhook
from tests.api.test_webhook_signatures import BODY, NEW, OLD, OTHER, is_accepted, signed
from tests.support.sale_steps import one

SPELLINGS = string.ascii_letters + string.digits + "+/=.,- _"


# --- altered webhooks ---


def altered(rng: random.Random) -> tuple[str, dict[str, str], bytes]:
    """The kind of forgery, and the headers and body of a webhook that was signed and then altered."""
    while True:
        secret = rng.choice((OLD, NEW))
        sent = signed(secret)
        kind, headers, body = tampered(rng, secret, dict(sent))
        # White space around a value is not part of it (RFC 9110, 5.5).
        if body != BODY or {name: value.strip() for name, value in headers.items()} != sent:
            return kind, headers, body


def tampered(rng: random.Random, secret: str, headers: dict[str, str]) -> tuple[str, dict[str, str], bytes]:
    body = BODY
    identifier, at, signature = (headers[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
    kind = rng.choice(FORGERIES)
    match kind:
        case "one character":
            name = rng.choice(list(headers))
            value = list(headers[name])
            place = rng.randrange(len(value))
            value[place] = rng.choice([other for other in SPELLINGS if other != value[place]])
            headers[name] = "".join(value)
        case "a character less":
            name = rng.choice(list(headers))
            place = rng.randrange(len(headers[name]))
            headers[name] = headers[name][:place] + headers[name][place + 1 :]
        case "a character more":
            name = rng.choice(list(headers))
            place = rng.randrange(len(headers[name]) + 1)
            headers[name] = headers[name][:place] + rng.choice(SPELLINGS) + headers[name][place:]
        case "one byte of the body":
            place = rng.randrange(len(body))
            body = body[:place] + bytes([body[place] ^ 1 << rng.randrange(8)]) + body[place + 1 :]
        case "another body":
            others = [BODY.replace(b"99", b"98"), BODY.replace(b"success", b"failed")]
            body = rng.choice([*others, BODY + b" ", b" " + BODY, b""])
        case "an unknown secret":
            headers = signed(OTHER)
        case "a guessed secret":
            headers |= signed("whsec_" + "".join(rng.choices(string.ascii_letters, k=32)))
        case "another time":
            headers["webhook-timestamp"] = str(int(at) + rng.choice((-1, 1)) * rng.randrange(1, 300))
        case "another id":
            headers["webhook-id"] = f"msg_{rng.randrange(2, 10**6)}"
        case "another version":
            version = rng.choice(("v1a", "v2", "V1", "v", "v0", "", "v11"))
            headers["webhook-signature"] = version + signature[2:]
        case "random":
            digest = "".join(rng.choices(string.ascii_letters + string.digits, k=43))
            headers["webhook-signature"] = f"v1,{digest}="
        case "moved separators":
            # The signed text is id.time.body: the same text, split elsewhere.
            headers["webhook-id"], headers["webhook-timestamp"], body = rng.choice(
                (
                    (f"{identifier}.{at}", at, BODY),
                    (identifier.split("_")[0], at, b"_1." + BODY),
                    (f"{identifier}.{at[:5]}", at[5:], BODY),
                    (identifier, at[:9], at[9:].encode() + b"." + BODY),
                )
            )
        case "another spelling":
            spellings = [f"{at}.0", f"{at}.5", f"{at}e0", f"+{at}", f"-{at}", f"0{at}", f"{at[:1]}_{at[1:]}"]
            headers["webhook-timestamp"] = rng.choice(spellings)
        case "a longer signature":
            extended = [signature + "=", signature + "AAAA", signature[:9] + "!" + signature[9:]]
            others = [signature.rstrip("="), *(signature.replace("v1,", v) for v in ("v1,,", "v1, "))]
            headers["webhook-signature"] = rng.choice(extended + others)
        case "a missing header":
            del headers[rng.choice(list(headers))]
        case "the signature of another body":
            headers["webhook-signature"] = signed(secret, body=BODY.replace(b"99", b"7"))["webhook-signature"]
    return kind, headers, body


FORGERIES = (
    "one character", "a character less", "a character more", "one byte of the body", "another body",
    "an unknown secret",
    "a guessed secret", "another time", "another id", "another version", "random", "moved separators",
    "another spelling",
    "a longer signature", "a missing header", "the signature of another body",
)  # fmt: skip


def test_an_altered_webhook_is_rejected(
    serve_signed: Callable[..., object], db: psycopg.Connection, campaign: Campaign
) -> None:
    count = campaign.size(1_000, 10_000)
    over_http = campaign.size(100, 10_000)
    tried: Counter[str] = Counter()
    with serve_signed(OLD, NEW) as server:
        for number in range(count):
            kind, headers, body = altered(campaign.random)
            tried[kind] += 1
            assert not is_accepted(headers, body=body), (kind, headers, body)
            if number < over_http:
                assert send_webhook(server, headers, body) == 401, (kind, headers, body)
        assert one(db, "select count(*) from flashsale_data.payments") == 0
        assert send_webhook(server, signed(NEW), BODY) == 202, "the control: an unaltered webhook is accepted"
    campaign.record(
        f"{count:,} webhooks altered after they were signed, in {len(tried)} ways, {over_http:,} over HTTP",
        "401 each; nothing recorded",
        forged_webhooks=count,
    )


# --- the clock ---


class Clock:
    """A clock that is set, in place of the server's."""

    instant: ClassVar[datetime]

    @classmethod
    def time(cls) -> float:
        return cls.instant.timestamp()


def test_the_edge_of_300_seconds_is_exact(monkeypatch: pytest.MonkeyPatch, campaign: Campaign) -> None:
    count = campaign.size(100, 2_000)
    monkeypatch.setattr(webhook_signatures, "time", Clock)
    edge, step = timedelta(seconds=300), timedelta(microseconds=1)
    headers = signed(NEW)
    for _ in range(count):
        at = datetime.fromtimestamp(campaign.random.randrange(10**9, 4 * 10**9), UTC)
        headers["webhook-timestamp"] = str(int(at.timestamp()))
        headers["webhook-signature"] = standardwebhooks.Webhook(NEW).sign("msg_1", at, BODY.decode())
        for now, accepted in (
            (at - edge - step, False), (at - edge, True), (at, True), (at + edge, True), (at + edge + step,
                False),
        ):  # fmt: skip
            Clock.instant = now
            assert is_accepted(headers) is accepted, (at, now)
    campaign.record(
        f"{count:,} timestamps at ±300 s to the microsecond, with the clock set",
        "300.000000 accepted, 300.000001 rejected, either way",
        timestamps=count,
    )


ROTATION = [(OLD,), (NEW, OLD), (NEW,)]


def test_rotation_and_the_edge_over_http(
    serve_signed: Callable[..., object], db: psycopg.Connection, campaign: Campaign
) -> None:
    for secrets in campaign.size(ROTATION[1:2], ROTATION):
        with serve_signed(*secrets) as server:
            for secret in (OLD, NEW, OTHER):
                assert send_webhook(server, signed(secret), BODY) == (202 if secret in secrets else 401)
            both = signed(NEW)
            both["webhook-signature"] += " " + signed(OLD)["webhook-signature"]
            assert send_webhook(server, both, BODY) == 202, "one of two signatures is enough"
            # With margins, since the clock runs.
            for off, status in (
                (-290, 202),
                (299, 202),
                (-302, 401),
                (310, 401),
                (-86400, 401),
                (86400, 401),
            ):
                assert send_webhook(server, signed(secrets[-1], off=off), BODY) == status, off
    assert one(db, "select count(*) from flashsale_data.payments") == 1, "one event, delivered repeatedly"
    campaign.record(
        "rotation over HTTP: the old secret, both, the new one; timestamps at -302, -290, 299 and 310 s",
        "accepted as long as the secret is set and within 300 s, else 401",
    )
