"""What an operation of the HTTP interface is described by; the table of them is in operations/."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from msgspec import Struct

from api.problems import ProblemType

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Parameter(NamedTuple):
    """A value outside the request's body.

    :param where: path, query or header
    :param shape: its type, with a description
    """

    name: str
    where: str
    shape: Any
    example: Any
    required: bool = False


class SuccessResponse(NamedTuple):
    """A successful response.

    :param shape: of the body, if there is one
    :param examples: bodies by name
    :param headers: beside those of every response
    :param links: operations to call next: by their id, their parameters (or "body") as runtime expressions
    """

    status: int
    description: str
    shape: Any = None
    examples: Mapping[str, Any] = NOTHING
    headers: tuple[str, ...] = ()
    media_type: str = "application/json"
    links: Mapping[str, Mapping[str, Any]] = NOTHING


class ProblemExample(NamedTuple):
    """A problem of one operation, by example.

    :param members: extension members (RFC 9457, 3.2)
    """

    type: ProblemType
    detail: str
    members: Mapping[str, Any] = NOTHING


class Operation(NamedTuple):
    """One method of one path.

    :param id: a name for generated clients; that of the SQL function, if there is one
    :param problems: beside COMMON_PROBLEMS; a ProblemType if its own detail is the example
    :param body: shape of the request's body
    :param requests: bodies by name
    :param signed: has a webhook signature
    :param has_buyer: takes the buyer's token
    """

    id: str
    tag: str
    summary: str
    description: str
    responses: tuple[SuccessResponse, ...]
    problems: tuple[ProblemType | ProblemExample, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    body: type[Struct] | None = None
    requests: Mapping[str, Struct] = NOTHING
    signed: bool = False
    has_buyer: bool = False
