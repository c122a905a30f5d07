"""POST /api/payments/webhook: events of the payment provider."""

from falcon.asgi import Request, Response

from api.payment_events import Delivery, PaymentEvents
from api.problems import Problem
from api.schemas.requests import parse_payment_event
from api.schemas.responses import ACCEPTED, Payment, StoredPayment, encode, mark_replay
from api.schemas.webhook_body import BodyMemory, WebhookBody, check_webhook
from api.telemetry.request_id import HEADER
from api.webhook_signatures import SignatureVerifier


class PaymentWebhook:
    """Applies signed payment events, and has those kept that are refused."""

    def __init__(self, events: PaymentEvents, signatures: SignatureVerifier, memory: BodyMemory) -> None:
        self._events = events
        self._signatures = signatures
        self._memory = memory

    async def on_post(self, req: Request, resp: Response) -> None:
        signature = self._signatures.parse(req)
        with WebhookBody(self._memory) as body:
            data = await body.read(req)
            webhook_id = None
            if signature is not None:
                self._signatures.verify(signature, data)
                webhook_id = signature.webhook_id
            await self._apply(req, resp, Delivery(resp.get_header(HEADER), webhook_id, data))

    async def _apply(self, req: Request, resp: Response, delivery: Delivery) -> None:
        try:
            check_webhook(req, delivery.body)
            event = parse_payment_event(delivery.body)
        except Problem as problem:
            await self._events.keep(delivery, None, problem)
            raise
        row = await self._events.apply(delivery, event)
        mark_replay(resp, row.replayed)
        if row.result == "stored":
            resp.status = ACCEPTED
            resp.data = encode(StoredPayment(row.order_id, None, row.result))
        else:
            resp.data = encode(Payment(row.order_id, row.status, row.result))
