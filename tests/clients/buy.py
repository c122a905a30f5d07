"""A purchase with the client that openapi-python-client makes: python buy.py URL SECRET"""

import base64
import hmac
import json
import sys
import time
import uuid

import httpx
from flashsale_client import Client
from flashsale_client.api.holds import place_hold
from flashsale_client.api.orders import create_order, get_order
from flashsale_client.api.payments import apply_payment
from flashsale_client.api.products import get_product
from flashsale_client.models import (
    CreatedOrder,
    Hold,
    HoldAlreadyUsed,
    InsufficientStock,
    InvalidSignature,
    NewHold,
    NewOrder,
    Order,
    OrderStatus,
    Payment,
    PaymentEvent,
    PaymentEventStatus,
    Product,
)


def sign(event: PaymentEvent, secret: str) -> dict[str, str]:
    content = httpx.Request("POST", "/", json=event.to_dict()).content
    id_, timestamp = f"msg_{uuid.uuid4()}", str(int(time.time()))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.digest(key, f"{id_}.{timestamp}.".encode() + content, "sha256")
    return {
        "webhook_id": id_,
        "webhook_timestamp": timestamp,
        "webhook_signature": "v1," + base64.b64encode(digest).decode(),
    }


def buy(url: str, secret: str) -> Order:
    with Client(base_url=url) as client:
        product = get_product.sync(1, client=client)
        assert isinstance(product, Product)

        key, units = str(uuid.uuid4()), NewHold(product.id, 2)
        hold = place_hold.sync(client=client, body=units, idempotency_key=key)
        assert isinstance(hold, Hold)
        replay = place_hold.sync(client=client, body=units, idempotency_key=key)
        assert isinstance(replay, Hold) and replay.hold_id == hold.hold_id

        order = create_order.sync(client=client, body=NewOrder(hold.hold_id))
        assert isinstance(order, CreatedOrder)
        again = create_order.sync(client=client, body=NewOrder(hold.hold_id))
        assert isinstance(again, HoldAlreadyUsed)
        existing: int = again.order_id
        assert existing == order.order_id and again.order_status.value == "pending_payment"

        too_many = place_hold.sync(client=client, body=NewHold(1, 1000))
        assert isinstance(too_many, InsufficientStock)

        event = PaymentEvent(
            f"pay_{uuid.uuid4()}:success",
            order.order_id,
            PaymentEventStatus.SUCCESS,
            order.amount,
            order.currency,
        )
        event["payment_method"] = "card"  # a member that the document does not name
        payment = apply_payment.sync(client=client, body=event, **sign(event, secret))
        assert isinstance(payment, Payment) and payment.result.value == "applied"
        forged = sign(event, secret) | {"webhook_id": "msg_other"}
        assert isinstance(apply_payment.sync(client=client, body=event, **forged), InvalidSignature)

        paid = get_order.sync(order.order_id, client=client, hold_id=hold.hold_id)
        assert isinstance(paid, Order) and paid.status is OrderStatus.PAID
        return paid


if __name__ == "__main__":
    bought = buy(*sys.argv[1:])
    print(json.dumps({"order_id": bought.order_id, "qty": bought.qty, "status": bought.status.value}))
