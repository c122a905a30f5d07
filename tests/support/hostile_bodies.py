"""Bodies as hostile clients write them."""

# No strict JSON (RFC 8259), whatever was asked for.
MALFORMED = [
    b"", b"  ", b"{", b'{"product_id":1,"qty":1', b'{"product_id":1,"qty":1}x', b'{"product_id":1,"qty":1}{}',
    b'{"product_id":1,"qty":1,}', b"{'product_id':1,'qty':1}", b'{"product_id":1,"qty":NaN}',
    b'{"product_id":Infinity,"qty":1}', b'{"product_id":-Infinity,"qty":1}', b'{"product_id":01,"qty":1}',
    b'{"product_id":+1,"qty":1}', b'{"product_id":1,"qty":1,"qty":1}',
    b'{"product_id":1,"qty":1,"q\\u0074y":2}', b'{"product_id":"x","product_id":1,"qty":1}',
    b'{"product_id":1,"qty":1,"note":{"a":1,"a":2}}', b'{"product_id":true,"qty":1',
    b'\xef\xbb\xbf{"product_id":1,"qty":1}', b'{"product_id":1,"qty":1,"\xff":1}',
    b'{"product_id":1,"qty":"\\ud800"}', b'{"product_id":1,"qty":"\xed\xa0\x80"}', "{}".encode("utf-16"),
    b"[" * 16_000, b'{"a":' * 3_000, b"[" * 100 + b"]" * 100,
]  # fmt: skip

# Not what makes a hold, and what the refusal names.
INVALID_HOLDS = [
    (b'{"product_id":true,"qty":1}', "product_id"),
    (b'{"product_id":1.0,"qty":1}', "product_id"),
    (b'{"product_id":1e0,"qty":1}', "product_id"),
    (b'{"product_id":"1","qty":1}', "product_id"),
    (b'{"product_id":null,"qty":1}', "product_id"),
    (b'{"product_id":[1],"qty":1}', "product_id"),
    (b'{"product_id":0,"qty":1}', "product_id"),
    (b'{"product_id":9223372036854775808,"qty":1}', "product_id"),
    (b'{"product_id":1' + b"0" * 300 + b',"qty":1}', "product_id"),
    (b'{"product_id":1,"qty":0}', "qty"),
    (b'{"product_id":1,"qty":-1}', "qty"),
    (b'{"product_id":1,"qty":2147483648}', "qty"),
    (b'{"product_id":1}', "qty"),
    (b'{"product_id":1,"qty":1,"colour":"red"}', "colour"),
    (b"[]", "object"),
    (b"null", "object"),
    (b"1", "object"),
    (b'"{}"', "object"),
]

# What a webhook may not bring beside what it must, and the code of the refusal.
UNKEEPABLE_MEMBERS = [
    (b'"x":1e999999', "invalid_request"),
    (b'"x":-1e400', "invalid_request"),
    (b'"x":1e-999999', "invalid_request"),
    (b'"x":1' + b"0" * 5000, "invalid_request"),
    (b'"amount":-1', "invalid_request"),
    (b'"amount":[99]', "invalid_request"),
    (b'"amount":true', "invalid_request"),
    (b'"currency":840', "invalid_request"),
    (b'"status":"refunded"', "malformed_json"),  # a second status
    (b'"x":"\xff"', "malformed_json"),
    (b'"x":NaN', "malformed_json"),
    (b'"x":{"y":1,"y":2}', "malformed_json"),
]
