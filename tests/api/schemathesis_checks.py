"""Loaded by schemathesis (schemathesis.toml): its check that what the document allows is served, but for what
no schema can say."""

import schemathesis
from schemathesis.specs.openapi.checks import positive_data_acceptance


@schemathesis.hook
def before_load_schema(context, raw_schema) -> None:
    """Webhooks are unsigned: a signature that is made up does not fit its body, and all would be refused."""
    for path in raw_schema["paths"].values():
        for operation in path.values():
            operation["parameters"] = [
                parameter
                for parameter in operation["parameters"]
                if not parameter.get("name", "").startswith("webhook-")
            ]


@schemathesis.check
def what_is_valid_is_served(ctx, response, case) -> bool | None:
    if response.status_code == 422:
        problem = response.json()
        if problem["code"] == "idempotency_key_reused":
            return None  # whether a key is new is not in its spelling
        if "Expected `int`, got `float`" in problem["detail"]:
            return None  # to JSON Schema, 1.0 is an integer
        if "Expected `int | str`, got `float`" in problem["detail"]:
            return None  # the same, of a webhook's order
        if "amount is a decimal" in problem["detail"]:
            return None  # a number may have six decimals, which a schema cannot say of a double
        if "expires_at is not a time" in problem["detail"]:
            return None  # a pattern cannot say that no February has 30 days
        if "An allowance is of a product and a buyer" in problem["detail"]:
            return None  # the buyer is in the query or in a token
        if "names another buyer than its token" in problem["detail"]:
            return None
    if response.status_code == 401 and response.json()["code"] == "invalid_token":
        return None  # which tokens are valid is not in their spelling
    return positive_data_acceptance(ctx, response, case)
