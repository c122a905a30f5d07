"""Settings of the HTTP server, from the environment."""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

MIN_SECRET_BYTES = 24
"""Standard Webhooks: 24 to 64"""
MIN_HMAC_KEY_BYTES = 32
"""RFC 7518, 3.2: as many as HS256 computes"""
MIN_RSA_KEY_BITS = 2048
"""RFC 7518, 3.3"""

KEEPALIVE_SECONDS = 75
"""longer than the idle timeout of common load balancers"""
MAX_KEEPALIVE_SECONDS = 7200

_DEFAULT_PORTS = {"http": 80, "https": 443}
_is_stripe_secret = re.compile(r"whsec_[A-Za-z0-9]{24,}").fullmatch
_is_adyen_key = re.compile(r"[0-9A-Fa-f]{64}").fullmatch
_is_host = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]*:[0-9a-f:.]*").fullmatch


class InvalidSettings(Exception):
    """The server cannot start; the message says what to change."""


class BuyerKey(NamedTuple):
    """A key that verifies the tokens of buyers.

    :param algorithm: HS256, RS256 or ES256, the only one that the key verifies
    :param jwk: the key as a JSON Web Key (RFC 7517)
    """

    algorithm: str
    jwk: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Settings:
    """Each from the variable FLASHSALE_ and the field's name in capitals."""

    database_url: str
    database_urls: tuple[str, ...]
    """of several databases; empty unless there are"""
    host: str
    port: int
    metrics_host: str
    metrics_port: int | None
    cors_origins: tuple[str, ...]
    keepalive_seconds: int
    page: bool
    webhook_secrets: tuple[str, ...]
    stripe_secrets: tuple[str, ...]
    adyen_hmac_keys: tuple[str, ...]
    allow_unsigned_webhooks: bool
    buyer_keys: tuple[BuyerKey, ...]
    trust_buyer: bool

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """:raises InvalidSettings:"""
        settings = cls(
            database_url=_database_url(environment),
            database_urls=parse_database_urls(environment),
            host=environment.get("FLASHSALE_HOST") or "127.0.0.1",
            port=_port("FLASHSALE_PORT", environment.get("FLASHSALE_PORT") or "8000", minimum=0),
            metrics_host=environment.get("FLASHSALE_METRICS_HOST") or "127.0.0.1",
            metrics_port=_metrics_port(environment.get("FLASHSALE_METRICS_PORT", "")),
            cors_origins=parse_cors_origins(environment.get("FLASHSALE_CORS_ORIGINS", "")),
            keepalive_seconds=parse_keepalive(environment.get("FLASHSALE_KEEPALIVE_SECONDS", "")),
            page=parse_flag("FLASHSALE_PAGE", environment, default=True),
            webhook_secrets=parse_webhook_secrets(environment.get("FLASHSALE_WEBHOOK_SECRETS", "")),
            stripe_secrets=parse_stripe_secrets(environment.get("FLASHSALE_STRIPE_SECRETS", "")),
            adyen_hmac_keys=parse_adyen_keys(environment.get("FLASHSALE_ADYEN_HMAC_KEYS", "")),
            allow_unsigned_webhooks=parse_flag("FLASHSALE_ALLOW_UNSIGNED_WEBHOOKS", environment),
            buyer_keys=parse_buyer_keys(environment.get("FLASHSALE_BUYER_KEYS", "")),
            trust_buyer=parse_flag("FLASHSALE_TRUST_BUYER", environment),
        )
        secrets = settings.webhook_secrets + settings.stripe_secrets + settings.adyen_hmac_keys
        if not secrets and not settings.allow_unsigned_webhooks:
            raise InvalidSettings(
                "no webhook secret is set: put one or more into FLASHSALE_WEBHOOK_SECRETS, "
                "FLASHSALE_STRIPE_SECRETS or FLASHSALE_ADYEN_HMAC_KEYS, or set "
                "FLASHSALE_ALLOW_UNSIGNED_WEBHOOKS=1 to accept payment events from any client"
            )
        if settings.metrics_port == settings.port:
            raise InvalidSettings(
                "FLASHSALE_METRICS_PORT equals FLASHSALE_PORT: metrics need a port of their own"
            )
        return settings


def _database_url(environment: Mapping[str, str]) -> str:
    text = environment.get("FLASHSALE_DATABASE_URL", "") or environment.get("FLASHSALE_DATABASE_URLS", "")
    if urls := parse_database_urls(environment):
        return urls[0]
    if not text:
        raise InvalidSettings("FLASHSALE_DATABASE_URL is not set: it must name the database of the checkout")
    try:
        conninfo_to_dict(text)
    except psycopg.Error:
        raise InvalidSettings("FLASHSALE_DATABASE_URL is not a libpq connection string or URI") from None
    return text


def parse_database_urls(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The URIs in FLASHSALE_DATABASE_URLS, separated by spaces; empty unless there are several.

    :raises InvalidSettings:
    """
    urls = tuple(environment.get("FLASHSALE_DATABASE_URLS", "").split())
    if len(urls) > 1 and environment.get("FLASHSALE_DATABASE_URL"):
        raise InvalidSettings("set either FLASHSALE_DATABASE_URL or FLASHSALE_DATABASE_URLS, not both")
    for number, url in enumerate(urls, 1):
        # Without psycopg's message, which quotes the password.
        try:
            is_uri = url.startswith(("postgresql://", "postgres://")) and bool(conninfo_to_dict(url) or True)
        except psycopg.Error:
            is_uri = False
        if not is_uri:
            raise InvalidSettings(
                f"database {number} in FLASHSALE_DATABASE_URLS is not a libpq connection URI, such as "
                "postgresql://host/name; a space separates two of them"
            )
        if url in urls[: number - 1]:
            raise InvalidSettings(f"database {number} in FLASHSALE_DATABASE_URLS is named twice")
    return urls if len(urls) > 1 else ()


def _number(name: str, text: str, minimum: int, maximum: int) -> int:
    # No number with more digits is in range; int() refuses those with thousands.
    if text.isascii() and text.isdigit() and len(text) < 10 and minimum <= int(text) <= maximum:
        return int(text)
    raise InvalidSettings(f"{name} is {text!r}, but must be a number from {minimum} to {maximum}")


def _port(name: str, text: str, minimum: int) -> int:
    return _number(name, text, minimum, 65535)


def _metrics_port(text: str) -> int | None:
    return _port("FLASHSALE_METRICS_PORT", text, minimum=1) if text else None


def parse_keepalive(text: str) -> int:
    """The seconds in FLASHSALE_KEEPALIVE_SECONDS.

    :raises InvalidSettings:
    """
    return _number("FLASHSALE_KEEPALIVE_SECONDS", text or str(KEEPALIVE_SECONDS), 1, MAX_KEEPALIVE_SECONDS)


def parse_cors_origins(text: str) -> tuple[str, ...]:
    """The origins in FLASHSALE_CORS_ORIGINS, separated by commas or spaces; `("*",)`: all.

    :raises InvalidSettings:
    """
    origins = tuple(text.replace(",", " ").split())
    if origins == ("*",):
        return origins
    if "*" in origins:
        raise InvalidSettings("FLASHSALE_CORS_ORIGINS has * beside other origins, but * means all of them")
    for origin in origins:
        # A browser's Origin is compared as text: another spelling would never match.
        if (serialized := _serialize_origin(origin)) != origin:  # guard: origin-as-sent
            raise InvalidSettings(
                f"{origin!r} in FLASHSALE_CORS_ORIGINS must be an origin as browsers send it, "
                f"such as {serialized or 'https://shop.example'}"
            )
    return origins


def _serialize_origin(text: str) -> str | None:
    """The origin of a URL, as browsers send it (RFC 6454, 6.2); None if it has none with http or https."""
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        return None
    host = url.hostname or ""
    if url.scheme not in _DEFAULT_PORTS or not _is_host(host):
        return None
    host = f"[{host}]" if ":" in host else host
    return f"{url.scheme}://{host}" + ("" if port in (None, _DEFAULT_PORTS[url.scheme]) else f":{port}")


def parse_webhook_secrets(text: str) -> tuple[str, ...]:
    """The secrets in FLASHSALE_WEBHOOK_SECRETS, separated by commas or spaces; the first one signs.

    :raises InvalidSettings:
    """
    secrets = tuple(text.replace(",", " ").split())
    for number, secret in enumerate(secrets, 1):
        encoded = secret.removeprefix("whsec_").rstrip("=")
        try:
            key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not secret.startswith("whsec_") or len(key) < MIN_SECRET_BYTES:
            raise InvalidSettings(
                f"secret {number} in FLASHSALE_WEBHOOK_SECRETS must be whsec_ and the base64 of at least "
                f"{MIN_SECRET_BYTES} bytes"
            )
    return secrets


def parse_stripe_secrets(text: str) -> tuple[str, ...]:
    """The secrets in FLASHSALE_STRIPE_SECRETS, separated by commas or spaces.

    :raises InvalidSettings:
    """
    secrets = tuple(text.replace(",", " ").split())
    for number, secret in enumerate(secrets, 1):
        if not _is_stripe_secret(secret):
            raise InvalidSettings(
                f"secret {number} in FLASHSALE_STRIPE_SECRETS must be the signing secret of a webhook "
                "endpoint: whsec_, letters and digits"
            )
    return secrets


def parse_adyen_keys(text: str) -> tuple[str, ...]:
    """The keys in FLASHSALE_ADYEN_HMAC_KEYS, separated by commas or spaces.

    :raises InvalidSettings:
    """
    keys = tuple(text.replace(",", " ").split())
    for number, key in enumerate(keys, 1):
        if not _is_adyen_key(key):
            raise InvalidSettings(
                f"key {number} in FLASHSALE_ADYEN_HMAC_KEYS must be the HMAC key of a webhook: "
                "64 hexadecimal digits"
            )
    return keys


def parse_buyer_keys(text: str) -> tuple[BuyerKey, ...]:
    """The keys in FLASHSALE_BUYER_KEYS, separated by commas.

    :raises InvalidSettings:
    """
    keys = filter(None, map(str.strip, text.split(",")))
    return tuple(
        _buyer_key(f"key {number} in FLASHSALE_BUYER_KEYS", key) for number, key in enumerate(keys, 1)
    )


def _buyer_key(name: str, text: str) -> BuyerKey:
    algorithm, _, value = text.partition(":")
    if algorithm == "hs256":
        return BuyerKey("HS256", {"kty": "oct", "k": _hmac_key(name, value)})
    if algorithm in ("rs256", "es256"):
        return BuyerKey(algorithm.upper(), _public_key(name, algorithm, Path(value)))
    raise InvalidSettings(
        f"{name} must be hs256: and the base64url of a secret, or rs256: or es256: and the path of a public "
        "key in PEM"
    )


def _hmac_key(name: str, text: str) -> str:
    encoded = text.rstrip("=")
    try:
        secret = base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) < MIN_HMAC_KEY_BYTES:
        raise InvalidSettings(
            f"{name} must be hs256: and the base64url of at least {MIN_HMAC_KEY_BYTES} bytes"
        )
    # Here, because most servers and commands have no such key, and it takes long to import.
    from jwt import InvalidKeyError
    from jwt.algorithms import HMACAlgorithm

    try:
        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
    except InvalidKeyError:  # a public key, with which anyone who has it could sign
        raise InvalidSettings(f"{name} is a key of another algorithm, but hs256 needs random bytes") from None
    return base64.urlsafe_b64encode(secret).decode().rstrip("=")


def _public_key(name: str, algorithm: str, path: Path) -> dict[str, Any]:
    """The key in a file of PEM, as a JSON Web Key."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from jwt.algorithms import ECAlgorithm, RSAAlgorithm

    try:
        pem = path.read_bytes()
    except OSError as error:
        raise InvalidSettings(f"{name} cannot be read from {path}: {error.strerror}") from None
    if b"PRIVATE KEY-----" in pem:
        raise InvalidSettings(f"{name}: {path} has a private key, but the server needs the public one alone")
    try:
        key = load_pem_public_key(pem)
    except Exception:  # cryptography raises several, for what it cannot read and what it does not support
        raise InvalidSettings(f"{name}: {path} has no public key in PEM (BEGIN PUBLIC KEY)") from None
    if algorithm == "rs256":
        if not isinstance(key, rsa.RSAPublicKey) or key.key_size < MIN_RSA_KEY_BITS:
            raise InvalidSettings(
                f"{name}: {path} must have an RSA key of at least {MIN_RSA_KEY_BITS} bits for rs256"
            )
        return RSAAlgorithm.to_jwk(key, as_dict=True)
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise InvalidSettings(f"{name}: {path} must have an elliptic-curve key on P-256 for es256")
    return ECAlgorithm.to_jwk(key, as_dict=True)


def parse_flag(name: str, environment: Mapping[str, str], *, default: bool = False) -> bool:
    """A variable that is 1 or 0.

    :raises InvalidSettings:
    """
    text = environment.get(name, "").strip().lower()
    if not text:
        return default
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off"):
        return False
    raise InvalidSettings(f"{name} is {text!r}, but must be 1 or 0")
