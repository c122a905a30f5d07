"""What hostile callers pass to SQL functions, and how a function may answer.

The functions and their argument types come from the catalog, so a new function is tried without being named.
"""

import json
from collections.abc import Iterable
from typing import NamedTuple

import psycopg

from tests.support import ROOT

FUNCTIONS = sorted(
    path.stem for folder in ("public", "operators") for path in (ROOT / "sql" / folder).glob("*.sql")
)

INTEGERS = ["0", "1", "-1", "2", "3", "7", "1000", "1001", "32768", "2147483647", "-2147483648"]
TEXTS = [
    "", " ", "\t\n", "x", "success", "failed", "cancelled", "SUCCESS", "USD", "JPY", "usd", "XXXX", "pay",
    "stored", "x" * 200, "x" * 201, "x" * 255, "x" * 256, "x" * 100_000, "🦶" * 255, "é", "e\u0301",
    "\u202eevil", "\ufeff", "\u00a0", "\U0010ffff", "\x01\x7f", "'; drop schema flashsale_data cascade; --",
    "%s %", "{1,2}", "$1", "\\", "null",
]  # fmt: skip
PAYLOADS = [
    "null", "1", "true", '"x"', "[]", "{}", "[{}]", '{"": 1}',
    '{"amount": 1}', '{"amount": null}', '{"amount": ""}', '{"amount": "NaN"}', '{"amount": "1e5"}',
    '{"amount": "Infinity"}', '{"amount": "-1"}', '{"amount": "99.00"}', '{"amount": "99.00\\n"}',
    '{"amount": "999999999999999.999999"}', '{"amount": "9999999999999999"}', '{"amount": ["99.00"]}',
    '{"amount": "٩٩"}', '{"amount": "99.00", "currency": "USD"}', '{"amount": "0", "currency": "EUR"}',
    '{"currency": "usd"}', '{"currency": null}', '{"currency": {}}', '{"currency": "US\\u0130"}',
    '{"status": "success", "order_id": 1, "idempotency_key": "other"}',
    '{"deep": ' + "[" * 1000 + "]" * 1000 + "}",
    '{"number": 1e1000, "small": 1e-1000}',
    json.dumps({"long": "x" * 200_000}), json.dumps({f"member {n}": n for n in range(1000)}),
]  # fmt: skip
HOSTILE = {
    "boolean": ["true", "false", "t", "0", "2", "yes", "", "maybe", "\u00bd"],
    "integer": [*INTEGERS, "2147483648", "1.5", "", "NaN", "0x10", "ten"],
    "bigint": [
        *INTEGERS, "4294967296", "9007199254740991", "9007199254740992", "9223372036854775807",
        "-9223372036854775808", "9223372036854775808", "1e3", "",
    ],
    "numeric": [
        "0", "-0", "1", "99.00", "0.005", "0.01", "-0.01", "999999999999.99", "999999999999.999",
        "1000000000000", "1e100000", "1e-16383", "NaN", "Infinity", "-Infinity", "", "1,5", "9" * 400,
    ],
    "text": TEXTS,
    "jsonb": [*PAYLOADS, "", "{", '{"a": NaN}', '"\\u0000"'],
    "uuid": ["00000000-0000-0000-0000-000000000000", "", "x", "{}"],
    "bytea": ["", "\\x", "\\x00ff", "{}", "\\xg", "x" * 300_000],
    "timestamp with time zone": [
        "infinity", "-infinity", "epoch", "now", "2000-01-01 00:00Z", "2030-01-01 12:00+14",
        "1969-12-31 23:59Z",
        "9998-12-31 23:59Z", "9999-01-01 00:00Z", "294276-12-31 23:59:59.999999Z", "4713-01-01 00:00 BC",
        "2030-01-01", "24:00", "",
    ],
    "interval": [
        "0", "1 microsecond", "-1 microsecond", "99 milliseconds", "1 second", "2 minutes", "1 day",
        "30 days", "1 month", "1 year", "100 years", "101 years", "-12 months 360 days",
        "12 months -360 days", "1 day -25 hours",
        "178000000 years", "-178000000 years", "178000000 years -65000000000 days", "2147483647 days",
        "9223372036854 seconds", "-9223372036854 seconds", "P1Y", "", "soon",
    ],
}  # fmt: skip
# What an array may look like besides one element a request.
SHAPES = [None, "{}", "{NULL}", "{NULL,NULL}", "{{NULL},{NULL}}", "[0:1]={NULL,NULL}", "[2:2]={NULL}"]
SHAPES += ["{" + ",".join(["NULL"] * count) + "}" for count in (1000, 1001, 5000)]

# Values by which each argument on its own is sane, so that the hostile one gets as deep as it can.
SANE = {
    "p_product_id": "1", "p_qty": "1", "p_idempotency_key": "a key", "p_hold_id": "@held", "p_order_id": "1",
    "p_status": "success", "p_payload": "{}", "p_after": "0", "p_limit": "10", "p_name": "Sneaker",
    "p_tests": "true", "p_is_test": "false",
    "p_stock": "5", "p_price": "99.00", "p_currency": "USD", "p_delta": "1", "p_older_than": "1 day",
    "p_hold_time": "1 minute", "p_payment_window": "1 minute", "p_inbox_limit": "100",
    "p_inbox_keep": "1 hour", "p_rejected_limit": "100",
    "p_extension_time": "1 minute", "p_max_extensions": "1",
    "p_starts_at": "2000-01-01 00:00Z", "p_ends_at": "2099-01-01 00:00Z", "p_max_per_buyer": "2",
    "p_limit_group": "shoe", "p_listed": "true", "p_max_per_hold": "2",
    "p_buyer": "ann", "p_buyers": "ann",
    "p_expires_at": "2099-01-01 00:00Z", "p_expires_ats": "2099-01-01 00:00Z",
    "p_failure": "53200: out of memory",
    "p_webhook_id": "msg_1", "p_body": "{}", "p_code": "invalid_request", "p_detail": "Why.",
    "p_webhook_ids": "msg_2", "p_bodies": "{}", "p_codes": "invalid_request", "p_details": "Why.",
    "p_request_nos": "1", "p_product_ids": "1", "p_qtys": "1", "p_idempotency_keys": "another key",
    "p_refund_key": "re_1", "p_payment_key": "paying", "p_amount": "1.00", "p_kind": "refund",
    "p_refund_keys": "re_2", "p_payment_keys": "paying", "p_amounts": "1.00", "p_kinds": "refund",
    "p_restock": "true", "p_restocks": "true", "p_refund_total": "0", "p_await_payment": "true",
    "p_slots": "4", "p_owned": "1", "p_slot": "0", "p_table_name": "holds", "p_part": "0", "p_rows": "{}",
    "p_move_id": "00000000-0000-0000-0000-000000000000", "p_count": "1000",
    "p_hold_ids": "@held", "p_order_ids": "1", "p_statuses": "success", "p_payloads": "{}",
}  # fmt: skip


class Function(NamedTuple):
    """A function or procedure that others may call, with its arguments' names and types."""

    name: str
    is_procedure: bool
    names: list[str]
    types: list[str]

    def statement(self, placeholders: Iterable[str]) -> str:
        """A call of it."""
        casts = ", ".join(
            f"{placeholder}::{kind}" for placeholder, kind in zip(placeholders, self.types, strict=True)
        )
        return f"{'call' if self.is_procedure else 'select * from'} flashsale.{self.name}({casts})"


def of_catalog(db: psycopg.Connection, name: str) -> Function:
    """The function of that name."""
    row = db.execute(
        "select p.prokind = 'p', coalesce(p.proargnames[1:p.pronargs], '{}'),"
        " array(select format_type(t, null) from unnest(p.proargtypes) t)"
        " from pg_proc p where p.pronamespace = 'flashsale'::regnamespace and p.proname = %s",
        (name,),
    ).fetchone()
    return Function(name, *row)


def literal(values: Iterable[str | None]) -> str:
    """An array in PostgreSQL's notation."""
    quoted = (
        "NULL" if v is None else '"' + v.replace("\\", "\\\\").replace('"', '\\"') + '"' for v in values
    )
    return "{" + ",".join(quoted) + "}"


def check_error(
    sqlstate: str, message: str | None, detail: str | None, context: str | None, told: object = ""
) -> None:
    """An error must be a refusal in words, or that of a value which is none of its type: such a one never
    gets as far as the function."""
    at_the_call = sqlstate[:2] in ("22", "42", "54") and "function" not in (context or "")
    assert sqlstate.startswith("SA") or at_the_call, (sqlstate, message, context, told)
    assert at_the_call or (message and detail), (sqlstate, message, detail, told)


def check_row(sqlstate: str | None, detail: str | None) -> None:
    """A row of a set-based function must be served, or refused in words."""
    assert sqlstate is None or (sqlstate.startswith("SA") and detail), (sqlstate, detail)
