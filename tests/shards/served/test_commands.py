"""The commands over two shards."""

import json
from collections.abc import Callable
from typing import Any

import click
import psycopg
import pytest
from click.testing import Result

from flashsale.cli.main import main
from flashsale.cli.up import up
from flashsale.local.cluster import Cluster
from flashsale.shards.commands import RULES
from tests.shards.served.shop import NAMES, Shop
from tests.support.database import needs_pg_cron, unreachable
from tests.support.sale_steps import order, pay
from tests.support.sql_calls import row, rows, value

Run = Callable[..., Result]
A, B = NAMES.values()


def leaves(group: click.Group, path: str = "") -> list[str]:
    found = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += leaves(command, f"{path}{name} ")
        else:
            found.append(f"{path}{name}")
    return found


def test_each_command_has_a_rule_for_several_databases() -> None:
    without = {"completion", "destroy", "shard list", "shard add", "shard move"}
    assert set(leaves(main)) == without | set(RULES)


def test_commands_without_several_databases_have_no_shards(shop: Shop, flashsale: Run) -> None:
    one = {"FLASHSALE_DATABASE_URL": shop.url("a"), "FLASHSALE_DATABASE_URLS": ""}
    for command in RULES:
        assert "--shard" not in flashsale(*command.split(), "--help", **one).output
        assert "--shard" in flashsale(*command.split(), "--help").output
    assert up.callback is not None


def test_the_list_of_shards(shop: Shop, flashsale: Run) -> None:
    shop.product(0, 10)
    shop.product(3, 5)
    shop.product(3, 7)
    result = flashsale("shard", "list")
    assert result.exit_code == 0, result.output
    heading, first, second = result.stdout.splitlines()
    assert heading.split() == ["shard", "address", "slots", "products", "units", "schema", "lag"]
    assert first.split()[0] == A and "0-1 of 4" in first and " 1 " in first and " 10 " in first
    assert second.split()[0] == B and "2-3 of 4" in second and " 2 " in second and " 12 " in second
    found = json.loads(flashsale("shard", "list", "--json").stdout)
    assert found["problems"] == []
    assert [(each["shard"], each["owned"], each["units"]) for each in found["shards"]] == [
        (A, [0, 1], 10), (B, [2, 3], 12),
    ]  # fmt: skip


def test_the_list_shows_no_password(shop: Shop, flashsale: Run) -> None:
    urls = shop.urls(b=shop.url("b").replace("postgres@", "postgres:secret@"))
    result = flashsale("shard", "list", FLASHSALE_DATABASE_URLS=urls)
    assert result.exit_code == 0
    assert "secret" not in result.output
    assert "secret" not in flashsale("shard", "list", "--json", FLASHSALE_DATABASE_URLS=urls).output


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("owned = '{3}'", "no shard owns slots 2"),
        ("owned = '{0,2,3}'", "slots 0 are owned by flashsale_a and flashsale_b"),
        ("slots = 8", "the numbers of slots differ: flashsale_a 4, flashsale_b 8"),
    ],
)
def test_the_list_and_doctor_find_what_is_wrong_with_the_whole(
    shop: Shop, flashsale: Run, change: str, problem: str
) -> None:
    shop.b.execute(f"update flashsale_data.shard set {change}")
    result = flashsale("shard", "list")
    assert (result.exit_code, problem in result.output) == (1, True), result.output
    assert [finding["detail"] for finding in failed(flashsale, "slots") if problem in finding["detail"]]


def test_the_list_names_a_shard_that_is_down(shop: Shop, flashsale: Run) -> None:
    with unreachable(shop.b):
        result = flashsale("shard", "list")
    assert result.exit_code == 1
    assert "not reachable" in result.output
    assert f"{B}: cannot connect to the database" in result.output


def failed(flashsale: Run, check: str) -> list[dict[str, Any]]:
    """What doctor says has failed in this check."""
    found = json.loads(flashsale("doctor", "--json").stdout)["findings"]
    return [each for each in found if each["check"].endswith(check) and each["status"] == "failed"]


def test_doctor_examines_each_shard(shop: Shop, flashsale: Run) -> None:
    found = json.loads(flashsale("doctor", "--json").stdout)["findings"]
    checks = [each["check"] for each in found]
    for name in (A, B):
        assert f"{name}: migrations" in checks and f"{name}: audit" in checks
    assert checks.count("secrets") == 1, "once: it is not of a database"
    ok = {each["check"] for each in found if each["status"] == "ok"}
    assert {"slots", "equality"} <= ok


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ("update flashsale_data.settings set hold_time = '3 minutes'", "its settings differ: hold_time"),
        ("update flashsale_data.schema_state set digest = 'older'", "its functions differ from those of"),
    ],
)
def test_doctor_finds_what_differs_between_shards(
    shop: Shop, flashsale: Run, change: str, detail: str
) -> None:
    """Check 13."""
    shop.b.execute(change)
    assert any(detail in each["detail"] for each in failed(flashsale, f"{B}: equality"))


@needs_pg_cron
def test_doctor_finds_a_shard_that_pg_cron_does_not_sweep(shop: Shop, flashsale: Run) -> None:
    shop.a.execute("update flashsale_data.scheduler set schedule = '5 seconds', scheduled_at = now()")
    (found,) = failed(flashsale, f"{B}: equality")
    assert "pg_cron does not sweep it" in found["detail"]


def test_doctor_of_one_of_two_databases_finds_that_the_other_is_missing(shop: Shop, flashsale: Run) -> None:
    one = {"FLASHSALE_DATABASE_URL": shop.url("a"), "FLASHSALE_DATABASE_URLS": ""}
    found = json.loads(flashsale("doctor", "--json", **one).stdout)["findings"]
    (slots,) = [each for each in found if each["check"] == "slots"]
    assert slots["status"] == "failed"
    assert "slots 2-3 of 4" in slots["detail"]


def test_the_audit_is_of_all_shards(shop: Shop, flashsale: Run) -> None:
    product = shop.product(2)
    assert flashsale("audit").exit_code == 0
    shop.b.execute("update flashsale_data.stock set held = held + 1 where product_id = %s", (product,))
    result = flashsale("audit")
    assert result.exit_code == 1
    assert A in result.stdout and B in result.stdout
    found = json.loads(flashsale("audit", "--json").stdout)
    assert {each["shard"] for each in found} == {B}
    assert flashsale("audit", "--shard", A).exit_code == 0


def test_a_shard_that_is_down_does_not_keep_a_command_from_the_others(shop: Shop, flashsale: Run) -> None:
    shop.product(0)
    with unreachable(shop.b):
        result = flashsale("product", "list", "--json")
    assert result.exit_code == 1
    assert [each["shard"] for each in json.loads(result.stdout)] == [A]
    assert f"Error: {B}: cannot connect to the database" in result.stderr


def test_products_are_listed_with_their_shards(shop: Shop, flashsale: Run) -> None:
    products = {shop.product(0): A, shop.product(3): B}
    found = json.loads(flashsale("product", "list", "--json").stdout)
    assert {each["product_id"]: each["shard"] for each in found} == products
    assert "Shoe" in flashsale("product", "list").stdout


def test_a_product_is_created_on_the_shard_that_is_chosen(shop: Shop, flashsale: Run) -> None:
    create = ("product", "create", "Boot", "--stock", 5, "--price", 9, "--json")
    result = flashsale(*create)
    assert result.exit_code == 1
    assert f"choose a database with --shard: {A} (slots 0-1), {B} (slots 2-3)" in result.output
    for name, slots in ((A, {0, 1}), (B, {2, 3})):
        product = json.loads(flashsale(*create, "--shard", name).stdout)["product_id"]
        assert product % 4 in slots
    beside = json.loads(flashsale(*create, "--with-product", product).stdout)["product_id"]
    assert beside % 4 == product % 4


def test_commands_for_a_product_go_to_its_shard(shop: Shop, flashsale: Run) -> None:
    first, second = shop.product(1), shop.product(2)
    assert flashsale("product", "restock", second, 10).stdout == f"product {second}: 60 of 60 available\n"
    assert flashsale("product", "price", first, "12.50").exit_code == 0
    assert flashsale("product", "pause", first, second).exit_code == 0
    for shard in NAMES:
        assert row(shop[shard], "select sale_status from flashsale.terms").sale_status == "paused"
    result = flashsale("product", "resume", first, second, "--json")
    assert [(each["shard"], each["sale_status"]) for each in json.loads(result.stdout)] == [
        (A, "open"), (B, "open"),
    ]  # fmt: skip
    assert flashsale("product", "restock", 4001, 1).exit_code == 1


def test_refunds_are_found_on_all_shards(shop: Shop, flashsale: Run) -> None:
    for slot in (0, 2):
        shard = shop.owner(slot)
        order_id = order(shop[shard], shop.product(slot))
        pay(shop[shard], order_id, key=f"stripe:pi_{slot}:success", amount="99.00")
        pay(shop[shard], order_id, key=f"stripe:pi_{slot}b:success", amount="99.00")
    due = json.loads(flashsale("refunds", "list", "--json").stdout)
    assert [each["shard"] for each in due] == [A, B]
    begun = json.loads(flashsale("refunds", "begin", "--json").stdout)
    of_b = next(each for each in begun if each["shard"] == B)
    result = flashsale("refunds", "record", of_b["refund_key"], "stripe:pi_2b:success", "99.00")
    assert result.exit_code == 0, result.output
    assert "0.00 still due" in result.stdout
    unknown = flashsale("refunds", "record", "rf_x", "stripe:pi_9:success", "99.00")
    assert unknown.exit_code == 1 and "Payment not found" in unknown.output


def test_ledgers_are_printed_one_after_the_other(shop: Shop, flashsale: Run) -> None:
    first, second = shop.product(0), shop.product(2)
    lines = [json.loads(line) for line in flashsale("events", "--json").stdout.splitlines()]
    assert [(each["shard"], each["product_id"]) for each in lines] == [(A, first), (B, second)]
    assert "choose a database with --shard" in flashsale("events", "--after", 1).output
    only = flashsale("events", "--json", "--shard", B).stdout.splitlines()
    assert [json.loads(line)["product_id"] for line in only] == [second]


def test_the_watcher_shows_one_sale(shop: Shop, flashsale: Run) -> None:
    products = sorted((shop.product(3), shop.product(0)))
    result = flashsale("watch", "--once", "--json")
    assert result.exit_code == 0, result.output
    snapshot = json.loads(result.stdout)
    assert [each["product_id"] for each in snapshot["products"]] == products
    with unreachable(shop.b):
        result = flashsale("watch", "--once")
    assert result.exit_code == 1
    assert f"{B}: cannot connect to the database" in result.stdout


def test_the_jobs_of_all_shards_are_shown(shop: Shop, flashsale: Run) -> None:
    result = flashsale("cron", "status", "--json")
    assert result.exit_code == 1, "nothing is scheduled in a test"
    assert [each["shard"] for each in json.loads(result.stdout)] == [A, B]


def test_a_command_for_one_database_asks_which(shop: Shop, flashsale: Run) -> None:
    for command in (["psql"], ["rehearse"], ["webhook", "send", "--early"]):
        assert "choose a database with --shard" in flashsale(*command).output
    assert "there is no shard 'c'" in flashsale("audit", "--shard", "c").output
    assert "for one database" in flashsale("up").output


def test_a_new_shop_is_divided_evenly(cluster: Cluster, shop: Shop, flashsale: Run) -> None:
    for shard in NAMES:
        shop[shard].execute("update flashsale_data.shard set slots = 1, owned = '{0}'")
    for _ in range(2):
        assert flashsale("migrate", "--no-schedule", "--slots", 16).exit_code == 0
    owned = [row(shop[shard], "select * from flashsale.get_shard()") for shard in NAMES]
    assert [(each.slots, each.owned) for each in owned] == [
        (16, list(range(8))), (16, list(range(8, 16))),
    ]  # fmt: skip
    shop.a.execute("select flashsale.create_product('Shoe', 1, 1)")
    result = flashsale("migrate", "--no-schedule", "--slots", 32)
    assert result.exit_code == 1
    assert "16 slots, which is fixed" in result.output


def test_a_shard_is_added_and_slots_move_to_it(
    shop: Shop, flashsale: Run, empty_database: str, cron: psycopg.Connection
) -> None:
    product = shop.product(1)
    for shard in NAMES:
        shop[shard].execute("select flashsale.change_settings('90 seconds', p_max_extensions => 3)")
    for _ in range(2):
        added = flashsale("shard", "add", empty_database)
        assert added.exit_code == 0, added.output
    assert "append the URL of" in added.stdout
    urls = f"{shop.urls()} {empty_database}"
    with psycopg.connect(empty_database, autocommit=True) as new:
        assert row(new, "select * from flashsale.get_shard()").owned == []
        assert value(new, "select max_extensions from flashsale.settings") == 3
        moved = flashsale("shard", "move", 1, "--to", "flashsale_empty", FLASHSALE_DATABASE_URLS=urls)
        assert moved.exit_code == 0, moved.output
        assert rows(new, "select product_id from flashsale.stock")[0].product_id == product
    shop.check()
    assert flashsale("shard", "add", shop.url("b"), FLASHSALE_DATABASE_URLS=shop.url("a")).exit_code == 1
    cron.execute("select cron.unschedule(jobid) from cron.job where jobname like '%flashsale_empty'")


def test_a_shop_of_one_slot_stays_on_one_database(shop: Shop, flashsale: Run, empty_database: str) -> None:
    shop.a.execute("update flashsale_data.shard set slots = 1, owned = '{0}'")
    result = flashsale("shard", "add", empty_database, FLASHSALE_DATABASE_URLS=shop.url("a"))
    assert result.exit_code == 1
    assert "it stays on one database" in result.output
