"""Requests to the functions as data, sent asynchronously: one thread can have several under way."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from weakref import WeakKeyDictionary

import psycopg
from psycopg.pq import DiagnosticField, ExecStatus

from proof.clock_shift import TICK
from proof.model import Response

LOCKED = "55P03"
NOT_SERIALIZABLE = "40001"

# The types of the columns of a request.
COLUMNS = {
    "place_hold": ("bigint", "int", "text", "text"), "release_hold": ("bigint",),
    "extend_hold": ("bigint", "timestamptz"), "create_order": ("bigint", "text"),
    "abandon_order": ("bigint", "bigint"), "cancel_order": ("bigint", "boolean"),
    "apply_payment": ("text", "bigint", "text", "jsonb"), "adjust_stock": ("bigint", "int", "text"),
    "change_price": ("bigint", "numeric"),
    "change_terms": ("bigint", "int", "text", "int", "text", "text"), "pause_sale": ("bigint",),
    "resume_sale": ("bigint",),
    "record_refund": ("text", "text", "numeric", "text", "text"), "begin_refunds": ("text[]",),
    "preview_cancel_sale": ("bigint",), "cancel_sale": ("bigint", "numeric"),
    "expire_due": ("int",), "change_settings": ("interval",), "purge": ("interval",),
    "forget_tests": ("bigint[]",),
}  # fmt: skip
# Functions that do not return a row a request.
QUERIES = {
    "change_terms": "select to_jsonb(r) from flashsale.change_terms("
    "array[$1::bigint], p_max_per_buyer => $2::int, p_limit_group => $3::text, p_max_per_hold => $4::int,"
    " p_starts_at => case $5 when 'none' then '-infinity'"
    f" else clock_timestamp() + $5::text::int * interval '{TICK} s' end, p_ends_at => case $6 when 'none'"
    f" then 'infinity' else clock_timestamp() + $6::text::int * interval '{TICK} s' end) r",
    "pause_sale": "select to_jsonb(r) from flashsale.pause_sale(array[$1::bigint]) r",
    "resume_sale": "select to_jsonb(r) from flashsale.resume_sale(array[$1::bigint]) r",
    "record_refund": "select to_jsonb(r) from flashsale.record_refund("
    "$1::text, $2::text, $3::numeric, $4::text, $5::text, p_await_payment => true) r",
    "record_refunds": "select to_jsonb(r) from flashsale.record_refunds("
    "$1::int[], $2::text[], $3::text[], $4::numeric[], $5::text[], $6::text[], p_await_payment => true) r",
    "begin_refunds": "select coalesce(jsonb_object_agg(r.payment_key, jsonb_build_array("
    "r.refund_key, r.order_id, round(r.amount, 2)::text, r.currency, r.reason)), '{}')"
    " from flashsale.begin_refunds(1000, $1::text[]) r",
    "change_settings": "select '{}'::jsonb from flashsale.change_settings(p_inbox_keep => $1::interval)",
    "purge": "select jsonb_object_agg(removed, rows)"
    " filter (where removed not in ('events', 'rejected_webhooks')) from flashsale.purge($1::interval)",
    "forget_tests": "select coalesce(jsonb_object_agg(product_id, forgotten), '{}')"
    " from flashsale.forget_tests($1::bigint[])",
}
MONEY = ("refunded", "still_due", "refund_total")
"""amounts whose scale depends on how they came about"""
TIMES = ("expires_at", "payment_due_at", "starts_at", "ends_at", "now")
OF_THE_BATCH = ("request_no", "sqlstate", "detail", "members")


@dataclass(frozen=True)
class Request:
    """One request: place_hold(product_id, qty, key, buyer), release_hold(hold_id),
    extend_hold(hold_id, the end that was seen, the same in ticks), create_order(hold_id, key),
    abandon_order(order_id, hold_id), cancel_order(order_id, restock), apply_payment(key, order_id, status,
    amount, currency),
    adjust_stock(product_id, delta, key), change_price(product_id, price), change_terms(product_id,
    max_per_buyer, limit_group, max_per_hold, ticks until the start, ticks until the end),
    pause_sale(product_id), resume_sale(product_id), preview_cancel_sale(product_id), cancel_sale(product_id,
    refund_total), begin_refunds(payment_keys or None), record_refund(refund_key, payment_key, amount, status,
    kind), expire_due(limit), change_settings(keep_ticks),
    purge(), forget_tests(product_ids or None)."""

    function: str
    args: tuple

    @property
    def fields(self) -> tuple[str | None, ...]:
        """The arguments of the function, as text."""
        args = self.args
        if self.function == "apply_payment":
            key, order_id, status, amount, currency = args
            payload = {"amount": amount, "currency": currency}
            args = key, order_id, status, json.dumps({k: v for k, v in payload.items() if v is not None})
        elif self.function == "extend_hold":
            args = args[:2]
        elif self.function == "change_settings":
            args = (f"{args[0] * TICK} s",)
        elif self.function == "purge":
            args = ("0",)
        elif self.function in ("forget_tests", "begin_refunds") and args[0] is not None:
            args = (array(args[0]).decode(),)
        return tuple(None if field is None else str(field) for field in args)


@dataclass(frozen=True)
class Call:
    """A call of the scalar function, or, with `batch`, of the set-based one."""

    requests: tuple[Request, ...]
    batch: bool = False

    @property
    def function(self) -> str:
        return self.requests[0].function

    def statement(self) -> tuple[bytes, list[bytes | None]]:
        types = COLUMNS[self.function]
        if self.batch:
            columns = [
                list(range(1, len(self.requests) + 1)),
                *zip(*(r.fields for r in self.requests), strict=True),
            ]
            arrays = ", ".join(f"${i + 1}::{t}[]" for i, t in enumerate(("int", *types)))
            name = f"{self.function}s"
            query = QUERIES.get(name, f"select to_jsonb(r) from flashsale.{name}({arrays}) r")
            return query.encode(), [array(column) for column in columns]
        (request,) = self.requests
        arguments = ", ".join(f"${i + 1}::{t}" for i, t in enumerate(types))
        query = QUERIES.get(
            self.function, f"select to_jsonb(r) from flashsale.{self.function}({arguments}) r"
        )
        return query.encode(), [None if field is None else field.encode() for field in request.fields]


def scalar(function: str, *args: object) -> Call:
    return Call((Request(function, args),))


def array(items: Sequence) -> bytes:
    """An array literal; an element is quoted like a JSON string."""
    return ("{" + ",".join("NULL" if i is None else json.dumps(str(i)) for i in items) + "}").encode()


prepared: WeakKeyDictionary[psycopg.Connection, dict[bytes, bytes]] = WeakKeyDictionary()


def send(conn: psycopg.Connection, call: Call) -> None:
    send_prepared(conn, *call.statement())


def send_prepared(conn: psycopg.Connection, query: bytes, arguments: Sequence[bytes | None] = ()) -> None:
    """Each statement is planned once. psycopg would deallocate its own at each rollback, even at one to a
    savepoint, and with them these: it prepares none on this connection."""
    names = prepared.setdefault(conn, {})
    if query not in names:
        conn.prepare_threshold = None
        names[query] = f"proof_{len(names)}".encode()
        conn.pgconn.prepare(names[query], query)
    conn.pgconn.send_query_prepared(names[query], arguments)


def receive(conn: psycopg.Connection, call: Call) -> list[Response]:
    """A response for each request. If the call failed as a whole, each has its SQLSTATE."""
    responses: list[Response] = []
    while (result := conn.pgconn.get_result()) is not None:
        if result.status == ExecStatus.TUPLES_OK:
            responses = [parse(result.get_value(i, 0)) for i in range(result.ntuples)]
        else:
            responses = [result.error_field(DiagnosticField.SQLSTATE).decode()] * len(call.requests)
    return responses


def parse(text: bytes) -> Response:
    found = json.loads(text, parse_float=str)
    if not isinstance(found, dict):
        return {"expire_due": found}
    if found.get("sqlstate"):
        return found["sqlstate"]
    return {
        name: f"{Decimal(value):.2f}" if name in MONEY and value is not None else value
        for name, value in found.items()
        if name not in TIMES and name not in OF_THE_BATCH
    }


def execute(conn: psycopg.Connection, call: Call) -> list[Response]:
    send(conn, call)
    return receive(conn, call)
