"""The SQL functions that the server calls: their arguments, and a NamedTuple of the columns of each row.

Columns are selected by name, so that a function can gain a column while an older server runs. Where
`sqlstate` is set the request was refused, and the columns after `detail` may be null.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

from api.schemas.fields import CancelReason, HoldStatus, OrderStatus, SaleStatus


class BatchRow(Protocol):
    """The first columns of the rows of every set-based function."""

    @property
    def request_no(self) -> int: ...
    @property
    def sqlstate(self) -> str | None: ...
    @property
    def detail(self) -> str | None: ...


Row = TypeVar("Row", bound=BatchRow)


def _numbers(values: Iterable[int]) -> str:
    return "{" + ",".join(map(str, values)) + "}"


def _texts(values: Iterable[str | None]) -> str:
    return "{" + ",".join(map(_quoted, values)) + "}"


def _texts_unless_null(values: Iterable[str | None]) -> str | None:
    texts = list(values)
    return None if texts.count(None) == len(texts) else _texts(texts)


def _quoted(value: str | None) -> str:
    if value is None:
        return "NULL"
    if "\\" in value or '"' in value:
        value = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{value}"'


@lru_cache(maxsize=1024)
def _request_nos(count: int) -> str:
    return _numbers(range(count))


_LITERAL: dict[str, Callable[[Iterable[Any]], str | None]] = {
    "int": _numbers,
    "bigint": _numbers,
    "text": _texts,
    "text?": _texts_unless_null,
    "jsonb": _texts,
    "timestamptz": _texts,
}


class Function(Generic[Row]):
    """A set-based function: it takes arrays and returns one row for each request.

    Arrays are sent as PostgreSQL's array literals: psycopg's list adapters take several times as long for
    each element, and choose an integer type by the size of the values.

    :param name: in schema `flashsale`
    :param element_types: of the arrays after p_request_nos; with ?, the array is null if its elements are
    :param row_type: a NamedTuple whose fields are the columns
    """

    def __init__(self, name: str, element_types: tuple[str, ...], row_type: type[Row]) -> None:
        self.name = name
        fields: tuple[str, ...] = row_type._fields  # type: ignore[attr-defined] # of every NamedTuple
        self.make_row: Callable[[Sequence[Any]], Row] = row_type._make  # type: ignore[attr-defined]
        self._literals = [_LITERAL[type_] for type_ in element_types]
        types = enumerate(("int", *element_types), 1)
        arrays = ", ".join(f"${at}::{type_.removesuffix('?')}[]" for at, type_ in types)
        self.statement = f"select {', '.join(fields)} from flashsale.{name}({arrays})"  # noqa: S608 - constants

    def parameters(self, requests: Sequence[tuple[Any, ...]]) -> list[str | None]:
        """The statement's parameters for these argument tuples; request_no is a tuple's index."""
        columns = zip(*requests, strict=True)
        literals = zip(self._literals, columns, strict=True)
        return [_request_nos(len(requests)), *[literal(column) for literal, column in literals]]


class PlaceHoldsRow(NamedTuple):
    request_no: int
    sqlstate: str | None
    detail: str | None
    replayed: bool
    hold_id: int
    product_id: int
    qty: int
    status: HoldStatus
    expires_at: datetime
    order_id: int | None
    order_status: OrderStatus | None
    members: dict[str, Any] | None


class ReleaseHoldsRow(NamedTuple):
    request_no: int
    sqlstate: str | None
    detail: str | None
    hold_id: int
    status: HoldStatus


class ExtendHoldsRow(NamedTuple):
    request_no: int
    sqlstate: str | None
    detail: str | None
    replayed: bool
    hold_id: int
    product_id: int
    qty: int
    status: HoldStatus
    expires_at: datetime


class CreateOrdersRow(NamedTuple):
    request_no: int
    sqlstate: str | None
    detail: str | None
    replayed: bool
    order_id: int
    status: OrderStatus
    amount: Decimal
    currency: str
    payment_due_at: datetime


class AbandonOrdersRow(NamedTuple):
    request_no: int
    sqlstate: str | None
    detail: str | None
    order_id: int
    status: OrderStatus


class ApplyPaymentsRow(NamedTuple):
    request_no: int
    sqlstate: str | None
    detail: str | None
    replayed: bool
    order_id: int
    status: OrderStatus | None
    result: Literal["applied", "no_change", "refund_due", "amount_mismatch", "stored"]


class GetProductsRow(NamedTuple):
    request_no: int
    sqlstate: str | None
    detail: str | None
    id: int
    name: str
    price: Decimal
    currency: str
    total_stock: int
    available_stock: int
    sale_status: SaleStatus
    starts_at: datetime | None
    ends_at: datetime | None
    max_per_buyer: int | None
    now: datetime


class GetAllowancesRow(NamedTuple):
    request_no: int
    sqlstate: str | None
    detail: str | None
    max_per_buyer: int | None
    taken: int | None
    remaining: int | None


class GetHoldsRow(NamedTuple):
    request_no: int
    sqlstate: str | None
    detail: str | None
    hold_id: int
    product_id: int
    qty: int
    status: HoldStatus
    expires_at: datetime
    order_id: int | None
    order_status: OrderStatus | None


class GetOrdersRow(NamedTuple):
    request_no: int
    sqlstate: str | None
    detail: str | None
    order_id: int
    product_id: int
    qty: int
    status: OrderStatus
    cancel_reason: CancelReason | None
    amount: Decimal
    currency: str
    created_at: datetime
    payment_due_at: datetime


PLACE_HOLDS = Function("place_holds", ("bigint", "int", "text", "text?"), PlaceHoldsRow)
EXTEND_HOLDS = Function("extend_holds", ("bigint", "timestamptz"), ExtendHoldsRow)
RELEASE_HOLDS = Function("release_holds", ("bigint",), ReleaseHoldsRow)
CREATE_ORDERS = Function("create_orders", ("bigint", "text"), CreateOrdersRow)
ABANDON_ORDERS = Function("abandon_orders", ("bigint", "bigint"), AbandonOrdersRow)
APPLY_PAYMENTS = Function("apply_payments", ("text", "bigint", "text", "jsonb", "text"), ApplyPaymentsRow)
GET_PRODUCTS = Function("get_products", ("bigint",), GetProductsRow)
GET_ALLOWANCES = Function("get_allowances", ("bigint", "text"), GetAllowancesRow)
GET_HOLDS = Function("get_holds", ("bigint",), GetHoldsRow)
GET_ORDERS = Function("get_orders", ("bigint", "bigint"), GetOrdersRow)


class ListProductsRow(NamedTuple):
    id: int
    name: str
    price: Decimal
    currency: str
    total_stock: int
    available_stock: int
    sale_status: SaleStatus
    starts_at: datetime | None
    ends_at: datetime | None
    max_per_buyer: int | None
    now: datetime


class GetStockRow(NamedTuple):
    id: int
    at: datetime
    total_stock: int
    available_stock: int
    held: int
    awaiting: int
    paid: int
    sale_status: SaleStatus
    starts_at: datetime | None
    ends_at: datetime | None
    max_per_buyer: int | None


class GetSaleMetricsRow(NamedTuple):
    metric: str
    product_id: int | None
    value: float


class RecordRejectedWebhookRow(NamedTuple):
    result: Literal["kept", "dropped", "ignored"]
    deliveries: int | None


class RecordRefundRow(NamedTuple):
    sqlstate: str | None
    detail: str | None
    refunded: Decimal | None


LIST_PRODUCTS = (
    "select id, name, price, currency, total_stock, available_stock, sale_status, starts_at, ends_at,"
    " max_per_buyer, now from flashsale.list_products(%s::bigint, %s::int)"
)
GET_STOCK = (
    "select id, at, total_stock, available_stock, held, awaiting, paid, sale_status, starts_at, ends_at,"
    " max_per_buyer from flashsale.get_stock(%s::bigint[])"
)
GET_SALE_METRICS = "select metric, product_id, value from flashsale.get_sale_metrics()"
RECORD_REJECTED_WEBHOOK = (
    "select result, deliveries from flashsale.record_rejected_webhook("
    "%s::text, %b::bytea, %s::text, %s::text, %s::text, %s::bigint, %s::text)"
)
RECORD_REFUND = (
    "select sqlstate, detail, refunded from flashsale.record_refunds("
    "array[1], array[%s::text], array[%s::text], array[%s::numeric], array[%s::text], array[%s::text],"
    " array[%s::jsonb], p_await_payment => true)"
)
READINESS = "select * from flashsale.readiness()"
