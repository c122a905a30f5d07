"""All operations of the HTTP interface, a file a tag: the table that /openapi.json is made of.

Shapes are the Structs of api/schemas/, problems are those of api/problems.py. A test
(tests/api/test_openapi_examples.py) compares every example with the responses of a running server.
"""

from collections.abc import Mapping

from api.openapi.operation import Operation
from api.openapi.operations import health, holds, orders, payments, products

OPERATIONS: Mapping[tuple[str, str], Operation] = {
    **products.OPERATIONS,
    **holds.OPERATIONS,
    **orders.OPERATIONS,
    **payments.OPERATIONS,
    **health.OPERATIONS,
}
"""By method and path, without HEAD and OPTIONS."""
