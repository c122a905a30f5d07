"""Settings of the HTTP server, from the environment."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass

import psycopg
from psycopg.conninfo import conninfo_to_dict

MIN_SECRET_BYTES = 24
"""Standard Webhooks: 24 to 64"""


class InvalidSettings(Exception):
    """The server cannot start; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Each from the variable FLASHSALE_ and the field's name in capitals."""

    database_url: str
    host: str
    port: int
    metrics_host: str
    metrics_port: int | None
    webhook_secrets: tuple[str, ...]
    allow_unsigned_webhooks: bool

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """:raises InvalidSettings:"""
        settings = cls(
            database_url=_database_url(environment.get("FLASHSALE_DATABASE_URL", "")),
            host=environment.get("FLASHSALE_HOST") or "127.0.0.1",
            port=_port("FLASHSALE_PORT", environment.get("FLASHSALE_PORT") or "8000", minimum=0),
            metrics_host=environment.get("FLASHSALE_METRICS_HOST") or "127.0.0.1",
            metrics_port=_metrics_port(environment.get("FLASHSALE_METRICS_PORT", "")),
            webhook_secrets=parse_webhook_secrets(environment.get("FLASHSALE_WEBHOOK_SECRETS", "")),
            allow_unsigned_webhooks=_flag("FLASHSALE_ALLOW_UNSIGNED_WEBHOOKS", environment),
        )
        if not settings.webhook_secrets and not settings.allow_unsigned_webhooks:
            raise InvalidSettings(
                "no webhook secret is set: put one or more into FLASHSALE_WEBHOOK_SECRETS, "
                "or set FLASHSALE_ALLOW_UNSIGNED_WEBHOOKS=1 to accept payment events from any client"
            )
        if settings.metrics_port == settings.port:
            raise InvalidSettings(
                "FLASHSALE_METRICS_PORT equals FLASHSALE_PORT: metrics need a port of their own"
            )
        return settings


def _database_url(text: str) -> str:
    if not text:
        raise InvalidSettings("FLASHSALE_DATABASE_URL is not set: it must name the database of the checkout")
    try:
        conninfo_to_dict(text)
    except psycopg.Error:
        raise InvalidSettings("FLASHSALE_DATABASE_URL is not a libpq connection string or URI") from None
    return text


def _port(name: str, text: str, minimum: int) -> int:
    if text.isascii() and text.isdigit() and minimum <= int(text) <= 65535:
        return int(text)
    raise InvalidSettings(f"{name} is {text!r}, but must be a number from {minimum} to 65535")


def _metrics_port(text: str) -> int | None:
    return _port("FLASHSALE_METRICS_PORT", text, minimum=1) if text else None


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


def _flag(name: str, environment: Mapping[str, str]) -> bool:
    text = environment.get(name, "").strip().lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("", "0", "false", "no", "off"):
        return False
    raise InvalidSettings(f"{name} is {text!r}, but must be 1 or 0")
