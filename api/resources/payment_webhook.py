"""POST /api/payments/webhook: events of the payment provider."""

import logging
from typing import Any

from falcon.asgi import Request, Response

from api.database.client import CheckoutClient
from api.database.errors import RolledBack, Unavailable
from api.problems import Problem, problem_of_refusal, problem_of_rollback, respond_refusal
from api.schemas.requests import ParsedPaymentEvent, parse_payment_event
from api.schemas.responses import ACCEPTED, Payment, StoredPayment, encode, mark_replay
from api.schemas.webhook_body import BodyMemory, WebhookBody, check_webhook
from api.telemetry import metrics
from api.telemetry.request_id import HEADER
from api.webhook_signatures import SignatureVerifier

log = logging.getLogger("flashsale.webhooks")

RESULTS = ("applied", "no_change", "refund_due", "amount_mismatch", "stored")


class PaymentWebhook:
    """Applies signed payment events, and has those kept that are refused."""

    def __init__(self, client: CheckoutClient, signatures: SignatureVerifier) -> None:
        self._client = client
        self._signatures = signatures
        self._memory = BodyMemory()
        for result in RESULTS:
            metrics.webhooks.by_labels["success", result] += 0  # or increase() would miss the first one

    async def on_post(self, req: Request, resp: Response) -> None:
        signature = self._signatures.parse(req)
        with WebhookBody(self._memory) as body:
            data = await body.read(req)
            if signature is None:
                await self._apply(req, resp, data, None)
            else:
                self._signatures.verify(signature, data)
                await self._apply(req, resp, data, signature.webhook_id)

    async def _apply(self, req: Request, resp: Response, data: bytes, webhook_id: str | None) -> None:
        event: ParsedPaymentEvent | None = None
        try:
            check_webhook(req, data)
            event = parse_payment_event(data)
            if event.has_replacements:
                log.info(
                    "webhook stored with U+FFFD for characters refused by PostgreSQL",
                    extra={"request_id": resp.get_header(HEADER), "webhook_id": webhook_id},
                )
            row = await self._client.apply_payments.submit(
                event.idempotency_key, event.order_id, event.status, event.payload, webhook_id
            )
        except Problem as problem:
            await self._record(resp, data, webhook_id, event, problem)
            raise
        except RolledBack as error:
            await self._record(resp, data, webhook_id, event, problem_of_rollback(error))
            raise
        if row.sqlstate:
            await self._record(resp, data, webhook_id, event, problem_of_refusal(row))
            return respond_refusal(resp, row)
        mark_replay(resp, row.replayed)
        if not row.replayed:  # guard: webhooks-without-replays
            metrics.webhooks.by_labels[event.status, row.result or ""] += 1
        if row.result == "stored":
            resp.status = ACCEPTED
            resp.data = encode(StoredPayment(row.order_id, None, row.result))
        else:
            resp.data = encode(Payment(row.order_id, row.status, row.result))

    async def _record(
        self,
        resp: Response,
        data: bytes,
        webhook_id: str | None,
        event: ParsedPaymentEvent | None,
        problem: Problem,
    ) -> None:
        """Have a refused webhook kept, unless it will be delivered again (503) or anyone can have sent it.

        :raises Unavailable: it could not be kept; the response must make the provider deliver it again
        """
        if problem.type.status >= 500:
            return
        if webhook_id is None and event is None:  # guard: unsigned-not-kept
            return
        extra: dict[str, Any] = {
            "request_id": resp.get_header(HEADER),
            "webhook_id": webhook_id,
            "code": problem.type.code,
            "detail": problem.detail[:200],
        }
        if event is not None:
            extra |= {"order_id": event.order_id, "idempotency_key": event.idempotency_key}
        try:
            row = await self._client.record_rejected_webhook(
                webhook_id,
                data,
                problem.type.code,
                problem.detail,
                event and event.idempotency_key,
                event and event.order_id,
                event and event.status,
            )
        except (Unavailable, RolledBack) as error:
            log.error("a refused webhook could not be kept: %s", error, extra=extra)
            raise Unavailable(str(error)) from error
        extra |= {"result": row.result, "deliveries": row.deliveries}
        if row.result == "dropped":
            log.error("a refused webhook was not kept: rejected_limit are kept already", extra=extra)
        else:
            log.warning("a webhook was refused", extra=extra)
