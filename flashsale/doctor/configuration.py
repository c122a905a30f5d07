"""What operators configure: webhook secrets, the server's environment and the settings of the sale."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from api.cross_origin import ANY_ORIGIN
from api.settings import (
    InvalidSettings,
    parse_adyen_keys,
    parse_buyer_keys,
    parse_cors_origins,
    parse_flag,
    parse_keepalive,
    parse_stripe_secrets,
)
from flashsale.database.connection import Connection, fetch_row
from flashsale.doctor.finding import Finding, Findings
from flashsale.durations import format_duration
from flashsale.errors import UserError
from flashsale.webhooks import SECRETS_VARIABLE, webhook_secrets

STRIPE_SECRETS = "FLASHSALE_STRIPE_SECRETS"
ADYEN_KEYS = "FLASHSALE_ADYEN_HMAC_KEYS"
STRIPE_SESSION = timedelta(minutes=30)
"""the shortest Checkout Session: https://docs.stripe.com/api/checkout/sessions/create"""
BUYER_KEYS = "FLASHSALE_BUYER_KEYS"
TRUST_BUYER = "FLASHSALE_TRUST_BUYER"


def secrets(environment: Mapping[str, str]) -> Findings:
    try:
        counts = {
            SECRETS_VARIABLE: len(webhook_secrets(environment)),
            STRIPE_SECRETS: len(parse_stripe_secrets(environment.get(STRIPE_SECRETS, ""))),
            ADYEN_KEYS: len(parse_adyen_keys(environment.get(ADYEN_KEYS, ""))),
        }
    except (UserError, InvalidSettings) as error:
        yield Finding("secrets", "failed", str(error), "copy the secret from the payment provider again")
        return
    found = [
        f"{count} webhook secret{'s' if count > 1 else ''} in {name}"
        for name, count in counts.items()
        if count
    ]
    if found:
        yield Finding("secrets", "ok", ", ".join(found))
    else:
        yield Finding(
            "secrets", "warning", f"{SECRETS_VARIABLE} is not set here: webhooks cannot be verified",
            "set it for the server (and here) to the payment provider's secret before the sale, or"
            f" {STRIPE_SECRETS} or {ADYEN_KEYS}",
        )  # fmt: skip


def rejected_webhooks(conn: Connection) -> Findings:
    count, since, codes, limit = fetch_row(
        conn,
        "select count(*), min(r.first_seen_at), string_agg(distinct r.code, ', '),"
        " (select s.rejected_limit from flashsale.settings s) from flashsale.rejected_webhooks r",
    )
    if not count:
        yield Finding("rejected_webhooks", "ok", "no refused webhook stands for captured money")
        return
    detail = f"{count} may stand for captured money, since {since:%Y-%m-%d %H:%M:%SZ}: {codes}"
    if count >= limit:
        detail += f"; rejected_limit is {limit}: further ones are not kept"
    remedy = "see view flashsale.rejected_webhooks and docs/operations.md, 'Webhooks are rejected'"
    yield Finding("rejected_webhooks", "failed", detail, remedy)


def test_products(conn: Connection) -> Findings:
    (ids,) = fetch_row(
        conn,
        "select array_agg(s.product_id order by s.product_id)"
        " from flashsale.list_stock(p_tests => true) s where s.is_test",
    )
    if ids is None:
        yield Finding("test_products", "ok", "there are none")
        return
    names = f"product{'s' if len(ids) > 1 else ''} {', '.join(map(str, ids))}"
    detail = f"{names}: of a rehearsal that is running, or left over"
    yield Finding(
        "test_products", "warning", detail, "once no rehearsal is running: flashsale product forget-tests"
    )


def server_environment(environment: Mapping[str, str]) -> Findings:
    """Variables that the server does without, and with which it does not start if they are wrong."""
    try:
        origins = parse_cors_origins(environment.get("FLASHSALE_CORS_ORIGINS", ""))
        keepalive = parse_keepalive(environment.get("FLASHSALE_KEEPALIVE_SECONDS", ""))
        keys = len(parse_buyer_keys(environment.get(BUYER_KEYS, "")))
        trusts_callers = parse_flag(TRUST_BUYER, environment)
    except InvalidSettings as error:
        yield Finding(
            "environment", "failed", str(error),
            "correct the variable, for the server too, which does not start with it",
        )  # fmt: skip
        return
    if origins == (ANY_ORIGIN,):
        yield Finding(
            "environment", "warning", "FLASHSALE_CORS_ORIGINS is *: pages of every site can place holds",
            "list the origins of the shop's front ends instead",
        )  # fmt: skip
        return
    if trusts_callers:
        yield Finding(
            "environment", "warning",
            f"{TRUST_BUYER} is set: any client of the server can name any buyer, and so avoid every limit",
            f"let only your own servers reach it, or verify tokens with {BUYER_KEYS} instead",
        )  # fmt: skip
        return
    count = len(origins)
    detail = f"{count} other origin{'s' if count > 1 else ''} in FLASHSALE_CORS_ORIGINS, " if count else ""
    detail += f"{keys} buyer key{'s' if keys > 1 else ''} in {BUYER_KEYS}, " if keys else ""
    yield Finding("environment", "ok", f"{detail}idle connections are kept for {keepalive} seconds")


def sale_settings(conn: Connection, environment: Mapping[str, str]) -> Findings:
    hold_time, payment_window, inbox_limit = fetch_row(
        conn, "select hold_time, payment_window, inbox_limit from flashsale.settings"
    )
    detail = f"hold time {format_duration(hold_time)}, payment window {format_duration(payment_window)}"
    if hold_time < timedelta(seconds=10) or payment_window < timedelta(minutes=1):
        remedy = "flashsale psql -c \"select flashsale.change_settings('2 minutes', '15 minutes')\""
        yield Finding("sale_settings", "warning", f"{detail}: too short for buyers", remedy)
    elif environment.get(STRIPE_SECRETS) and payment_window < STRIPE_SESSION:
        detail += ": shorter than Stripe's shortest Checkout Session, so that payments come late"
        remedy = "flashsale psql -c \"select flashsale.change_settings(p_payment_window => '35 minutes')\""
        yield Finding("sale_settings", "warning", detail, remedy)
    elif inbox_limit == 0:
        remedy = 'flashsale psql -c "select flashsale.change_settings(p_inbox_limit => 10000)"'
        yield Finding("sale_settings", "warning", "inbox_limit is 0: early webhooks are refused", remedy)
    else:
        yield Finding("sale_settings", "ok", detail)


def sale_terms(conn: Connection, environment: Mapping[str, str]) -> Findings:
    """The terms of products whose sale has not ended, as far as they may be a mistake."""
    limited, paused, empty = fetch_row(
        conn,
        "select array_agg(t.product_id order by t.product_id) filter (where t.max_per_buyer is not null),"
        " array_agg(t.product_id order by t.product_id) filter (where t.sale_status = 'paused'),"
        " array_agg(t.product_id order by t.product_id)"
        "   filter (where t.sale_status = 'scheduled' and s.available_stock = 0)"
        " from flashsale.terms t join flashsale.stock s using (product_id)"
        " where t.sale_status in ('scheduled', 'open', 'paused')",
    )
    is_sound = True
    if limited and not environment.get(BUYER_KEYS) and not environment.get(TRUST_BUYER):
        is_sound = False
        yield Finding(
            "sale_terms", "warning",
            f"{_products(limited)} a limit for each buyer, but {BUYER_KEYS} is not set here: over HTTP no "
            "request has a buyer, and all are refused",
            f"set {BUYER_KEYS} for the server (and here) to the key of the shop's tokens",
        )  # fmt: skip
    if paused:
        is_sound = False
        remedy = f"flashsale product resume {' '.join(map(str, paused))}"
        yield Finding("sale_terms", "warning", f"{_products(paused)} a paused sale", remedy)
    if empty:
        is_sound = False
        remedy = f"flashsale product restock {empty[0]} UNITS"
        yield Finding(
            "sale_terms", "warning", f"{_products(empty)} a sale ahead, and no unit in stock", remedy
        )
    if is_sound:
        yield Finding("sale_terms", "ok", _next_start(conn))


def _products(ids: Sequence[int]) -> str:
    listed = ", ".join(map(str, ids[:5])) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
    return f"product {listed} has" if len(ids) == 1 else f"products {listed} have"


def _next_start(conn: Connection) -> str:
    row = conn.execute(
        "select t.product_id, t.starts_at at time zone 'UTC', t.starts_at - t.now from flashsale.terms t"
        " where t.sale_status = 'scheduled' order by t.starts_at, t.product_id limit 1"
    ).fetchone()
    if row is None:
        return "no sale is scheduled"
    product_id, starts_at, starts_in = row
    return f"product {product_id} opens at {starts_at:%Y-%m-%d %H:%M:%SZ}, in {format_duration(starts_in)}"
