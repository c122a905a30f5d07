"""Payment events on their way into the database: they are applied, and those that are refused are kept."""

import logging
from typing import Any

from api.database.batching import LOCK_NOT_AVAILABLE
from api.database.client import CheckoutClient
from api.database.errors import Busy, RolledBack, Unavailable
from api.database.functions import ApplyPaymentsRow
from api.problems import Problem, problem_of_refusal, problem_of_rollback
from api.providers import Refund
from api.schemas.requests import ParsedPaymentEvent
from api.telemetry import metrics

log = logging.getLogger("flashsale.webhooks")

RESULTS = ("applied", "no_change", "refund_due", "amount_mismatch", "stored")


class Delivery:
    """One delivery of a webhook: what the log and the rejected webhooks say about it.

    :param request_id: of the HTTP request
    :param webhook_id: of the signed webhook; None if it is not signed
    :param body: as it came
    """

    __slots__ = ("body", "request_id", "webhook_id")

    def __init__(self, request_id: str | None, webhook_id: str | None, body: bytes) -> None:
        self.request_id = request_id
        self.webhook_id = webhook_id
        self.body = body


class PaymentEvents:
    """Applies payment events, and has those kept that are refused."""

    def __init__(self, client: CheckoutClient) -> None:
        self._client = client
        for result in RESULTS:
            metrics.webhooks.by_labels["success", result] += 0  # or increase() would miss the first one

    async def apply(self, delivery: Delivery, event: ParsedPaymentEvent) -> ApplyPaymentsRow:
        """Apply an event.

        :raises Problem, RolledBack: it was refused, and kept unless it will be delivered again
        :raises Unavailable, Busy, Overloaded, OutcomeUnknown:
        """
        if event.has_replacements:
            log.info(
                "webhook stored with U+FFFD for characters refused by PostgreSQL",
                extra={"request_id": delivery.request_id, "webhook_id": delivery.webhook_id},
            )
        try:
            row = await self._client.apply_payments.submit(
                event.idempotency_key, event.order_id, event.status, event.payload, delivery.webhook_id
            )
        except RolledBack as error:
            await self.keep(delivery, event, problem_of_rollback(error))
            raise
        if row.sqlstate:
            problem = problem_of_refusal(row)
            await self.keep(delivery, event, problem)
            raise problem
        if not row.replayed:  # guard: webhooks-without-replays
            metrics.webhooks.by_labels[event.status, row.result or ""] += 1
        return row

    async def record_refund(self, delivery: Delivery, refund: Refund) -> bool:
        """Record what has become of a refund.

        :returns: False if its payment is unknown: one that is still to come, or not one of this shop. It is
            kept, and counted when that payment comes
        :raises Problem, RolledBack: it was refused, and kept unless it will be delivered again
        :raises Unavailable, Busy:
        """
        try:
            row = await self._client.record_refund(*refund)
        except RolledBack as error:
            await self.keep(delivery, None, problem_of_rollback(error))
            raise
        if row.sqlstate == LOCK_NOT_AVAILABLE:
            raise Busy
        if row.sqlstate:
            problem = problem_of_refusal(row)
            await self.keep(delivery, None, problem)
            raise problem
        return row.refunded is not None

    async def keep(self, delivery: Delivery, event: ParsedPaymentEvent | None, problem: Problem) -> None:
        """Have a refused webhook kept, unless it will be delivered again (503) or anyone can have sent it.

        :param event: what could be read of the webhook
        :raises Unavailable: it could not be kept; the response must make the provider deliver it again
        """
        if problem.type.status >= 500:
            return
        if delivery.webhook_id is None and event is None:  # guard: unsigned-not-kept
            return
        extra: dict[str, Any] = {
            "request_id": delivery.request_id,
            "webhook_id": delivery.webhook_id,
            "code": problem.type.code,
            "detail": problem.detail[:200],
        }
        if event is not None:
            extra |= {"order_id": event.order_id, "idempotency_key": event.idempotency_key}
        try:
            row = await self._client.record_rejected_webhook(
                delivery.webhook_id,
                delivery.body,
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
