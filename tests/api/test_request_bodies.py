"""Bodies, ids and idempotency keys of hostile clients."""

import json
from collections.abc import Callable
from typing import Any

import falcon.testing
import pytest

from api.problems import HOLD_NOT_FOUND, Problem
from api.schemas.fields import MAX_HOLD_ID
from api.schemas.parameters import idempotency_key, parse_id
from api.schemas.requests import parse_new_hold, parse_new_order, parse_payment_event
from tests.support.hostile_bodies import INVALID_HOLDS, MALFORMED, UNKEEPABLE_MEMBERS


def problem(parse: Callable[..., Any], *arguments: Any) -> tuple[int, str, str]:
    with pytest.raises(Problem) as raised:
        parse(*arguments)
    return raised.value.type.status, raised.value.type.code, raised.value.detail


def test_a_hold_and_an_order_are_parsed() -> None:
    hold = parse_new_hold(b' { "qty" : 2 , "product_id" : 9223372036854775807 } ')
    assert (hold.product_id, hold.qty) == (2**63 - 1, 2)
    assert parse_new_order(b'{"hold_id":9007199254740991}').hold_id == 2**53 - 1


@pytest.mark.parametrize("name", ["ann", "Zo\u00eb", 'a "b"', "\\u0000", "\U0001f600"])
def test_a_buyer_is_parsed(name: str) -> None:
    for data in (json.dumps(name), json.dumps(name, ensure_ascii=False)):
        assert parse_new_hold(f'{{"product_id":1,"qty":2,"buyer":{data}}}'.encode()).buyer == name


@pytest.mark.parametrize(
    ("members", "code"),
    [
        (b'"buyer":"a\\u0000"', "invalid_request"),
        (b'"buyer":"\\ud83d"', "malformed_json"),
        (b'"buyer":"\xed\xa0\xbd"', "malformed_json"),
        (b'"buyer":"a","buyer":"a"', "malformed_json"),
        (b'"buyer":"a","qty":2', "malformed_json"),
    ],
)
def test_a_buyer_that_postgresql_cannot_store_or_twice_is_refused(members: bytes, code: str) -> None:
    assert problem(parse_new_hold, b'{"product_id":1,"qty":2,' + members + b"}")[1] == code


@pytest.mark.parametrize("data", MALFORMED)
def test_data_that_is_not_strict_json_is_malformed(data: bytes) -> None:
    assert problem(parse_new_hold, data)[:2] == (400, "malformed_json")
    if b"\\ud800" not in data:  # an unknown member of a hold is kept with a webhook
        assert problem(parse_payment_event, data)[:2] == (400, "malformed_json")


@pytest.mark.parametrize(("data", "member"), INVALID_HOLDS)
def test_wrong_types_members_and_ranges_are_invalid_and_named(data: bytes, member: str) -> None:
    status, code, detail = problem(parse_new_hold, data)
    assert (status, code) == (422, "invalid_request")
    assert member in detail


def test_integers_too_long_for_python_are_invalid() -> None:
    data = b'{"product_id":1' + b"0" * 10_000 + b',"qty":1}'
    assert problem(parse_new_hold, data)[0] == 422


def test_a_webhooks_other_members_keep_their_digits() -> None:
    event = parse_payment_event(
        b'{"idempotency_key":"pay_1","order_id":99,"status":"success","amount":"99.00","currency":"USD",'
        b'"fee":0.10000000000000000001,"card":{"last4":"4242","name":"Zo\xc3\xab \\"Z\\" \\u00eb"},"n":null}'
    )
    assert (event.idempotency_key, event.order_id, event.status) == ("pay_1", 99, "success")
    assert json.loads(event.payload).keys() == {"amount", "currency", "fee", "card", "n"}
    assert "0.10000000000000000001" in event.payload
    assert not event.has_replacements


@pytest.mark.parametrize(
    ("member", "kept"),
    [
        (b'"x":"a\\u0000b"', {"x": "a\ufffdb"}),
        (b'"x":{"y":["a\\u0000b"]}', {"x": {"y": ["a\ufffdb"]}}),
        (b'"a\\u0000b":1', {"a\ufffdb": 1}),
        (b'"x":"Zo\\u00eb \\ud83d"', {"x": "Zo\u00eb \ufffd"}),
        (b'"x":"\\udc00\\ud800"', {"x": "\ufffd\ufffd"}),
        (b'"x":"\\uD83D\\uDE00\\ud83d"', {"x": "\U0001f600\ufffd"}),
        (b'"x":"\\\\u0000 \\\\\\u0000"', {"x": "\\u0000 \\\ufffd"}),
    ],
)
def test_what_postgresql_cannot_store_of_the_other_members_is_replaced(
    member: bytes, kept: dict[str, Any]
) -> None:
    event = parse_payment_event(b'{"idempotency_key":"k","order_id":1,"status":"success",' + member + b"}")
    assert event.has_replacements
    assert json.loads(event.payload) == kept


@pytest.mark.parametrize("key", [b"k\\u0000", b"k\\ud83d"])
def test_a_key_that_postgresql_cannot_store_is_refused(key: bytes) -> None:
    data = b'{"idempotency_key":"' + key + b'","order_id":1,"status":"success"}'
    assert problem(parse_payment_event, data)[1:] == (
        "invalid_request",
        "idempotency_key contains NUL or a lone surrogate.",
    )


@pytest.mark.parametrize(
    ("text", "order_id"),
    [(b'"99"', 99), (b'"0099"', 99), (b'"9223372036854775807"', 2**63 - 1), (b"99", 99)],
)
def test_a_webhook_names_its_order_by_a_number_or_by_digits(text: bytes, order_id: int) -> None:
    data = b'{"idempotency_key":"k","status":"success","order_id":' + text + b"}"
    assert parse_payment_event(data).order_id == order_id


@pytest.mark.parametrize(
    "text",
    [b'""', b'"0"', b'"-1"', b'" 1"', b'"1.0"', b'"1e3"', b'"1\\n"', b'"9223372036854775808"', b"0", b"1.0",
     '"\u0661"'.encode(), b"null", b"true", b"[]"],
)  # fmt: skip
def test_other_spellings_of_an_order_are_invalid(text: bytes) -> None:
    data = b'{"idempotency_key":"k","status":"success","order_id":' + text + b"}"
    assert problem(parse_payment_event, data)[:2] == (422, "invalid_request")


def test_an_amount_is_passed_on_as_it_is_written() -> None:
    for text in (b'"99.00"', b"99.00", b"0.10000000000000000001", b"99", b"null"):
        data = b'{"idempotency_key":"k","order_id":1,"status":"success","amount":' + text + b"}"
        assert parse_payment_event(data).payload == '{"amount":' + text.decode() + "}"


def test_a_large_body_with_a_late_duplicate_is_refused_quickly() -> None:
    names = b",".join(b'"%d":0' % number for number in range(30_000))
    data = b"{" + names + b',"29999":1}'
    assert problem(parse_payment_event, data)[1] == "malformed_json"


@pytest.mark.parametrize(("member", "code"), UNKEEPABLE_MEMBERS)
def test_a_webhook_payload_that_postgresql_cannot_store_is_refused(member: bytes, code: str) -> None:
    data = b'{"idempotency_key":"k","order_id":1,"status":"success",' + member + b"}"
    assert problem(parse_payment_event, data)[1] == code


@pytest.mark.parametrize(
    "member", [b'"x":"\\\\u0000"', b'"x":"\\ud83d\\ude00"', b'"x":1e308', b'"x":0e-9', b'"x":0.0']
)
def test_harmless_escapes_and_numbers_are_accepted(member: bytes) -> None:
    event = parse_payment_event(b'{"idempotency_key":"k","order_id":1,"status":"failed",' + member + b"}")
    assert (event.status, event.has_replacements) == ("failed", False)


@pytest.mark.parametrize(("text", "expected"), [("1", 1), ("9007199254740991", 2**53 - 1), ("42", 42)])
def test_ids_in_paths_are_decimal(text: str, expected: int) -> None:
    assert parse_id(text, HOLD_NOT_FOUND, MAX_HOLD_ID) == expected


@pytest.mark.parametrize(
    "text",
    ["", "0", "-1", "+1", "01", "1.0", "1e3", "abc", " 1", "1_0", "٣", "²", "9007199254740992", "9" * 30],
)
def test_an_invalid_id_is_not_found(text: str) -> None:
    status, code, detail = problem(parse_id, text, HOLD_NOT_FOUND, MAX_HOLD_ID)
    assert (status, code, detail) == (404, "hold_not_found", f"{text!r} is not a valid id.")


@pytest.mark.parametrize("key", ["a", "~" * 255, '"quoted\\"', "{a,b}", "NULL"])
def test_an_idempotency_key_is_visible_ascii(key: str) -> None:
    req = falcon.testing.create_asgi_req(headers={"Idempotency-Key": key})
    assert idempotency_key(req) == key


@pytest.mark.parametrize("key", ["", "a b", "é", "\x7f", "x" * 256])
def test_other_idempotency_keys_are_invalid(key: str) -> None:
    req = falcon.testing.create_asgi_req(headers={"Idempotency-Key": key})
    assert problem(idempotency_key, req)[:2] == (422, "invalid_request")
