"""`flashsale doctor`: the webhook secrets, the environment and the settings of the sale."""

import pytest

from flashsale.doctor import configuration
from tests.doctor.findings import SECRET, only, problems


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


def test_the_settings_of_the_sale_are_printed(db):
    assert only(configuration.sale_settings, db).detail == "hold time 2 min, payment window 15 min"


@pytest.mark.parametrize("change", ["'1 second'", "p_payment_window => '1 second'", "p_inbox_limit => 0"])
def test_settings_of_a_trial_are_a_warning(db, change):
    db.execute(f"select flashsale.change_settings({change})")
    ((status, _),) = problems(configuration.sale_settings, db)
    assert status == "warning"


# test_products


def test_test_products_are_a_warning_until_they_are_removed(db):
    assert only(configuration.test_products, db).status == "ok"
    db.execute("select flashsale.create_product('Trial', 1, 1, p_is_test => true)")
    ((status, said),) = problems(configuration.test_products, db)
    assert status == "warning"
    assert "product 1:" in said
    db.execute("select flashsale.forget_tests()")
    assert only(configuration.test_products, db).status == "ok"


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
