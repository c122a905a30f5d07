"""/openapi.json: the OpenAPI 3.1 document, made of the routes, the table of operations and the Structs.

Requests are not validated against it: the decoder that parses a body has checked it.
"""

from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Any

import falcon.inspect
import msgspec
from falcon.asgi import App, Request, Response
from msgspec import UNSET

from api import problems
from api.openapi.about import ABOUT, TAGS
from api.openapi.components import (
    HEADERS,
    Json,
    component_key,
    component_schemas,
    header_references,
    pascal,
    problem_example,
    problem_type,
    problem_types,
    reference,
    schema_components,
    schema_name,
)
from api.openapi.operation import Operation, Parameter, ProblemExample, SuccessResponse
from api.openapi.operations import OPERATIONS
from api.openapi.operations.shared import (
    BUYER,
    COMMON_PROBLEMS,
    IDEMPOTENCY_KEY,
    REQUEST_ID,
    UNROUTED_PROBLEMS,
)
from api.problems import ProblemType
from api.schemas import requests
from api.schemas.responses import encode
from api.webhook_signatures import HEADERS as SIGNATURE_HEADERS

_SHARED_PARAMETERS = (REQUEST_ID, IDEMPOTENCY_KEY)

_EVERY_RESPONSE = ("X-Request-ID", "Cache-Control")

_SIGNATURE = {
    "webhook-id": (
        "msg_2Lh9KRb0pzN4LePd3XiA4v12Axj",
        "The id of the message, the same in each delivery. The three headers may also be named `svix-id`, "
        "`svix-timestamp` and `svix-signature`, all of them.",
    ),
    "webhook-timestamp": (
        "1736678642",
        "Seconds since 1970, at most 300 from the server's clock; new for each delivery.",
    ),
    "webhook-signature": (
        "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
        "[Standard Webhooks](https://www.standardwebhooks.com): `v1,` and the base64 of HMAC-SHA256 over "
        "`{webhook-id}.{webhook-timestamp}.{body}`; the secret's part after `whsec_` is the key in base64. "
        "During a rotation there may be several, separated by spaces; one of them must be valid.",
    ),
}


_BUYER_TOKEN = "buyerToken"  # noqa: S105 - a name


def document(app: App[Any, Any], *, allow_unsigned: bool, trusts_callers: bool = False) -> Json:
    """The OpenAPI 3.1 document of an application: the operations that it routes.

    :param allow_unsigned: whether the webhook's signature is optional
    :param trusts_callers: whether a caller may name the buyer
    :raises LookupError: a route is not in the table
    """
    paths: dict[str, Json] = {}
    routed = set(routes(app))
    if unknown := routed - OPERATIONS.keys():
        raise LookupError(f"routes that api/openapi/operations/ does not describe: {sorted(unknown)}")
    for (method, path), operation in OPERATIONS.items():
        if (method, path) in routed:
            paths.setdefault(path, {})[method.lower()] = _operation(operation, allow_unsigned, trusts_callers)
    schemas = component_schemas()
    if not trusts_callers:
        del schemas[requests.NewHold.__name__]["properties"][BUYER.name]
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "flashsale",
            "version": version("flashsale"),
            "summary": "A flash-sale checkout that lives in PostgreSQL",
            "description": ABOUT,
        },
        "servers": [{"url": "/", "description": "This server"}],
        "tags": [{"name": name, "description": description} for name, description in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "parameters": {component_key(p.name): _parameter(p) for p in _SHARED_PARAMETERS},
            "headers": HEADERS,
            "examples": {type_.code: {"value": problem_example(type_)} for type_ in problem_types()},
            "responses": {
                pascal(type_.code): _problems(type_.status, [type_]) for type_ in UNROUTED_PROBLEMS
            },
            "securitySchemes": {
                _BUYER_TOKEN: {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "The shop's token for its customer: `sub` is the buyer, `aud` is "
                    "`flashsale`, `exp` is required; signed with a key in the server's "
                    "`FLASHSALE_BUYER_KEYS`. Needed for a product with a limit for each buyer.",
                }
            },
        },
    }


def is_page(path: str) -> bool:
    """Whether a route serves people: the live page, the documentation, and their files."""
    return path in ("/", "/docs", "/openapi.json") or path.startswith(("/page/", "/docs/", "/problems/"))


def routes(app: App[Any, Any]) -> Iterator[tuple[str, str]]:
    """Method and path of each operation that the application routes."""
    for route in falcon.inspect.inspect_routes(app):
        if not is_page(route.path):
            for method in route.methods:
                if not method.internal and method.method != "HEAD":
                    yield method.method, route.path


def _operation(operation: Operation, allow_unsigned: bool, trusts_callers: bool) -> Json:
    parameters = [p for p in operation.parameters if trusts_callers or p != BUYER]
    described: Json = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.description,
        "parameters": [_parameter_or_reference(p) for p in (*parameters, REQUEST_ID)],
    }
    if operation.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {
                "application/json": {
                    "schema": reference("schemas", operation.body.__name__),
                    "examples": _examples(_requests(operation, trusts_callers)),
                }
            },
        }
    if operation.signed:
        # Parameters, no security scheme: each message has its own signature, which a client passes with it.
        described["parameters"] += [
            _signature(name, required=not allow_unsigned) for name in SIGNATURE_HEADERS
        ]
    if operation.has_buyer:
        described["security"] = [{}, {_BUYER_TOKEN: []}]
    described_responses = {success.status: _success(success) for success in operation.responses}
    by_status: dict[int, list[ProblemType | ProblemExample]] = {}
    for problem in (*operation.problems, *COMMON_PROBLEMS):
        by_status.setdefault(problem_type(problem).status, []).append(problem)
    described_responses |= {status: _problems(status, found) for status, found in by_status.items()}
    described["responses"] = {
        str(status): described_responses[status] for status in sorted(described_responses)
    }
    return described


def _requests(operation: Operation, trusts_callers: bool) -> Mapping[str, Any]:
    return {
        name: request
        for name, request in operation.requests.items()
        if trusts_callers or getattr(request, BUYER.name, UNSET) is UNSET
    }


def _parameter_or_reference(parameter: Parameter) -> Json:
    if parameter in _SHARED_PARAMETERS:
        return reference("parameters", component_key(parameter.name))
    return _parameter(parameter)


def _parameter(parameter: Parameter) -> Json:
    (schema,), _ = msgspec.json.schema_components([parameter.shape])
    return {
        "name": parameter.name,
        "in": parameter.where,
        "required": parameter.required,
        "description": schema.pop("description"),
        "schema": schema,
        "example": parameter.example,
    }


def _signature(name: str, *, required: bool) -> Json:
    example, description = _SIGNATURE[name]
    return {
        "name": name,
        "in": "header",
        "required": required,
        "description": description,
        "schema": {"type": "string"},
        "example": example,
    }


def _success(success: SuccessResponse) -> Json:
    described: Json = {
        "description": success.description,
        "headers": header_references((*success.headers, *_EVERY_RESPONSE)),
    }
    if success.shape is not None:
        (schema,), _ = schema_components([success.shape])
        described["content"] = {
            success.media_type: {"schema": schema, "examples": _examples(success.examples)}
        }
    if success.links:
        described["links"] = {id_: _link(id_, how) for id_, how in success.links.items()}
    return described


def _link(operation_id: str, how: Mapping[str, Any]) -> Json:
    if "body" in how:
        return {"operationId": operation_id, "requestBody": how["body"]}
    return {"operationId": operation_id, "parameters": dict(how)}


def _problems(status: int, found: Iterable[ProblemType | ProblemExample]) -> Json:
    """A response with problem details: its problem types, and an example of each."""
    found = list(found)
    codes = [problem_type(problem).code for problem in found]
    references = [reference("schemas", schema_name(problem)) for problem in found]
    headers = [*_EVERY_RESPONSE]
    if status == problems.METHOD_NOT_ALLOWED.status:
        headers.insert(0, "Allow")
    described_headers = header_references(headers)
    for name, has in (("Retry-After", _has_retry_after), ("WWW-Authenticate", _has_challenge)):
        if all(map(has, found)):
            described_headers = header_references([name]) | described_headers
        elif any(map(has, found)):  # with some of these problems
            described_headers = {name: HEADERS[name] | {"required": False}} | described_headers
    return {
        "description": "\n".join(f"- `{problem_type(p).code}`: {problem_type(p).detail}" for p in found),
        "headers": described_headers,
        "content": {
            problems.MEDIA_TYPE: {
                "schema": references[0]
                if len(references) == 1
                else {
                    "oneOf": references,
                    "discriminator": {
                        "propertyName": "code",
                        "mapping": {c: r["$ref"] for c, r in zip(codes, references, strict=True)},
                    },
                },
                "examples": {
                    problem_type(problem).code: reference("examples", problem.code)
                    if isinstance(problem, ProblemType)
                    else {"value": problem_example(problem.type, problem.detail, **problem.members)}
                    for problem in found
                },
            }
        },
    }


def _has_retry_after(problem: ProblemType | ProblemExample) -> bool:
    return problem_type(problem).retry_after is not None


def _has_challenge(problem: ProblemType | ProblemExample) -> bool:
    return problem_type(problem).challenge is not None


def _examples(examples: Mapping[str, Any]) -> Json:
    return {
        component_key(name): {"summary": name, "value": msgspec.to_builtins(value)}
        for name, value in examples.items()
    }


class OpenApi:
    """The document, made at the first request, when the application has all its routes."""

    def __init__(self, app: App[Any, Any], *, allow_unsigned: bool, trusts_callers: bool) -> None:
        self._app = app
        self._allow_unsigned = allow_unsigned
        self._trusts_callers = trusts_callers
        self._data = b""

    async def on_get(self, req: Request, resp: Response) -> None:
        self._data = self._data or encode(
            document(self._app, allow_unsigned=self._allow_unsigned, trusts_callers=self._trusts_callers)
        )
        resp.data = self._data
