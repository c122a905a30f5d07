"""Adyen's webhooks, as Adyen sends them: for tests of a shop
(https://docs.adyen.com/development-resources/webhooks)."""

import base64
import hmac
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

from api.providers.adyen import minor_units
from api.settings import InvalidSettings, parse_adyen_keys
from flashsale.errors import UserError

STATUSES = ("success", "declined")
"""the statuses of this project that an AUTHORISATION has"""


def notification(
    payment: str,
    order_id: int,
    status: str,
    amount: Decimal,
    currency: str,
    environment: Mapping[str, str] = os.environ,
) -> bytes:
    """A notification of one authorisation, signed with the first of FLASHSALE_ADYEN_HMAC_KEYS.

    :param payment: its pspReference
    :param status: one of STATUSES
    :param amount: in major units
    :raises UserError: there is no such key
    """
    try:
        keys = parse_adyen_keys(environment.get("FLASHSALE_ADYEN_HMAC_KEYS", ""))
    except InvalidSettings as error:
        raise UserError(str(error)) from error
    if not keys:
        raise UserError("set FLASHSALE_ADYEN_HMAC_KEYS to the HMAC key that the server has")
    code = currency.upper()
    minor = int(minor_units(amount, code))
    account, event, success = "TestMerchant", "AUTHORISATION", "true" if status == "success" else "false"
    # The reference of the payment that is modified is empty: an authorisation is the payment itself.
    signed = (payment, "", account, str(order_id), str(minor), code, event, success)
    digest = hmac.digest(bytes.fromhex(keys[0]), ":".join(signed).encode(), "sha256")
    item = {
        "pspReference": payment,
        "merchantAccountCode": account,
        "merchantReference": str(order_id),
        "amount": {"value": minor, "currency": code},
        "eventCode": event,
        "eventDate": datetime.now(UTC).isoformat(timespec="seconds"),
        "success": success,
        "additionalData": {"hmacSignature": base64.b64encode(digest).decode()},
    }
    body = {"live": "false", "notificationItems": [{"NotificationRequestItem": item}]}
    return json.dumps(body).encode()
