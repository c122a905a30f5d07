"""The secrets that sign webhooks, as the server reads them."""

from collections.abc import Mapping

from api.settings import InvalidSettings, parse_webhook_secrets
from flashsale.errors import Refusal

VARIABLE = "FLASHSALE_WEBHOOK_SECRETS"


def webhook_secrets(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The secrets in FLASHSALE_WEBHOOK_SECRETS, the newest first; none if it is not set.

    :raises Refusal: one is not as Standard Webhooks has it
    """
    try:
        return parse_webhook_secrets(environment.get(VARIABLE, ""))
    except InvalidSettings as error:
        raise Refusal(str(error)) from error
