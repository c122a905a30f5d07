"""The SQL functions that HTTP calls: their names, what they take, what they give. There is no other SQL here.

Columns are named one by one, so that a function may grow one without disturbing a server that does not
know it yet.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any


def _numbers(values: Iterable[int]) -> str:
    return "{" + ",".join(map(str, values)) + "}"


def _texts(values: Iterable[str | None]) -> str:
    return "{" + ",".join(map(_quoted, values)) + "}"


def _quoted(value: str | None) -> str:
    if value is None:
        return "NULL"
    if "\\" in value or '"' in value:
        value = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{value}"'


@lru_cache(maxsize=1024)
def _request_nos(count: int) -> str:
    return _numbers(range(count))


_LITERAL: dict[str, Callable[[Iterable[Any]], str]] = {
    "int": _numbers,
    "bigint": _numbers,
    "text": _texts,
    "jsonb": _texts,
}


class Function:
    """A set-based function: arrays in, one row for each request out.

    Arrays travel as PostgreSQL's own array literals: psycopg's list adapters cost several times as much for
    each element, and pick an integer type by the size of the values.

    :param name: its name in schema `flashsale`
    :param takes: element types of the arrays after p_request_nos
    :param gives: columns after request_no, sqlstate and detail
    """

    def __init__(self, name: str, takes: tuple[str, ...], gives: tuple[str, ...]) -> None:
        self.name = name
        self._literals = [_LITERAL[type_] for type_ in takes]
        columns = ", ".join(("request_no", "sqlstate", "detail", *gives))
        arrays = ", ".join(f"${at}::{type_}[]" for at, type_ in enumerate(("int", *takes), 1))
        self.statement = f"select {columns} from flashsale.{name}({arrays})"  # noqa: S608 - all of it is below

    def parameters(self, requests: Sequence[tuple[Any, ...]]) -> list[str]:
        """The statement's parameters for these argument tuples; request_no is a tuple's index."""
        columns = zip(*requests, strict=True)
        literals = zip(self._literals, columns, strict=True)
        return [_request_nos(len(requests)), *[literal(column) for literal, column in literals]]


PLACE_HOLDS = Function(
    "place_holds",
    ("bigint", "int", "text"),
    ("replayed", "hold_id", "product_id", "qty", "status", "expires_at", "order_id", "order_status"),
)
RELEASE_HOLDS = Function("release_holds", ("bigint",), ("hold_id", "status"))
CREATE_ORDERS = Function(
    "create_orders",
    ("bigint", "text"),
    ("replayed", "order_id", "status", "amount", "currency", "payment_due_at"),
)
APPLY_PAYMENTS = Function(
    "apply_payments", ("text", "bigint", "text", "jsonb"), ("replayed", "order_id", "status", "result")
)
GET_PRODUCTS = Function(
    "get_products", ("bigint",), ("id", "name", "price", "currency", "total_stock", "available_stock")
)
GET_HOLDS = Function(
    "get_holds",
    ("bigint",),
    ("hold_id", "product_id", "qty", "status", "expires_at", "order_id", "order_status"),
)
GET_ORDERS = Function(
    "get_orders",
    ("bigint", "bigint"),
    (
        "order_id",
        "product_id",
        "qty",
        "status",
        "cancel_reason",
        "amount",
        "currency",
        "created_at",
        "payment_due_at",
    ),
)

LIST_PRODUCTS = (
    "select id, name, price, currency, total_stock, available_stock"
    " from flashsale.list_products(%s::bigint, %s::int)"
)
GET_STOCK = (
    "select id, at, total_stock, available_stock, held, awaiting, paid from flashsale.get_stock(%s::bigint[])"
)
GET_FIGURES = "select figure, product_id, value from flashsale.get_figures()"
READINESS = "select * from flashsale.readiness()"
