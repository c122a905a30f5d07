"""POST /api/payments/webhook/adyen."""

from typing import Any

import httpx
import psycopg
import pytest

from tests.api.providers.webhooks import (
    ACCEPTED,
    ADYEN,
    JSON,
    adyen,
    order_status,
    payments,
    refunds,
    waiting,
)
from tests.support.provider_events import adyen_item, sign_adyen
from tests.support.sql_calls import audit, create_product, order_units, rows


def test_adyens_refunds_cancellations_and_chargebacks(
    client: httpx.Client, db: psycopg.Connection, order_id: int
) -> None:
    def item(code: str, psp: str, value: int = 9900, **more: Any) -> dict[str, Any]:
        about = {"originalReference": "QFQTPCQ8HXSKGK82", "amount": {"currency": "USD", "value": value}}
        return sign_adyen(adyen_item(order_id, eventCode=code, pspReference=psp, **about | more))

    assert adyen(client, sign_adyen(adyen_item(order_id))) == ACCEPTED
    assert adyen(client, item("REFUND", "R1", 4000)) == ACCEPTED
    assert adyen(client, item("REFUND_FAILED", "R1", 4000)) == ACCEPTED
    assert adyen(client, item("REFUND", "R2", 9900, success="false")) == ACCEPTED
    assert adyen(client, item("CHARGEBACK", "C1", 5000)) == ACCEPTED
    assert adyen(client, item("CHARGEBACK_REVERSED", "C1", 5000)) == ACCEPTED
    assert adyen(client, item("CANCELLATION", "V1", 0)) == ACCEPTED
    assert adyen(client, item("REFUND", "R3", 100, originalReference="ANOTHER")) == ACCEPTED
    payment = "adyen:QFQTPCQ8HXSKGK82:success"
    assert refunds(db) == [
        ("R1", payment, "40.00", "refund", "failed"),
        ("R2", payment, "99.00", "refund", "failed"),
        ("C1", payment, "50.00", "chargeback", "failed"),
        ("V1", payment, "99.00", "void", "done"),
    ]
    assert waiting(db) == [("R3", "adyen:ANOTHER:success", "1.00", "refund", "done")]
    assert rows(db, "select * from flashsale.rejected_webhooks") == []
    assert audit(db) == []


def test_adyens_cancellation_that_overtakes_its_authorisation(
    client: httpx.Client, db: psycopg.Connection, order_id: int
) -> None:
    cancellation = adyen_item(
        order_id, eventCode="CANCELLATION", pspReference="V1", originalReference="QFQTPCQ8HXSKGK82"
    )
    assert adyen(client, sign_adyen(cancellation)) == ACCEPTED
    assert adyen(client, sign_adyen(adyen_item(order_id))) == ACCEPTED
    assert refunds(db) == [("V1", "adyen:QFQTPCQ8HXSKGK82:success", "99.00", "void", "done")]
    assert audit(db) == []


def test_an_authorisation_and_its_capture_are_one_payment(
    client: httpx.Client, db: psycopg.Connection, order_id: int
) -> None:
    refused = sign_adyen(adyen_item(order_id, pspReference="REFUSED1", success="false", reason="Refused"))
    authorised = sign_adyen(adyen_item(order_id))
    captured = sign_adyen(
        adyen_item(
            order_id, eventCode="CAPTURE", pspReference="CAPTURE1", originalReference="QFQTPCQ8HXSKGK82"
        )
    )
    report = sign_adyen(adyen_item(order_id, eventCode="REPORT_AVAILABLE", pspReference="report.csv"))
    for items in ([refused], [authorised, captured], [authorised], [report]):
        assert adyen(client, *items) == ACCEPTED
    assert payments(db) == [
        ("adyen:REFUSED1:declined", order_id, "declined", "no_change", None, None),
        ("adyen:QFQTPCQ8HXSKGK82:success", order_id, "success", "applied", "99.00", "USD"),
    ]
    assert rows(db, "select * from flashsale.refunds_due") == []


def test_a_batch_with_a_forged_item_has_no_effect(
    client: httpx.Client, db: psycopg.Connection, order_id: int
) -> None:
    good = sign_adyen(adyen_item(order_id))
    forged = {
        "unsigned": adyen_item(order_id, pspReference="P2"),
        "another key": sign_adyen(adyen_item(order_id, pspReference="P2"), "0" * 64),
        "another order": sign_adyen(adyen_item(order_id)) | {"merchantReference": str(order_id + 1)},
        "another success": sign_adyen(adyen_item(order_id, success="false")) | {"success": "true"},
        "not a text": good | {"additionalData": {"hmacSignature": 1}},
        "no object": [],
    }
    for name, item in forged.items():
        assert adyen(client, good, item) == (401, "invalid_signature"), name  # type: ignore[arg-type]
    for body in (b"", b"{}", b'{"notificationItems":[]}', b"\xff", b"[" * 10_000):
        assert client.post(ADYEN, content=body, headers=JSON).status_code == 401
    assert payments(db) == []
    assert rows(db, "select * from flashsale.rejected_webhooks") == []


@pytest.mark.parametrize(
    "more", [{"amount": {}}, {"amount": {"currency": "", "value": -1}}, {"pspReference": "a report 1.csv"}]
)
def test_items_of_other_kinds_are_ignored_whatever_they_hold(
    client: httpx.Client, db: psycopg.Connection, more: dict[str, Any]
) -> None:
    item = adyen_item("", eventCode="REPORT_AVAILABLE", **more)
    assert adyen(client, sign_adyen(item)) == ACCEPTED
    assert rows(db, "select * from flashsale.rejected_webhooks") == []


def test_an_item_that_cannot_be_read_is_kept_and_the_others_apply(
    client: httpx.Client, db: psycopg.Connection, order_id: int
) -> None:
    broken = sign_adyen(adyen_item(order_id, pspReference="P2", amount={"currency": "USD", "value": "9900"}))
    assert adyen(client, broken, sign_adyen(adyen_item(order_id))) == ACCEPTED
    assert order_status(db, order_id) == "paid"
    kept = rows(db, "select webhook_id, code from flashsale.rejected_webhooks")
    assert [tuple(row) for row in kept] == [("adyen:P2:AUTHORISATION:true", "invalid_request")]


@pytest.mark.parametrize(
    ("currency", "minor", "major"),
    [("JPY", 9900, "9900"), ("ISK", 990000, "9900.00"), ("CLP", 990000, "9900.00"), ("KWD", 9900, "9.900")],
)
def test_adyens_minor_units(
    client: httpx.Client, db: psycopg.Connection, currency: str, minor: int, major: str
) -> None:
    order = order_units(db, create_product(db, price=major, currency=currency), 1).order_id
    item = sign_adyen(adyen_item(order, amount={"currency": currency, "value": minor}))
    assert adyen(client, item) == ACCEPTED
    assert payments(db)[0][2:] == ("success", "applied", major, currency)
