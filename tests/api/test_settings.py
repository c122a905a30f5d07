"""The environment of the server: what it takes, and why it refuses to start."""

import base64
import os
import subprocess
import sys

import pytest

from api.settings import InvalidSettings, Settings
from tests.support import ROOT

SECRET = "whsec_" + base64.b64encode(b"x" * 24).decode()
URL = {"FLASHSALE_DATABASE_URL": "postgresql:///flashsale"}


def test_defaults_are_the_contracts() -> None:
    settings = Settings.from_environment(URL | {"FLASHSALE_WEBHOOK_SECRETS": SECRET})
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert (settings.metrics_host, settings.metrics_port) == ("127.0.0.1", None)
    assert not settings.allow_unsigned_webhooks


def test_several_secrets_are_separated_by_commas_or_spaces() -> None:
    other = SECRET.replace("eHh4", "eXl5", 1)
    settings = Settings.from_environment(URL | {"FLASHSALE_WEBHOOK_SECRETS": f" {SECRET}, {other} "})
    assert settings.webhook_secrets == (SECRET, other)


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
