"""/openapi.json: the OpenAPI 3.1 document, made of the routes, the operations' table and the Structs.

No framework validates requests by it: bodies are checked once, by the decoder that reads them.
"""

from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Any

import falcon.inspect
import msgspec
from falcon.asgi import App, Request, Response

from api import problems
from api.openapi.operations import (
    ABOUT,
    ANY_REQUEST,
    IDEMPOTENCY_KEY,
    MEMBERS,
    NO_OPERATION,
    OPERATIONS,
    REQUEST_ID,
    SHAPES,
    TAGS,
    Answer,
    Operation,
    Parameter,
    Refusal,
    is_page,
)
from api.problems import Kind
from api.schemas import responses as answers
from api.webhook_signatures import HEADERS as SIGNATURE_HEADERS

Json = dict[str, Any]

_SHARED_PARAMETERS = (REQUEST_ID, IDEMPOTENCY_KEY)

_HEADERS: Mapping[str, Json] = {
    "X-Request-ID": {
        "description": "The request's, or a new one: it is in the log too.",
        "required": True,
        "schema": {"type": "string"},
        "example": "checkout-7f3a",
    },
    "Cache-Control": {
        "description": "What is true of a sale is true for an instant.",
        "required": True,
        "schema": {"type": "string", "const": "no-store"},
    },
    "Location": {
        "description": "Where the hold is.",
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
        "description": "An earlier request with this idempotency key has done the work.",
        "schema": {"type": "string", "const": "true"},
    },
    "Retry-After": {
        "description": "Seconds after which to try again (RFC 9110, 10.2.3).",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
        "example": 1,
    },
    "Allow": {
        "description": "The methods that the path takes.",
        "required": True,
        "schema": {"type": "string"},
        "example": "POST, OPTIONS",
    },
}
_EVERY_RESPONSE = ("X-Request-ID", "Cache-Control")

_SIGNATURE = {
    "webhook-id": ("webhookId", "The delivery's unique id, the same when it is delivered again."),
    "webhook-timestamp": (
        "webhookTimestamp",
        "Seconds since 1970, at most 300 from the server's clock. Each attempt has its own.",
    ),
    "webhook-signature": (
        "webhookSignature",
        "[Standard Webhooks](https://www.standardwebhooks.com): `v1,` and the base64 of HMAC-SHA256 over "
        "`{webhook-id}.{webhook-timestamp}.{body}`, keyed with what the secret holds in base64 after "
        "`whsec_`. Several, apart by spaces, while secrets are rotated: one of them must be right.",
    ),
}


def document(app: App[Any, Any], *, allow_unsigned: bool) -> Json:
    """The OpenAPI 3.1 document of an application: what is described and routed.

    :param allow_unsigned: whether the webhook's signature may be missing
    :raises LookupError: a route is not in the table
    """
    paths: dict[str, Json] = {}
    routed = set(routes(app))
    if unknown := routed - OPERATIONS.keys():
        raise LookupError(f"routes that api/openapi/operations.py does not describe: {sorted(unknown)}")
    for (method, path), operation in OPERATIONS.items():
        if (method, path) in routed:
            paths.setdefault(path, {})[method.lower()] = _operation(operation, allow_unsigned)
    schemas = _schemas()
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
            "examples": {kind.code: {"value": _problem(kind)} for kind in kinds()},
            "responses": {_pascal(kind.code): _refusal(kind.status, [kind]) for kind in NO_OPERATION},
            "securitySchemes": {
                scheme: {"type": "apiKey", "in": "header", "name": header, "description": description}
                for header, (scheme, description) in _SIGNATURE.items()
            },
        },
    }


def routes(app: App[Any, Any]) -> Iterator[tuple[str, str]]:
    """Method and path of each operation that the application routes to a responder of ours."""
    for route in falcon.inspect.inspect_routes(app):
        if not is_page(route.path):
            for method in route.methods:
                if not method.internal and method.method != "HEAD":
                    yield method.method, route.path


def kinds() -> list[Kind]:
    """Every kind of problem that HTTP answers with, once."""
    found = {kind.code: kind for kind in (*ANY_REQUEST, *NO_OPERATION)}
    for operation in OPERATIONS.values():
        found.update((_kind(problem).code, _kind(problem)) for problem in operation.problems)
    return list(found.values())


def answered_by(kind: Kind) -> list[tuple[str, str]]:
    """The calls that answer with this problem, as method and path; none, if whatever is asked may."""
    return [
        call
        for call, operation in OPERATIONS.items()
        if kind.code in {_kind(problem).code for problem in operation.problems}
    ]


def _operation(operation: Operation, allow_unsigned: bool) -> Json:
    described: Json = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.description,
        "parameters": [_parameter_or_reference(p) for p in (*operation.parameters, REQUEST_ID)],
    }
    if operation.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {
                "application/json": {
                    "schema": _reference("schemas", operation.body.__name__),
                    "examples": _examples(operation.requests),
                }
            },
        }
    if operation.signed:
        signature: Json = {_SIGNATURE[header][0]: [] for header in SIGNATURE_HEADERS}
        described["security"] = [{}, signature] if allow_unsigned else [signature]
    responses = {answer.status: _answer(answer) for answer in operation.answers}
    by_status: dict[int, list[Kind | Refusal]] = {}
    for problem in (*operation.problems, *ANY_REQUEST):
        by_status.setdefault(_kind(problem).status, []).append(problem)
    responses |= {status: _refusal(status, refusals) for status, refusals in by_status.items()}
    described["responses"] = {str(status): responses[status] for status in sorted(responses)}
    return described


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


def _answer(answer: Answer) -> Json:
    described: Json = {
        "description": answer.description,
        "headers": _header_references((*answer.headers, *_EVERY_RESPONSE)),
    }
    if answer.shape is not None:
        (schema,), _ = _schema_components([answer.shape])
        described["content"] = {
            answer.media_type: {"schema": schema, "examples": _examples(answer.examples)},
        }
    if answer.leads_to:
        described["links"] = {id_: _link(id_, how) for id_, how in answer.leads_to.items()}
    return described


def _link(operation_id: str, how: Mapping[str, Any]) -> Json:
    if "body" in how:
        return {"operationId": operation_id, "requestBody": how["body"]}
    return {"operationId": operation_id, "parameters": dict(how)}


def _refusal(status: int, refusals: Iterable[Kind | Refusal]) -> Json:
    """A response with problem details: which of them, and an example of each."""
    refusals = list(refusals)
    codes = [_kind(refusal).code for refusal in refusals]
    references = [_reference("schemas", _pascal(code)) for code in codes]
    headers = [*_EVERY_RESPONSE]
    if status == problems.METHOD_NOT_ALLOWED.status:
        headers.insert(0, "Allow")
    if any(_kind(refusal).retry_after for refusal in refusals):
        headers.insert(0, "Retry-After")
    return {
        "description": "\n".join(f"- `{_kind(r).code}`: {_kind(r).detail}" for r in refusals),
        "headers": _header_references(headers),
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
                    _kind(refusal).code: _reference("examples", refusal.code)
                    if isinstance(refusal, Kind)
                    else {"value": _problem(refusal.kind, refusal.detail, **refusal.members)}
                    for refusal in refusals
                },
            }
        },
    }


def _kind(problem: Kind | Refusal) -> Kind:
    return problem if isinstance(problem, Kind) else problem.kind


def _problem(kind: Kind, detail: str = "", **members: Any) -> Json:
    """A problem as the code writes it."""
    problem: Json = msgspec.json.decode(problems.body(kind, detail or kind.detail, **members))
    return problem


def _schemas() -> dict[str, Json]:
    """The Structs, and problem details in general and in particular."""
    shapes = [operation.body for operation in OPERATIONS.values() if operation.body is not None]
    shapes += [a.shape for operation in OPERATIONS.values() for a in operation.answers if a.shape is not None]
    _, schemas = _schema_components([*shapes, *SHAPES])
    schemas["Problem"] = {
        "description": "Problem details (RFC 9457). `code` is what programs branch on.",
        "type": "object",
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string", "description": "What happened this time, for people."},
            "code": {"type": "string", "enum": sorted(kind.code for kind in kinds())},
        },
        "required": ["type", "title", "status", "detail", "code"],
    }
    for kind in kinds():
        own: Json = {"properties": {}}
        if kind.code in MEMBERS:
            _, members = _schema_components([MEMBERS[kind.code]])
            (own,) = members.values()
            own = {name: own[name] for name in ("properties", "required") if own.get(name)}
        same = _problem(kind)
        constants = {name: {"const": same[name]} for name in ("type", "title", "status", "code")}
        schemas[_pascal(kind.code)] = {
            "description": kind.detail,
            "allOf": [_reference("schemas", "Problem")],
            **own,
            "properties": constants | own["properties"],
        }
    return schemas


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
    """A name as component keys have to be spelled."""
    return name.replace(",", "").replace(" ", "_")


class OpenApi:
    """The document of the application that it is in, made when it is first asked for.

    :param app: the application, which may get its routes later
    :param allow_unsigned: as in document()
    """

    def __init__(self, app: App[Any, Any], *, allow_unsigned: bool) -> None:
        self._app = app
        self._allow_unsigned = allow_unsigned
        self._data = b""

    async def on_get(self, req: Request, resp: Response) -> None:
        self._data = self._data or answers.encode(document(self._app, allow_unsigned=self._allow_unsigned))
        resp.data = self._data
