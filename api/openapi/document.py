"""/openapi.json: the OpenAPI 3.1 document, made of the routes, the table of operations and the Structs.

Requests are not validated against it: the decoder that parses a body has checked it.
"""

from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Any

import falcon.inspect
import msgspec
from falcon.asgi import App, Request, Response
from msgspec import UNSET, Struct

from api import problems
from api.openapi.operation import Operation, Parameter, ProblemExample, SuccessResponse
from api.openapi.operations import (
    ABOUT,
    BUYER,
    COMMON_PROBLEMS,
    IDEMPOTENCY_KEY,
    MEMBERS,
    OPERATIONS,
    REQUEST_ID,
    SHAPES,
    TAGS,
    UNROUTED_PROBLEMS,
    is_page,
)
from api.problems import ProblemType
from api.schemas import requests
from api.schemas.responses import encode
from api.webhook_signatures import HEADERS as SIGNATURE_HEADERS

Json = dict[str, Any]

_WITHOUT_MEMBERS = "WithoutMembers"
_SHARED_PARAMETERS = (REQUEST_ID, IDEMPOTENCY_KEY)

_HEADERS: Mapping[str, Json] = {
    "X-Request-ID": {
        "description": "The request's id, or a new one; it is in the log, too.",
        "required": True,
        "schema": {"type": "string"},
        "example": "checkout-7f3a",
    },
    "Cache-Control": {
        "description": "Stock and states are exact only at the instant of the response.",
        "required": True,
        "schema": {"type": "string", "const": "no-store"},
    },
    "Location": {
        "description": "The URL of the hold.",
        "required": True,
        "schema": {"type": "string", "format": "uri-reference"},
        "example": "/api/holds/4872316950284173",
    },
    "Link": {
        "description": "The next page (RFC 8288), if this one is full.",
        "schema": {"type": "string"},
        "example": '</api/products?after=1&limit=1>; rel="next"',
    },
    "Idempotency-Replayed": {
        "description": "The response is the result of an earlier request with the same idempotency key.",
        "schema": {"type": "string", "const": "true"},
    },
    "Retry-After": {
        "description": "Seconds until a retry (RFC 9110, 10.2.3).",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
        "example": 1,
    },
    "WWW-Authenticate": {
        "description": "The challenge of a token that was refused (RFC 6750).",
        "required": True,
        "schema": {"type": "string"},
        "example": problems.INVALID_TOKEN.challenge,
    },
    "Allow": {
        "description": "The methods that the path supports.",
        "required": True,
        "schema": {"type": "string"},
        "example": "POST, OPTIONS",
    },
}
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
        raise LookupError(f"routes that api/openapi/operations.py does not describe: {sorted(unknown)}")
    for (method, path), operation in OPERATIONS.items():
        if (method, path) in routed:
            paths.setdefault(path, {})[method.lower()] = _operation(operation, allow_unsigned, trusts_callers)
    schemas = _schemas()
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
            "parameters": {_key(p.name): _parameter(p) for p in _SHARED_PARAMETERS},
            "headers": _HEADERS,
            "examples": {type_.code: {"value": _problem(type_)} for type_ in problem_types()},
            "responses": {
                _pascal(type_.code): _problems(type_.status, [type_]) for type_ in UNROUTED_PROBLEMS
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


def routes(app: App[Any, Any]) -> Iterator[tuple[str, str]]:
    """Method and path of each operation that the application routes."""
    for route in falcon.inspect.inspect_routes(app):
        if not is_page(route.path):
            for method in route.methods:
                if not method.internal and method.method != "HEAD":
                    yield method.method, route.path


def problem_types() -> list[ProblemType]:
    """Every problem type of the HTTP interface, once."""
    found = {type_.code: type_ for type_ in (*COMMON_PROBLEMS, *UNROUTED_PROBLEMS)}
    for operation in OPERATIONS.values():
        found.update((_type(problem).code, _type(problem)) for problem in operation.problems)
    return list(found.values())


def operations_with(type_: ProblemType) -> list[tuple[str, str]]:
    """Method and path of the operations that have this problem; none if any request may have it."""
    return [
        call
        for call, operation in OPERATIONS.items()
        if type_.code in {_type(problem).code for problem in operation.problems}
    ]


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
                    "schema": _reference("schemas", operation.body.__name__),
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
        by_status.setdefault(_type(problem).status, []).append(problem)
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
        return _reference("parameters", _key(parameter.name))
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
        "headers": _header_references((*success.headers, *_EVERY_RESPONSE)),
    }
    if success.shape is not None:
        (schema,), _ = _schema_components([success.shape])
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
    codes = [_type(problem).code for problem in found]
    references = [_reference("schemas", _schema_name(problem)) for problem in found]
    headers = [*_EVERY_RESPONSE]
    if status == problems.METHOD_NOT_ALLOWED.status:
        headers.insert(0, "Allow")
    described_headers = _header_references(headers)
    for name, has in (("Retry-After", _has_retry_after), ("WWW-Authenticate", _has_challenge)):
        if all(map(has, found)):
            described_headers = _header_references([name]) | described_headers
        elif any(map(has, found)):  # with some of these problems
            described_headers = {name: _HEADERS[name] | {"required": False}} | described_headers
    return {
        "description": "\n".join(f"- `{_type(p).code}`: {_type(p).detail}" for p in found),
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
                    _type(problem).code: _reference("examples", problem.code)
                    if isinstance(problem, ProblemType)
                    else {"value": _problem(problem.type, problem.detail, **problem.members)}
                    for problem in found
                },
            }
        },
    }


def _schema_name(problem: ProblemType | ProblemExample) -> str:
    """The schema of a problem: another one where it comes without the members that it has elsewhere."""
    name = _pascal(_type(problem).code)
    is_bare = isinstance(problem, ProblemExample) and problem.type.code in MEMBERS and not problem.members
    return f"{name}{_WITHOUT_MEMBERS}" if is_bare else name


def _has_retry_after(problem: ProblemType | ProblemExample) -> bool:
    return _type(problem).retry_after is not None


def _has_challenge(problem: ProblemType | ProblemExample) -> bool:
    return _type(problem).challenge is not None


def _type(problem: ProblemType | ProblemExample) -> ProblemType:
    return problem if isinstance(problem, ProblemType) else problem.type


def _problem(type_: ProblemType, detail: str = "", **members: Any) -> Json:
    problem: Json = msgspec.json.decode(problems.encode_problem(type_, detail or type_.detail, **members))
    return problem


def _schemas() -> dict[str, Json]:
    """The Structs, and problem details: in general, and of each type."""
    shapes = [operation.body for operation in OPERATIONS.values() if operation.body is not None]
    shapes += [
        a.shape for operation in OPERATIONS.values() for a in operation.responses if a.shape is not None
    ]
    _, schemas = _schema_components([*shapes, *SHAPES])
    for operation in OPERATIONS.values():
        if operation.body is not None and not operation.body.__struct_config__.forbid_unknown_fields:
            schemas[operation.body.__name__]["additionalProperties"] = True
    schemas["Problem"] = {
        "description": "Problem details (RFC 9457). `code` is what programs branch on.",
        "type": "object",
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string", "description": "What happened, for people."},
            "code": {"type": "string", "enum": sorted(type_.code for type_ in problem_types())},
        },
        "required": ["type", "title", "status", "detail", "code"],
    }
    for type_ in problem_types():
        name = _pascal(type_.code)
        schemas[name] = _problem_schema(type_, MEMBERS.get(type_.code))
        if any(
            _schema_name(problem) == f"{name}{_WITHOUT_MEMBERS}"
            for operation in OPERATIONS.values()
            for problem in operation.problems
        ):
            schemas[f"{name}{_WITHOUT_MEMBERS}"] = _problem_schema(type_, None)
    return schemas


def _problem_schema(type_: ProblemType, members: type[Struct] | None) -> Json:
    """The schema of problems of one type. It is complete, because generators of clients leave out what they
    would have to merge."""
    same = _problem(type_)
    schema: Json = {
        "description": type_.detail,
        "type": "object",
        "properties": {
            "type": {"type": "string", "const": same["type"]},
            "title": {"type": "string", "const": same["title"]},
            "status": {"type": "integer", "const": same["status"]},
            "detail": {"type": "string", "description": "What happened, for people."},
            "code": {"type": "string", "const": same["code"]},
        },
        "required": ["type", "title", "status", "detail", "code"],
    }
    if members is not None:
        _, components = _schema_components([members])
        (own,) = components.values()
        schema["properties"] |= own["properties"]
        schema["required"] += own["required"]
    return schema


def _schema_components(shapes: Iterable[Any]) -> tuple[tuple[Json, ...], dict[str, Json]]:
    return msgspec.json.schema_components(shapes, ref_template="#/components/schemas/{name}")


def _examples(examples: Mapping[str, Any]) -> Json:
    return {
        _key(name): {"summary": name, "value": msgspec.to_builtins(value)} for name, value in examples.items()
    }


def _header_references(names: Iterable[str]) -> Json:
    return {name: _reference("headers", name) for name in names}


def _reference(section: str, name: str) -> Json:
    return {"$ref": f"#/components/{section}/{name}"}


def _pascal(code: str) -> str:
    return "".join(word.capitalize() for word in code.split("_"))


def _key(name: str) -> str:
    """A name as a component key."""
    return name.replace(",", "").replace(" ", "_")


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
