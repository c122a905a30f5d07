"""The environment of the server: what it takes, and why it refuses to start."""

import base64
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from api.settings import (
    InvalidSettings,
    Settings,
    parse_buyer_keys,
    parse_cors_origins,
    parse_keepalive,
)
from tests.support import ROOT
from tests.support.buyer_tokens import HS256, key_pair, pem_file, private_pem, public_pem

SECRET = "whsec_" + base64.b64encode(b"x" * 24).decode()
URL = {"FLASHSALE_DATABASE_URL": "postgresql:///flashsale"}


def test_defaults_are_the_contracts() -> None:
    settings = Settings.from_environment(URL | {"FLASHSALE_WEBHOOK_SECRETS": SECRET})
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert (settings.metrics_host, settings.metrics_port) == ("127.0.0.1", None)
    assert not settings.allow_unsigned_webhooks
    assert (settings.cors_origins, settings.keepalive_seconds, settings.page) == ((), 75, True)
    assert (settings.buyer_keys, settings.trust_buyer) == ((), False)


def test_several_secrets_are_separated_by_commas_or_spaces() -> None:
    other = SECRET.replace("eHh4", "eXl5", 1)
    settings = Settings.from_environment(URL | {"FLASHSALE_WEBHOOK_SECRETS": f" {SECRET}, {other} "})
    assert settings.webhook_secrets == (SECRET, other)


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("", ()),
        (" , ", ()),
        ("*", ("*",)),
        ("https://shop.example", ("https://shop.example",)),
        ("https://a.example,http://localhost:3000 ", ("https://a.example", "http://localhost:3000")),
        (
            "http://[::1]:3000\nhttps://xn--bcher-kva.example",
            ("http://[::1]:3000", "https://xn--bcher-kva.example"),
        ),
    ],
)
def test_origins_are_separated_by_commas_or_spaces(text: str, origins: tuple[str, ...]) -> None:
    assert parse_cors_origins(text) == origins


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("https://shop.example/", "https://shop.example"),
        ("https://Shop.Example", "https://shop.example"),
        ("HTTPS://shop.example", "https://shop.example"),
        ("https://shop.example:443", "https://shop.example"),
        ("http://shop.example:80/cart?a=1#b", "http://shop.example"),
        ("http://shop.example:0443", "http://shop.example:443"),
        ("https://user@shop.example", "https://shop.example"),
        ("http://[::1", "https://shop.example"),
        ("shop.example", "https://shop.example"),
        ("null", "https://shop.example"),
        ("https://*.shop.example", "https://shop.example"),
        ("https://", "https://shop.example"),
        ("https://shop.example:port", "https://shop.example"),
        ("https://shop.example:70000", "https://shop.example"),
        ("https://b\u00fccher.example", "https://shop.example"),
        ("ftp://shop.example", "https://shop.example"),
    ],
)
def test_an_origin_that_no_browser_sends_is_refused_with_one_that_it_does(text: str, instead: str) -> None:
    with pytest.raises(InvalidSettings, match="in FLASHSALE_CORS_ORIGINS must be") as refused:
        parse_cors_origins(f"https://a.example {text}")
    assert repr(text) in str(refused.value)
    assert str(refused.value).endswith(f" {instead}")


@pytest.mark.parametrize("text", ["* https://shop.example", "https://shop.example,*", "* *"])
def test_a_star_stands_alone(text: str) -> None:
    with pytest.raises(InvalidSettings, match="FLASHSALE_CORS_ORIGINS has \\* beside"):
        parse_cors_origins(text)


@pytest.mark.parametrize("text", ["0", "-1", "7201", "75.5", "75s", "\u00b2", "9" * 5000])
def test_a_keepalive_is_a_number_of_seconds(text: str) -> None:
    with pytest.raises(InvalidSettings, match="must be a number from 1 to 7200"):
        parse_keepalive(text)
    assert (parse_keepalive("1"), parse_keepalive("7200")) == (1, 7200)


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({}, "FLASHSALE_DATABASE_URL"),
        ({"FLASHSALE_DATABASE_URL": "the usual one"}, "FLASHSALE_DATABASE_URL"),
        (URL, "FLASHSALE_WEBHOOK_SECRETS"),
        (URL | {"FLASHSALE_WEBHOOK_SECRETS": ", "}, "FLASHSALE_WEBHOOK_SECRETS"),
        (URL | {"FLASHSALE_WEBHOOK_SECRETS": SECRET.removeprefix("whsec_")}, "FLASHSALE_WEBHOOK_SECRETS"),
        (URL | {"FLASHSALE_WEBHOOK_SECRETS": "whsec_short"}, "FLASHSALE_WEBHOOK_SECRETS"),
        (URL | {"FLASHSALE_WEBHOOK_SECRETS": f"{SECRET},whsec_!!!"}, "FLASHSALE_WEBHOOK_SECRETS"),
        (URL | {"FLASHSALE_ALLOW_UNSIGNED_WEBHOOKS": "0"}, "FLASHSALE_WEBHOOK_SECRETS"),
        (URL | {"FLASHSALE_ALLOW_UNSIGNED_WEBHOOKS": "maybe"}, "FLASHSALE_ALLOW_UNSIGNED_WEBHOOKS"),
        (URL | {"FLASHSALE_WEBHOOK_SECRETS": SECRET, "FLASHSALE_PORT": "http"}, "FLASHSALE_PORT"),
        (URL | {"FLASHSALE_WEBHOOK_SECRETS": SECRET, "FLASHSALE_TRUST_BUYER": "yo"}, "FLASHSALE_TRUST_BUYER"),
        (URL | {"FLASHSALE_WEBHOOK_SECRETS": SECRET, "FLASHSALE_BUYER_KEYS": "x"}, "FLASHSALE_BUYER_KEYS"),
        (URL | {"FLASHSALE_WEBHOOK_SECRETS": SECRET, "FLASHSALE_PORT": "70000"}, "FLASHSALE_PORT"),
        (
            URL | {"FLASHSALE_WEBHOOK_SECRETS": SECRET, "FLASHSALE_METRICS_PORT": "0"},
            "FLASHSALE_METRICS_PORT",
        ),
        (
            URL | {"FLASHSALE_WEBHOOK_SECRETS": SECRET, "FLASHSALE_METRICS_PORT": "8000"},
            "FLASHSALE_METRICS_PORT equals FLASHSALE_PORT",
        ),
    ],
)
def test_invalid_settings_are_named(environment: dict[str, str], named: str) -> None:
    with pytest.raises(InvalidSettings, match=named):
        Settings.from_environment(environment)


def test_without_a_secret_the_server_refuses_to_start_in_one_sentence() -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FLASHSALE_")}
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"],
        cwd=ROOT,
        env=clean | URL | {"FLASHSALE_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("flashsale: no webhook secret is set")
    assert len(done.stderr.strip().splitlines()) == 1


# The keys of buyers' tokens.


def test_buyer_keys_are_separated_by_commas(tmp_path: Path) -> None:
    rsa, ec = (pem_file(tmp_path, key_pair(name), name) for name in ("RS256", "ES256"))
    keys = parse_buyer_keys(f"{HS256}, rs256:{rsa},es256:{ec},")
    assert [key.algorithm for key in keys] == ["HS256", "RS256", "ES256"]
    assert parse_buyer_keys("") == parse_buyer_keys(" , ") == ()


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_secret_is_base64_in_either_alphabet(encode: Callable[[bytes], bytes]) -> None:
    secret = b"\xfb\xff" * 16
    for text in (encode(secret).decode(), encode(secret).decode().rstrip("=")):
        (key,) = parse_buyer_keys(f"hs256:{text}")
        assert base64.urlsafe_b64decode(key.jwk["k"] + "=") == secret


def test_a_buyer_key_that_cannot_verify_is_refused_with_a_sentence(tmp_path: Path) -> None:
    rsa, ec = key_pair("RS256"), key_pair("ES256")
    rsa_file, ec_file = pem_file(tmp_path, rsa, "rsa.pem"), pem_file(tmp_path, ec, "ec.pem")
    private, rubbish, small = tmp_path / "private.pem", tmp_path / "rubbish.pem", tmp_path / "small.pem"
    private.write_bytes(private_pem(ec))
    rubbish.write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    small.write_bytes(public_pem(generate_private_key(65537, 1024)))
    of_31_bytes = base64.urlsafe_b64encode(b"x" * 31).decode()
    public_as_secret = base64.urlsafe_b64encode(public_pem(rsa)).decode()
    for text, said in (
        ("secret", "must be hs256: and the base64url of a secret"),
        ("HS256:" + of_31_bytes, "must be hs256: and"),
        ("none:", "must be hs256: and"),
        ("hs256:" + of_31_bytes, "at least 32 bytes"),
        ("hs256:!", "at least 32 bytes"),
        ("hs256:" + public_as_secret, "hs256 needs random bytes"),
        ("rs256:", "cannot be read from"),
        ("rs256:/nowhere.pem", "cannot be read from /nowhere.pem: No such file or directory"),
        (f"rs256:{ec_file}", "must have an RSA key of at least 2048 bits"),
        (f"rs256:{small}", "must have an RSA key of at least 2048 bits"),
        (f"es256:{rsa_file}", "must have an elliptic-curve key on P-256"),
        (f"es256:{private}", "has a private key"),
        (f"es256:{rubbish}", "has no public key in PEM"),
    ):
        with pytest.raises(InvalidSettings, match="key 2 in FLASHSALE_BUYER_KEYS") as refused:
            parse_buyer_keys(f"{HS256},{text}")
        assert said in str(refused.value)
        for hidden in (of_31_bytes, public_as_secret):
            assert hidden not in str(refused.value)
