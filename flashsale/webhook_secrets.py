"""The secrets that sign webhooks, as the server reads them."""

from collections.abc import Mapping

from api.settings import InvalidSettings, Settings
from flashsale.errors import Refusal

VARIABLE = "FLASHSALE_WEBHOOK_SECRETS"


def webhook_secrets(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The secrets in FLASHSALE_WEBHOOK_SECRETS, the newest first; none if it is not set.

    :raises Refusal: one is not as Standard Webhooks has it
    """
    only = {VARIABLE: environment.get(VARIABLE, "")}
    sufficient = {"FLASHSALE_DATABASE_URL": "postgresql:///", "FLASHSALE_ALLOW_UNSIGNED_WEBHOOKS": "1"}
    try:
        return Settings.from_environment(only | sufficient).webhook_secrets
    except InvalidSettings as error:
        raise Refusal(str(error)) from error
