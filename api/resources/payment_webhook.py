"""POST /api/payments/webhook: the payment provider's word."""

from falcon.asgi import Request, Response

from api.database.client import Checkout
from api.problems import refuse
from api.schemas import requests as bodies
from api.schemas.responses import ACCEPTED, Payment, StoredPayment, encode, mark_replay
from api.webhook_signatures import Signatures


class PaymentWebhook:
    """Believes what is signed."""

    def __init__(self, checkout: Checkout, signatures: Signatures) -> None:
        self._apply_payments = checkout.apply_payments
        self._signatures = signatures

    async def on_post(self, req: Request, resp: Response) -> None:
        data = await bodies.read(req)
        self._signatures.check(req, data)
        event, payload = bodies.payment_event(data)
        row = await self._apply_payments.ask(event.idempotency_key, event.order_id, event.status, payload)
        if row[1]:
            return refuse(resp, row)
        _, _, _, replayed, order_id, status, result = row
        mark_replay(resp, replayed)
        if result == "stored":
            resp.status = ACCEPTED
            resp.data = encode(StoredPayment(order_id, status, result))
        else:
            resp.data = encode(Payment(order_id, status, result))
