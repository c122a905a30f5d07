"""`flashsale doctor`: the webhook secrets, the environment and the settings of the sale."""

import pytest

from flashsale.doctor import configuration
from tests.doctor.findings import SECRET, only, problems
from tests.support.buyer_tokens import HS256
from tests.support.provider_events import STRIPE_SECRET
from tests.support.sale_steps import create_product


def test_a_missing_secret_is_a_warning():
    assert problems(configuration.secrets, {}) == [
        ("warning", "FLASHSALE_WEBHOOK_SECRETS is not set here: webhooks cannot be verified")
    ]


@pytest.mark.parametrize("secret", ["hunter2", "whsec_short", "whsec_%%%%", f"{SECRET},whsec_"])
def test_an_invalid_secret_fails_and_is_not_printed(secret):
    ((status, said),) = problems(configuration.secrets, {"FLASHSALE_WEBHOOK_SECRETS": secret})
    assert (status, secret in said) == ("failed", False)


def test_secrets_are_counted():
    assert only(configuration.secrets, {"FLASHSALE_WEBHOOK_SECRETS": f"{SECRET},{SECRET}"}).detail.startswith(
        "2 "
    )


@pytest.mark.parametrize(
    ("environment", "finding"),
    [
        ({"FLASHSALE_CORS_ORIGINS": "shop.example"}, ("failed", "'shop.example' in FLASHSALE_CORS_ORIGINS")),
        ({"FLASHSALE_KEEPALIVE_SECONDS": "long"}, ("failed", "FLASHSALE_KEEPALIVE_SECONDS is 'long'")),
        ({"FLASHSALE_CORS_ORIGINS": "*"}, ("warning", "FLASHSALE_CORS_ORIGINS is *")),
        ({"FLASHSALE_BUYER_KEYS": "hs256:abc"}, ("failed", "key 1 in FLASHSALE_BUYER_KEYS must be hs256:")),
        ({"FLASHSALE_TRUST_BUYER": "maybe"}, ("failed", "FLASHSALE_TRUST_BUYER is 'maybe'")),
        ({"FLASHSALE_TRUST_BUYER": "1"}, ("warning", "FLASHSALE_TRUST_BUYER is set: any client of")),
    ],
)
def test_variables_of_the_server_are_examined(environment, finding):
    ((status, said),) = problems(configuration.server_environment, environment)
    assert (status, said[: len(finding[1])]) == finding


def test_variables_of_the_server_are_shown():
    assert only(configuration.server_environment, {}).detail == "idle connections are kept for 75 seconds"
    given = {"FLASHSALE_CORS_ORIGINS": "https://a.example", "FLASHSALE_KEEPALIVE_SECONDS": "620"}
    assert only(configuration.server_environment, given).detail == (
        "1 other origin in FLASHSALE_CORS_ORIGINS, idle connections are kept for 620 seconds"
    )


def test_buyer_keys_are_counted_and_not_printed():
    found = only(configuration.server_environment, {"FLASHSALE_BUYER_KEYS": f"{HS256},{HS256}"})
    assert found.detail == ("2 buyer keys in FLASHSALE_BUYER_KEYS, idle connections are kept for 75 seconds")


def test_the_settings_of_the_sale_are_printed(db):
    assert only(configuration.sale_settings, db, {}).detail == "hold time 2 min, payment window 15 min"


@pytest.mark.parametrize("change", ["'1 second'", "p_payment_window => '1 second'", "p_inbox_limit => 0"])
def test_settings_of_a_trial_are_a_warning(db, change):
    db.execute(f"select flashsale.change_settings({change})")
    ((status, _),) = problems(configuration.sale_settings, db, {})
    assert status == "warning"


def test_a_window_shorter_than_stripes_sessions_is_a_warning(db):
    stripe = {"FLASHSALE_STRIPE_SECRETS": STRIPE_SECRET}
    ((status, said),) = problems(configuration.sale_settings, db, stripe)
    assert (status, "Stripe's shortest Checkout Session" in said) == ("warning", True)
    db.execute(f"select flashsale.change_settings(p_payment_window => '{configuration.STRIPE_SESSION}')")
    assert only(configuration.sale_settings, db, stripe).status == "ok"


def test_secrets_of_providers_are_counted_and_examined():
    found = only(configuration.secrets, {"FLASHSALE_STRIPE_SECRETS": STRIPE_SECRET})
    assert found.detail == "1 webhook secret in FLASHSALE_STRIPE_SECRETS"
    # That of another scheme, and half a key.
    for wrong in ({"FLASHSALE_STRIPE_SECRETS": f"{SECRET}+/=="}, {"FLASHSALE_ADYEN_HMAC_KEYS": "abc"}):
        ((status, said),) = problems(configuration.secrets, wrong)
        assert (status, next(iter(wrong)) in said) == ("failed", True)


# test_products


def test_test_products_are_a_warning_until_they_are_removed(db):
    assert only(configuration.test_products, db).status == "ok"
    db.execute("select flashsale.create_product('Trial', 1, 1, p_is_test => true)")
    ((status, said),) = problems(configuration.test_products, db)
    assert status == "warning"
    assert "product 1:" in said
    db.execute("select flashsale.forget_tests()")
    assert only(configuration.test_products, db).status == "ok"


# sale_terms


def terms(db, **environment):
    return [(found.status, found.detail, found.remedy) for found in configuration.sale_terms(db, environment)]


def test_the_next_start_is_printed(db):
    create_product(db)
    assert terms(db) == [("ok", "no sale is scheduled", None)]
    create_product(db)
    db.execute("select flashsale.change_terms(array[2], now() + interval '130 minutes')")
    db.execute("select flashsale.change_terms(array[1], now() + interval '5 days')")
    ((status, detail, _),) = terms(db)
    assert status == "ok"
    assert detail.startswith("product 2 opens at ") and detail.endswith("Z, in 2 h")


def test_a_limit_without_buyers_is_a_warning(db):
    for _ in range(7):
        create_product(db)
    db.execute("select flashsale.change_terms(array[1, 2, 3, 4, 5, 6, 7], p_max_per_buyer => 2)")
    ((status, detail, _),) = terms(db)
    assert status == "warning"
    assert detail.startswith("products 1, 2, 3, 4, 5 and 2 more have a limit for each buyer, but")
    assert (
        terms(db, FLASHSALE_BUYER_KEYS=HS256)
        == terms(db, FLASHSALE_TRUST_BUYER="1")
        == [("ok", "no sale is scheduled", None)]
    )
    db.execute("select flashsale.change_terms(array[1, 2, 3, 4, 5, 6, 7], p_ends_at => now())")
    assert terms(db) == [("ok", "no sale is scheduled", None)]


def test_a_paused_sale_is_a_warning_until_it_is_resumed(db, flashsale):
    create_product(db)
    db.execute("select flashsale.pause_sale(array[1])")
    ((status, detail, remedy),) = terms(db)
    assert (status, detail) == ("warning", "product 1 has a paused sale")
    assert flashsale(*remedy.split()[1:]).exit_code == 0
    assert [found[0] for found in terms(db)] == ["ok"]


def test_a_sale_that_will_open_without_stock_is_a_warning(db):
    create_product(db, stock=0)
    db.execute("select flashsale.change_terms(array[1], now() + interval '1 day')")
    assert terms(db)[0][:2] == ("warning", "product 1 has a sale ahead, and no unit in stock")


# rejected_webhooks


def test_rejected_webhooks_fail_until_they_are_dismissed(db):
    assert only(configuration.rejected_webhooks, db).status == "ok"
    db.execute("select flashsale.change_settings(p_rejected_limit => 1)")
    db.execute("select flashsale.record_rejected_webhook('msg_1', '{', 'malformed_json', 'No JSON.')")
    ((status, said),) = problems(configuration.rejected_webhooks, db)
    assert status == "failed"
    assert said.startswith("1 may stand for captured money")
    assert "malformed_json; rejected_limit is 1" in said
    db.execute("select flashsale.dismiss_rejected_webhooks(array['msg_1'])")
    assert only(configuration.rejected_webhooks, db).status == "ok"
