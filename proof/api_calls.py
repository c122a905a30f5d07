"""The API's requests, each with its effect in the ledger and the database connection that serves it."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC

import psycopg

from tests.support.sale_steps import create_product, order, place_hold

numbers = itertools.count(1)


@dataclass(frozen=True)
class ApiCall:
    """One request.

    :param served: the status of success
    :param event: the kind of event that its effect writes; None if it reads
    :param subject: the column and value that find that event
    :param replays: sent again once it was done, it is answered as a replay
    :param again: otherwise, the status when it is sent again once it was done
    """

    method: str
    path: str
    body: dict[str, object] | None = None
    key: str | None = None
    served: int = 200
    event: str | None = None
    subject: tuple[str, int] = ("", 0)
    replays: bool = False
    again: int | None = None


MakeCall = Callable[[psycopg.Connection], ApiCall]


def new_product(db: psycopg.Connection) -> int:
    return create_product(db, stock=1000)


def hold(db: psycopg.Connection) -> ApiCall:
    product = new_product(db)
    return ApiCall(
        "POST", "/api/holds", {"product_id": product, "qty": 1}, f"hold-{next(numbers)}", 201,
        "hold_placed", ("product_id", product), replays=True,
    )  # fmt: skip


def hold_without_key(db: psycopg.Connection) -> ApiCall:
    return replace(hold(db), key=None, replays=False)


def create_order(db: psycopg.Connection) -> ApiCall:
    hold = place_hold(db, new_product(db))
    return ApiCall(
        "POST", "/api/orders", {"hold_id": hold}, f"order-{next(numbers)}", 201,
        "order_created", ("hold_id", hold), replays=True,
    )  # fmt: skip


def order_without_key(db: psycopg.Connection) -> ApiCall:
    return replace(create_order(db), key=None, replays=False, again=409)


def release(db: psycopg.Connection) -> ApiCall:
    hold = place_hold(db, new_product(db))
    return ApiCall("DELETE", f"/api/holds/{hold}", None, None, 204, "hold_released", ("hold_id", hold))


def extension(db: psycopg.Connection) -> ApiCall:
    hold = place_hold(db, new_product(db))
    (expires_at,) = db.execute("select expires_at from flashsale.get_hold(%s)", (hold,)).fetchone()
    seen = expires_at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return ApiCall(
        "POST", f"/api/holds/{hold}/extension", {"expires_at": seen}, None, 200,
        "hold_extended", ("hold_id", hold), replays=True,
    )  # fmt: skip


def abandonment(db: psycopg.Connection) -> ApiCall:
    path = read_order(db).path
    order_id = int(path.removeprefix("/api/orders/").partition("?")[0])
    return ApiCall("DELETE", path, None, None, 204, "order_cancelled", ("order_id", order_id))


def _webhook(order_id: int, served: int, event: str, status: str) -> ApiCall:
    body = {"idempotency_key": f"pay-{next(numbers)}", "order_id": order_id, "status": status}
    subject = ("order_id", order_id)
    return ApiCall("POST", "/api/payments/webhook", body, None, served, event, subject, replays=True)


def payment(db: psycopg.Connection) -> ApiCall:
    return _webhook(order(db, new_product(db)), 200, "order_paid", "success")


def failed_payment(db: psycopg.Connection) -> ApiCall:
    return _webhook(order(db, new_product(db)), 200, "order_cancelled", "failed")


def stored_payment(db: psycopg.Connection) -> ApiCall:
    return _webhook(10**9 + next(numbers), 202, "payment_stored", "success")


def read_product(db: psycopg.Connection) -> ApiCall:
    return ApiCall("GET", f"/api/products/{new_product(db)}")


def list_products(db: psycopg.Connection) -> ApiCall:
    return ApiCall("GET", "/api/products")


def read_hold(db: psycopg.Connection) -> ApiCall:
    return ApiCall("GET", f"/api/holds/{place_hold(db, new_product(db))}")


def read_order(db: psycopg.Connection) -> ApiCall:
    hold = place_hold(db, new_product(db))
    made = db.execute("select order_id from flashsale.create_order(%s)", (hold,)).fetchone()[0]
    return ApiCall("GET", f"/api/orders/{made}?hold_id={hold}")


def read_allowance(db: psycopg.Connection) -> ApiCall:
    return ApiCall("GET", f"/api/products/{new_product(db)}/allowance?buyer=ada")


def readiness(db: psycopg.Connection) -> ApiCall:
    return ApiCall("GET", "/readyz")


POOL = "flashsale pool"
CONNECTIONS: dict[MakeCall, str] = {
    hold: "flashsale place_holds fast", hold_without_key: "flashsale place_holds fast",
    create_order: "flashsale create_orders fast", order_without_key: "flashsale create_orders fast",
    release: "flashsale release_holds fast", payment: "flashsale apply_payments fast",
    extension: "flashsale extend_holds fast", abandonment: "flashsale abandon_orders fast",
    failed_payment: "flashsale apply_payments fast", stored_payment: "flashsale apply_payments fast",
    read_product: "flashsale get_products read", read_hold: "flashsale get_holds read",
    read_order: "flashsale get_orders read",
    read_allowance: "flashsale get_allowances read", list_products: POOL, readiness: POOL,
}  # fmt: skip
"""the application_name of the connection that serves each"""
