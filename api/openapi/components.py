"""Components of /openapi.json: the headers, and the schemas of the Structs and of problem details."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from api import problems
from api.openapi.members import MEMBERS
from api.openapi.operation import ProblemExample
from api.openapi.operations import OPERATIONS
from api.openapi.operations.shared import COMMON_PROBLEMS, UNROUTED_PROBLEMS
from api.problems import ProblemType
from api.schemas import responses

Json = dict[str, Any]

_WITHOUT_MEMBERS = "WithoutMembers"
_SHAPES: tuple[Any, ...] = (responses.StockSample, responses.StockEvent)
"""described although they are not bodies: the data of events is made of samples"""

HEADERS: Mapping[str, Json] = {
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


def problem_types() -> list[ProblemType]:
    """Every problem type of the HTTP interface, once."""
    found = {type_.code: type_ for type_ in (*COMMON_PROBLEMS, *UNROUTED_PROBLEMS)}
    for operation in OPERATIONS.values():
        found.update((problem_type(problem).code, problem_type(problem)) for problem in operation.problems)
    return list(found.values())


def operations_with(type_: ProblemType) -> list[tuple[str, str]]:
    """Method and path of the operations that have this problem; none if any request may have it."""
    return [
        call
        for call, operation in OPERATIONS.items()
        if type_.code in {problem_type(problem).code for problem in operation.problems}
    ]


def component_schemas() -> dict[str, Json]:
    """The Structs, and problem details: in general, and of each type."""
    shapes = [operation.body for operation in OPERATIONS.values() if operation.body is not None]
    shapes += [
        a.shape for operation in OPERATIONS.values() for a in operation.responses if a.shape is not None
    ]
    _, schemas = schema_components([*shapes, *_SHAPES])
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
        name = pascal(type_.code)
        schemas[name] = problem_schema(type_, MEMBERS.get(type_.code))
        if any(
            schema_name(problem) == f"{name}{_WITHOUT_MEMBERS}"
            for operation in OPERATIONS.values()
            for problem in operation.problems
        ):
            schemas[f"{name}{_WITHOUT_MEMBERS}"] = problem_schema(type_, None)
    return schemas


def problem_schema(type_: ProblemType, members: type[Struct] | None) -> Json:
    """The schema of problems of one type. It is complete, because generators of clients leave out what they
    would have to merge."""
    same = problem_example(type_)
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
        _, components = schema_components([members])
        (own,) = components.values()
        schema["properties"] |= own["properties"]
        schema["required"] += own["required"]
    return schema


def schema_components(shapes: Iterable[Any]) -> tuple[tuple[Json, ...], dict[str, Json]]:
    return msgspec.json.schema_components(shapes, ref_template="#/components/schemas/{name}")


def schema_name(problem: ProblemType | ProblemExample) -> str:
    """The schema of a problem: another one where it comes without the members that it has elsewhere."""
    name = pascal(problem_type(problem).code)
    is_bare = isinstance(problem, ProblemExample) and problem.type.code in MEMBERS and not problem.members
    return f"{name}{_WITHOUT_MEMBERS}" if is_bare else name


def problem_type(problem: ProblemType | ProblemExample) -> ProblemType:
    return problem if isinstance(problem, ProblemType) else problem.type


def problem_example(type_: ProblemType, detail: str = "", **members: Any) -> Json:
    problem: Json = msgspec.json.decode(problems.encode_problem(type_, detail or type_.detail, **members))
    return problem


def header_references(names: Iterable[str]) -> Json:
    return {name: reference("headers", name) for name in names}


def reference(section: str, name: str) -> Json:
    return {"$ref": f"#/components/{section}/{name}"}


def pascal(code: str) -> str:
    return "".join(word.capitalize() for word in code.split("_"))


def component_key(name: str) -> str:
    """A name as a component key."""
    return name.replace(",", "").replace(" ", "_")
