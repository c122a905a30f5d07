"""What is the HTTP server's own comes from the environment."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass

import psycopg
from psycopg.conninfo import conninfo_to_dict

SHORTEST_SECRET = 24
"""bytes (Standard Webhooks: a secret has 24 to 64)"""


class InvalidSettings(Exception):
    """The server must not start; the message says in a sentence what to change."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The server's settings, from variables named FLASHSALE_ and the field's name in capitals."""

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
            port=_port("FLASHSALE_PORT", environment.get("FLASHSALE_PORT") or "8000", least=0),
            metrics_host=environment.get("FLASHSALE_METRICS_HOST") or "127.0.0.1",
            metrics_port=_metrics_port(environment.get("FLASHSALE_METRICS_PORT", "")),
            webhook_secrets=parse_webhook_secrets(environment.get("FLASHSALE_WEBHOOK_SECRETS", "")),
            allow_unsigned_webhooks=_flag("FLASHSALE_ALLOW_UNSIGNED_WEBHOOKS", environment),
        )
        if not settings.webhook_secrets and not settings.allow_unsigned_webhooks:
            raise InvalidSettings(
                "no webhook secret is set: put one or more into FLASHSALE_WEBHOOK_SECRETS, "
                "or set FLASHSALE_ALLOW_UNSIGNED_WEBHOOKS=1 to believe anybody who says that an order is paid"
            )
        if settings.metrics_port == settings.port:
            raise InvalidSettings(
                "FLASHSALE_METRICS_PORT is the shop's own port: metrics are served on another, or not at all"
            )
        return settings


def _database_url(text: str) -> str:
    if not text:
        raise InvalidSettings("FLASHSALE_DATABASE_URL is not set: say which database the checkout lives in")
    try:
        conninfo_to_dict(text)
    except psycopg.Error:
        raise InvalidSettings("FLASHSALE_DATABASE_URL is no libpq connection string or URI") from None
    return text


def _port(name: str, text: str, least: int) -> int:
    if text.isascii() and text.isdigit() and least <= int(text) <= 65535:
        return int(text)
    raise InvalidSettings(f"{name} is {text!r}, but must be a number from {least} to 65535")


def _metrics_port(text: str) -> int | None:
    return _port("FLASHSALE_METRICS_PORT", text, least=1) if text else None


def parse_webhook_secrets(text: str) -> tuple[str, ...]:
    """The secrets in FLASHSALE_WEBHOOK_SECRETS, which commas or spaces separate; the first one signs.

    :raises InvalidSettings:
    """
    secrets = tuple(text.replace(",", " ").split())
    for number, secret in enumerate(secrets, 1):
        encoded = secret.removeprefix("whsec_").rstrip("=")
        try:
            key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not secret.startswith("whsec_") or len(key) < SHORTEST_SECRET:
            raise InvalidSettings(
                f"secret {number} in FLASHSALE_WEBHOOK_SECRETS is not whsec_ and the base64 of at least "
                f"{SHORTEST_SECRET} bytes"
            )
    return secrets


def _flag(name: str, environment: Mapping[str, str]) -> bool:
    text = environment.get(name, "").strip().lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("", "0", "false", "no", "off"):
        return False
    raise InvalidSettings(f"{name} is {text!r}, but must be 1 or 0")
