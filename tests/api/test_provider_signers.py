"""Webhooks that the providers' own libraries sign, which have nothing in common with this project."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from flashsale.database.seed import APP_ROLE
from flashsale.local.cluster import Cluster
from tests.support import servers
from tests.support.http import running_server
from tests.support.provider_events import (
    ADYEN_KEY,
    STRIPE_SECRET,
    adyen_item,
    adyen_notification,
    payment_intent,
    stripe_event,
)
from tests.support.sql_calls import create_product, order_units, value

pytestmark = servers.needs("webhook-signers")

SIGN_WITH_STRIPE = """
const library = require("stripe");
const stripe = new (library.default ?? library)("sk_test_none");
const given = JSON.parse(require("fs").readFileSync(0));
process.stdout.write(stripe.webhooks.generateTestHeaderString(given));
"""
SIGN_WITH_ADYEN = """
const { hmacValidator } = require("@adyen/api-library");
const given = JSON.parse(require("fs").readFileSync(0));
process.stdout.write(new hmacValidator().calculateHmac(given.item, given.key));
"""


def node(script: str, given: dict[str, Any]) -> str:
    folder = servers.find("webhook-signers")
    return subprocess.run(
        ["node", "-e", script],
        cwd=folder,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.fixture
def client(db: psycopg.Connection, cluster: Cluster, tmp_path: Path) -> Iterator[httpx.Client]:
    url = cluster.url(APP_ROLE, db.info.dbname)
    with (
        running_server(url, tmp_path / "gunicorn.log", FLASHSALE_ADYEN_HMAC_KEYS=ADYEN_KEY) as base,
        httpx.Client(base_url=base, timeout=10) as client,
    ):
        yield client


@pytest.fixture
def order_id(db: psycopg.Connection) -> int:
    return int(order_units(db, create_product(db), 1).order_id)


def status(db: psycopg.Connection, order_id: int) -> str:
    return str(value(db, "select status from flashsale.get_order(%s)", order_id))


def test_stripes_library_signs_what_is_served(
    client: httpx.Client, db: psycopg.Connection, order_id: int
) -> None:
    body = stripe_event("payment_intent.succeeded", payment_intent(order_id))
    signature = node(SIGN_WITH_STRIPE, {"payload": body.decode(), "secret": STRIPE_SECRET})
    headers = {"Stripe-Signature": signature, "Content-Type": "application/json"}
    url = "/api/payments/webhook/stripe"
    assert client.post(url, content=body + b"\n", headers=headers).status_code == 401
    assert status(db, order_id) == "pending_payment"
    assert client.post(url, content=body, headers=headers).json() == {"received": True}
    assert status(db, order_id) == "paid"


def test_adyens_library_signs_what_is_served(
    client: httpx.Client, db: psycopg.Connection, order_id: int
) -> None:
    item = adyen_item(order_id)
    signature = node(SIGN_WITH_ADYEN, {"item": item, "key": ADYEN_KEY})
    signed = item | {"additionalData": {"hmacSignature": signature}}
    url, headers = "/api/payments/webhook/adyen", {"Content-Type": "application/json"}
    forged = adyen_notification(signed | {"pspReference": "ANOTHER"})
    assert client.post(url, content=forged, headers=headers).status_code == 401
    assert status(db, order_id) == "pending_payment"
    assert client.post(url, content=adyen_notification(signed), headers=headers).text == "[accepted]"
    assert status(db, order_id) == "paid"
