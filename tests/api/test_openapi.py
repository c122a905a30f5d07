"""/openapi.json: every route and problem is in it, and it is right by the rules of OpenAPI and JSON Schema.

That it is true is shown by test_openapi_examples.py and test_schemathesis.py.
"""

from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from api import problems
from api.app import App, create_app
from api.database.client import CheckoutClient
from api.openapi.components import problem_types
from api.openapi.document import document, routes
from api.openapi.operations import OPERATIONS
from api.problems import ProblemType
from api.resources.health import Liveness
from api.webhook_signatures import HEADERS, SignatureVerifier

Json = dict[str, Any]


def make_app() -> App:
    return create_app(
        CheckoutClient("postgresql:///nowhere"), SignatureVerifier([], allow_unsigned=True), lambda: {}
    )


@pytest.fixture(scope="module")
def described() -> Json:
    return document(make_app(), allow_unsigned=True)


def operations(described: Json) -> Iterator[Json]:
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield operation | {"path": path, "method": method.upper()}


def test_every_route_is_described_and_nothing_else() -> None:
    app = make_app()
    assert set(routes(app)) == OPERATIONS.keys()
    app.add_route("/api/carts", Liveness())
    with pytest.raises(LookupError, match="/api/carts"):
        document(app, allow_unsigned=True)


def test_every_problem_of_the_http_interface_is_described() -> None:
    known = {value for value in vars(problems).values() if isinstance(value, ProblemType)} | set(
        problems.REFUSALS.values()
    )
    assert known - set(problem_types()) == {
        problems.STOCK_IN_USE,
        problems.WRONG_SHARD,
        problems.NOT_PRIMARY,
        problems.PAYMENT_NOT_FOUND,
        problems.REFUND_TOO_LARGE,
        problems.PREVIEW_CHANGED,
    }
    assert all(type_.detail.endswith(".") for type_ in known)


@pytest.mark.parametrize("allow_unsigned", [True, False])
def test_the_document_is_openapi_3_1(*, allow_unsigned: bool) -> None:
    described = document(make_app(), allow_unsigned=allow_unsigned)
    OpenAPIV31SpecValidator(described).validate()
    assert described["openapi"].startswith("3.1")
    parameters = described["paths"]["/api/payments/webhook"]["post"]["parameters"]
    signature = {p["name"]: p["required"] for p in parameters if p.get("name", "").startswith("webhook-")}
    assert signature == dict.fromkeys(HEADERS, not allow_unsigned)


def resolved(described: Json, item: Json) -> Json:
    while "$ref" in item:
        _, section, kind, name = item["$ref"].split("/")
        item = described[section][kind][name]
    return item


def fits(described: Json, schema: Json, value: Any) -> None:
    """Fail unless the value is what the schema describes, formats included."""
    whole = schema | {"components": described["components"]}
    jsonschema.Draft202012Validator(
        whole, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    ).validate(value)


def test_examples_fit_their_schemas(described: Json) -> None:
    found = 0
    for operation in operations(described):
        bodies = [operation["requestBody"]] if "requestBody" in operation else []
        for body in (*bodies, *operation["responses"].values()):
            for content in body.get("content", {}).values():
                for example in content["examples"].values():
                    fits(described, content["schema"], resolved(described, example)["value"])
                    found += 1
        for parameter in operation["parameters"]:
            parameter = resolved(described, parameter)
            fits(described, parameter["schema"], parameter["example"])
    assert found > 100
