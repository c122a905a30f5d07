"""POST /api/payments/webhook: events of the payment provider."""

from falcon.asgi import Request, Response

from api.database.client import CheckoutClient
from api.problems import respond_refusal
from api.schemas.requests import parse_payment_event, read_body
from api.schemas.responses import ACCEPTED, Payment, StoredPayment, encode, mark_replay
from api.webhook_signatures import SignatureVerifier


class PaymentWebhook:
    """Applies signed payment events."""

    def __init__(self, client: CheckoutClient, signatures: SignatureVerifier) -> None:
        self._apply_payments = client.apply_payments
        self._signatures = signatures

    async def on_post(self, req: Request, resp: Response) -> None:
        data = await read_body(req)
        self._signatures.verify(req, data)
        event, payload = parse_payment_event(data)
        row = await self._apply_payments.submit(event.idempotency_key, event.order_id, event.status, payload)
        if row.sqlstate:
            return respond_refusal(resp, row)
        mark_replay(resp, row.replayed)
        if row.result == "stored":
            resp.status = ACCEPTED
            resp.data = encode(StoredPayment(row.order_id, None, row.result))
        else:
            resp.data = encode(Payment(row.order_id, row.status, row.result))
