"""POST /api/payments/webhook/{provider}: the webhooks of payment providers, as they send them."""

from collections.abc import Iterable

from falcon.asgi import Request, Response

from api.database.errors import RolledBack
from api.payment_events import Delivery, PaymentEvents
from api.problems import INVALID_REQUEST, NOT_FOUND, Problem, problem_of_rollback
from api.providers import Provider, Refund
from api.schemas.webhook_body import BodyMemory, WebhookBody, check_webhook
from api.telemetry import metrics
from api.telemetry.request_id import HEADER


class ProviderWebhook:
    """Applies what providers say about payments. What a further delivery cannot mend is confirmed, and kept.

    :param providers: that are configured; the path of another one is not found
    """

    def __init__(self, events: PaymentEvents, providers: Iterable[Provider], memory: BodyMemory) -> None:
        self._events = events
        self._providers = {provider.name: provider for provider in providers}
        self._memory = memory

    async def on_post(self, req: Request, resp: Response, provider: str) -> None:
        configured = self._providers.get(provider)
        if configured is None:
            raise Problem(NOT_FOUND, f"No secret of a payment provider {provider[:40]!r} is configured.")
        with WebhookBody(self._memory) as body:
            data = await body.read(req)
            await self._take(req, resp, configured, data)

    async def _take(self, req: Request, resp: Response, provider: Provider, data: bytes) -> None:
        statements = provider.read(req, data)
        request_id = resp.get_header(HEADER)
        for statement in statements:
            delivery = Delivery(request_id, statement.webhook_id, data)
            if statement.ignored:
                metrics.provider_events_ignored.by_labels[provider.name, statement.ignored] += 1
                continue
            try:
                check_webhook(req, data)
                if statement.said is None:
                    raise Problem(INVALID_REQUEST, statement.error)
            except Problem as problem:
                await self._events.keep(delivery, None, problem)
                continue
            try:
                if isinstance(statement.said, Refund):
                    if not await self._events.record_refund(delivery, statement.said):
                        metrics.provider_events_ignored.by_labels[provider.name, "payment"] += 1
                else:
                    await self._events.apply(delivery, statement.said)
            except Problem as problem:
                if problem.type.status >= 500:
                    raise
            except RolledBack as error:
                if problem_of_rollback(error).type.status >= 500:
                    raise
        provider.reply(resp)
