"""Faults to seed, one at a time, and the tests that are to catch each.

A fault is a guard taken out of the code: a lock, a comparison, a constraint, a grant. The texts are short,
so that they outlive changes around them. One that is no longer in its file fails loudly.
"""

from dataclasses import dataclass


@dataclass(frozen=True, init=False)
class Fault:
    """What a slip of the pen would have made of a file.

    :param name: the fault in words
    :param path: of the file, from the root
    :param changes: texts of the file and what stands there instead, everywhere
    :param tests: pytest node ids, as narrow as can be; the first that fails has caught it
    """

    name: str
    path: str
    changes: dict[str, str]
    tests: tuple[str, ...]

    def __init__(self, name: str, path: str, changes: dict[str, str], *tests: str) -> None:
        for field, value in (("name", name), ("path", path), ("changes", changes), ("tests", tests)):
            object.__setattr__(self, field, value)

    def seeded(self, text: str) -> str:
        """The file with this fault."""
        for guard, replacement in self.changes.items():
            assert guard in text, f"{self.path} has no such text any more: {guard}"
            text = text.replace(guard, replacement)
        return text


APPLY_PAYMENTS = "sql/public/apply_payments.sql"
AUDIT = "sql/operators/audit.sql"
BODIES = "api/schemas/requests.py"
CREATE_ORDERS = "sql/public/create_orders.sql"
EXPIRE_DUE = "sql/operators/expire_due.sql"
END_WAITS = "sql/internal/end_waits.sql"
EXPIRE_HOLDS = "sql/internal/expire_holds.sql"
JOINING = "api/database/batching.py"
LANES = "api/database/connection.py"
LIST_REFUNDS = "sql/operators/list_refunds_due.sql"
LOCK_STOCK = "sql/internal/lock_stock.sql"
PLACE_HOLDS = "sql/public/place_holds.sql"
PROBLEMS = "api/problems.py"
PURGE = "sql/operators/purge.sql"
RELEASE_HOLDS = "sql/public/release_holds.sql"
SETTLE_PAYMENTS = "sql/internal/settle_payments.sql"
SETTLE_STORED = "sql/internal/settle_stored.sql"
SIGNATURES = "api/webhook_signatures.py"
STORE_PAYMENTS = "sql/internal/store_payments.sql"
TABLES = "migrations/0002.tables.sql"

BATCHES = "tests/sql/test_batches.py::"
BUSY = "tests/sql/test_busy_rows.py::"
CONCURRENCY = "tests/sql/test_concurrency.py::"
CONSTRAINTS = "tests/schema/test_constraints.py::test_a_superuser_is_refused_by"
EARLY = "tests/sql/test_early_webhooks.py::"
EVENTS = "tests/operators/test_read_events.py::"
HOLDS = "tests/sql/test_place_hold.py::"
INSTANT = "tests/sql/test_instant_of_lapse.py::"
ISOLATION = "tests/sql/test_isolation_levels.py::"
JOINER = "tests/api/test_joining.py::"
KNOWN = "tests/sql/test_known_failures.py::"
OPEN = "tests/sql/test_open_transactions.py::"
ORDERS = "tests/sql/test_create_order.py::"
PAYMENTS = "tests/sql/test_apply_payment.py::"
PRIVILEGES = "tests/schema/test_privileges.py::"
SIGNED = "tests/api/test_signatures.py::"
SWEEP = "tests/operators/test_expire_due.py::"

FAULTS = [
    # Stock.
    Fault(
        "a hold is granted whatever is left",
        PLACE_HOLDS,
        {"elsif p_qtys[v_i] <= v_available[v_p] then": "elsif v_p is not null then"},
        HOLDS + "test_more_than_there_is_is_insufficient_stock",
    ),
    Fault(
        "the last unit is refused",
        PLACE_HOLDS,
        {"p_qtys[v_i] <= v_available[v_p]": "p_qtys[v_i] < v_available[v_p]"},
        HOLDS + "test_the_whole_stock_can_be_held_by_one",
    ),
    Fault(
        "a batch sells the same units to each of its requests",
        PLACE_HOLDS,
        {"v_available[v_p] := v_available[v_p] - p_qtys[v_i];": ""},
        BATCHES + "test_the_last_units_go_to_whoever_came_first",
    ),
    Fault(
        "an order does not count as taken",
        CREATE_ORDERS,
        {"awaiting = s.awaiting + c.qty": "awaiting = s.awaiting"},
        KNOWN + "test_pending_orders_count_as_taken",
    ),
    Fault(
        "a release gives no units back",
        RELEASE_HOLDS,
        {"held = s.held - r.qty": "held = s.held"},
        "tests/sql/test_release_hold.py::test_a_released_hold_gives_its_units_back",
    ),
    Fault(
        "stock is cut below what is taken",
        "sql/operators/adjust_stock.sql",
        {"v_available::bigint + p_delta < 0": "v_total::bigint + p_delta < 0"},
        "tests/operators/test_adjust_stock.py::test_what_is_taken_cannot_be_taken_away",
    ),
    Fault(
        "a failed payment after a success restocks",
        SETTLE_PAYMENTS,
        {"elsif v_order.status = 'pending_payment' and not v_overdue then": "elsif true then"},
        KNOWN + "test_failure_after_success_restocks_nothing",
    ),
    Fault(
        "the wrong product is restocked",
        SETTLE_PAYMENTS,
        {"v_p := array_position(v_products, v_order.product_id);": "v_p := 1;"},
        KNOWN + "test_the_right_product_is_restocked",
    ),
    # Locks.
    Fault(
        "the product is not locked",
        LOCK_STOCK,
        {"for no key update;": ";"},
        CONCURRENCY + "test_a_buyer_waits_for_the_buyer_of_the_last_units",
    ),
    Fault(
        "a locked product counts as sold out",
        LOCK_STOCK,
        {"for no key update;": "for no key update skip locked;"},
        KNOWN + "test_no_unit_stays_unsold_because_its_buyer_met_another",
    ),
    Fault(
        "a batch waits for one product while it holds another",
        LOCK_STOCK,
        {"for no key update skip locked) s;": "for no key update) s;"},
        BUSY + "test_holds_of_a_busy_product",
    ),
    Fault(
        "holds are not locked",
        "sql/internal/lock_holds.sql",
        {"for no key update skip locked)": ")", "for no key update)": ")"},
        BUSY + "test_releases_of_a_busy_hold",
    ),
    Fault(
        "orders are not locked",
        "sql/internal/lock_orders.sql",
        {"for no key update skip locked)": ")", "for no key update)": ")"},
        BUSY + "test_payments_of_a_busy_order",
    ),
    Fault(
        "idempotency keys are not locked",
        "sql/internal/lock_keys.sql",
        {"perform pg_advisory_xact_lock(": "perform pg_advisory_xact_lock_shared("},
        CONCURRENCY + "test_a_request_waits_for_the_one_that_came_with_its_key_for_another_product",
    ),
    Fault(
        "the id of a coming order is not locked",
        "sql/internal/lock_order_ids.sql",
        {"perform pg_advisory_xact_lock(c_space, (id % 2147483648)::int)": "perform 1"},
        KNOWN + "test_an_early_webhook_and_its_order_do_not_miss_each_other",
    ),
    Fault(
        "the product is locked before the hold",
        CREATE_ORDERS,
        {
            "v_locked := flashsale_data.lock_holds(v_hold_ids);": "perform flashsale_data.lock_stock(array("
            "select h.product_id from flashsale_data.holds h where h.hold_id = any (v_hold_ids)));"
            " v_locked := flashsale_data.lock_holds(v_hold_ids);"
        },
        BUSY + "test_an_order_locks_its_hold_before_its_product",
    ),
    Fault(
        "the room in the inbox is read without its lock",
        STORE_PAYMENTS,
        {"from flashsale_data.inbox i for no key update;": "from flashsale_data.inbox i;"},
        CONCURRENCY + "test_a_webhook_waits_for_the_one_that_takes_the_last_place_in_the_inbox",
    ),
    Fault(
        "a sweep waits for what somebody else has locked",
        EXPIRE_HOLDS,
        {"for no key update of h skip locked": "for no key update of h"},
        SWEEP + "test_a_locked_hold_is_skipped_and_taken_next_time",
    ),
    Fault(
        "two sweepers mark one hold",
        EXPIRE_HOLDS,
        {"for no key update of h skip locked": ""},
        SWEEP + "test_a_locked_hold_is_skipped_and_taken_next_time",
    ),
    # Time.
    Fault(
        "the clock stands still in a transaction",
        LOCK_STOCK,
        {"v_now := clock_timestamp();": "v_now := now();"},
        CONCURRENCY
        + "test_the_two_minutes_of_a_hold_begin_when_it_is_placed_not_when_its_buyer_began_to_wait",
    ),
    Fault(
        "a hold's time is judged before the lock",
        CREATE_ORDERS,
        {"h.expires_at > s.now": "h.expires_at > now()"},
        KNOWN + "test_expiry_racing_the_order",
    ),
    Fault(
        "a hold can be ordered at the instant it lapses",
        CREATE_ORDERS,
        {"h.expires_at > s.now": "h.expires_at >= s.now"},
        INSTANT + "test_a_hold_has_lapsed_at_its_instant_for_an_order_that_has_waited",
    ),
    Fault(
        "a hold reads as active at the instant it lapses",
        "sql/internal/holds_at.sql",
        {"h.expires_at <= greatest": "h.expires_at < greatest"},
        INSTANT + "test_a_hold_has_lapsed_at_its_instant",
    ),
    Fault(
        "an order reads as pending at the instant it falls due",
        "sql/internal/orders_at.sql",
        {"o.payment_due_at <= greatest": "o.payment_due_at < greatest"},
        INSTANT + "test_an_order_is_overdue_at_its_instant",
    ),
    Fault(
        "an order is paid in time at the instant it falls due",
        SETTLE_PAYMENTS,
        {"v_order.payment_due_at <= v_nows[v_p]": "v_order.payment_due_at < v_nows[v_p]"},
        INSTANT + "test_a_payment_at_the_instant_is_too_late",
    ),
    Fault(
        "what lapsed at the last look lapses again",
        LOCK_STOCK,
        {"l.lapses_at) > (s.product_id": "l.lapses_at) >= (s.product_id"},
        INSTANT + "test_what_lapsed_at_the_instant_is_not_given_back_twice",
    ),
    Fault(
        "a clock that is set back takes back what was given",
        LOCK_STOCK,
        {"greatest(v_now, v_through[v_i])": "v_now"},
        INSTANT + "test_a_payment_at_the_instant_is_too_late",
    ),
    Fault(
        "an abandoned order keeps its units",
        LOCK_STOCK,
        {"awaiting = s.awaiting - due.awaiting": "awaiting = s.awaiting"},
        KNOWN + "test_an_abandoned_order_gives_its_stock_back",
    ),
    Fault(
        "stock waits for the sweep",
        "sql/internal/stock_at.sql",
        {"(l.product_id, l.lapses_at) <= (p.product_id, clock.now)": "false"},
        HOLDS + "test_units_are_back_at_the_very_instant_of_the_lapse",
    ),
    Fault(
        "an overdue order is paid as if in time",
        SETTLE_PAYMENTS,
        {"v_overdue := v_order.status": "v_overdue := false and v_order.status"},
        PAYMENTS + "test_the_last_unit_revives_an_order_and_one_less_does_not",
    ),
    Fault(
        "a sweep marks what is not active any more",
        EXPIRE_HOLDS,
        {"where h.status = 'active'": "where true"},
        "tests/operators/test_expire_due.py::test_a_released_hold_is_not_marked_with_those_of_its_instant",
    ),
    Fault(
        "a snapshot is judged by a newer time",
        "sql/internal/read_clock.sql",
        {"flashsale_data.keeps_snapshot() then": "false then"},
        OPEN + "test_a_snapshot_is_judged_by_a_time_that_is_not_newer",
    ),
    Fault(
        "a view of the stock judges an older snapshot",
        "sql/operators/list_stock.sql",
        {"language plpgsql volatile": "language plpgsql stable"},
        OPEN + "test_a_statement_that_runs_for_a_while_reads_states_that_were",
    ),
    Fault(
        "a locked product uses up the sweep's limit",
        EXPIRE_DUE,
        {
            "exit when v_holds >= p_limit or v_orders >= p_limit;": "exit;",
            "continue when v_products": "exit when v_products",
        },
        SWEEP + "test_a_locked_product_does_not_use_up_the_limit",
    ),
    Fault(
        "locked holds use up the sweep's limit",
        EXPIRE_DUE,
        {"exit when v_holds >= p_limit or v_orders >= p_limit;": "exit;"},
        SWEEP + "test_locked_holds_do_not_use_up_the_limit",
    ),
    Fault(
        "an old snapshot does not know a hold, a product or a key",
        "sql/internal/reject_unseen.sql",
        {"if not flashsale_data.keeps_snapshot() then": "if true then"},
        ISOLATION + "test_a_hold_placed_since_is_not_unknown",
        ISOLATION + "test_a_product_created_since_is_not_unknown",
    ),
    Fault(
        "an old snapshot tells that a product is sold out",
        PLACE_HOLDS,
        {"(s.free > 0 or v_keeps_snapshot)": "s.free > 0"},
        KNOWN + "test_a_repeatable_read_caller_is_not_told_of_an_old_count",
    ),
    Fault(
        "a replayed order is told in an old state",
        CREATE_ORDERS,
        {"where h.hold_id = any (p_hold_ids) and v_keeps_snapshot": "where false"},
        ISOLATION + "test_a_replayed_order_is_not_told_in_an_old_state",
    ),
    Fault(
        "a replayed webhook is told in an old state",
        APPLY_PAYMENTS,
        {"(r.p).result = 'stored' and not r.over and flashsale_data.keeps_snapshot()": "false"},
        ISOLATION + "test_a_replayed_webhook_is_not_told_in_an_old_state",
    ),
    # Idempotency.
    Fault(
        "a hold's replay is not compared with its body",
        PLACE_HOLDS,
        {"if (v_hold.product_id, v_hold.qty)": "if false and (v_hold.product_id, v_hold.qty)"},
        HOLDS + "test_the_same_key_with_another_body_is_refused",
    ),
    Fault(
        "an order's replay is not compared with its hold",
        CREATE_ORDERS,
        {"when k.hold_id <> r.hold_id then 'SA008'": "when false then 'SA008'"},
        ORDERS + "test_the_same_key_with_another_hold_is_refused",
    ),
    Fault(
        "a webhook's replay is not compared with its body",
        APPLY_PAYMENTS,
        {"else 'SA008' end end as refusal": "else null end end as refusal"},
        PAYMENTS + "test_the_same_key_with_another_body_is_refused_and_has_no_effect",
    ),
    Fault(
        "a webhook twice in one batch counts twice",
        APPLY_PAYMENTS,
        {"r.first and r.fault is null": "r.fault is null"},
        PAYMENTS + "test_the_same_webhook_five_times_in_one_batch_has_one_effect_and_one_answer",
    ),
    Fault(
        "a key that was used since the snapshot counts as unused",
        "sql/internal/reject_unseen.sql",
        {"from unnest(p_hold_keys)": "from unnest(array[]::text[])"},
        ISOLATION + "test_a_key_of_a_sold_out_product_that_was_used_since",
    ),
    Fault(
        "holds that lapse together are counted once",
        PLACE_HOLDS,
        {"do update set held = l.held + excluded.held": "do nothing"},
        INSTANT + "test_all_that_lapses_at_one_instant_is_counted",
    ),
    Fault(
        "an early webhook is swallowed",
        CREATE_ORDERS,
        {"flashsale_data.settle_stored(v_early, v_created, v_now)": "false"},
        KNOWN + "test_an_early_webhook_is_not_swallowed_by_its_own_key",
    ),
    Fault(
        "an old snapshot misses a webhook",
        CREATE_ORDERS,
        {"perform from flashsale_data.inbox for no key update;": ""},
        KNOWN + "test_a_repeatable_read_caller_does_not_miss_a_webhook",
    ),
    # Money.
    Fault(
        "an order costs what one unit costs",
        CREATE_ORDERS,
        {"p.price * h.qty as amount": "p.price as amount"},
        ORDERS + "test_an_order_awaits_payment_of_its_amount",
    ),
    Fault(
        "any amount will do",
        SETTLE_PAYMENTS,
        {"if v_payment.amount <> v_order.amount or ": "if "},
        PAYMENTS + "test_another_amount_or_currency_changes_nothing_and_is_recorded",
    ),
    Fault(
        "any currency will do",
        SETTLE_PAYMENTS,
        {" or v_payment.currency <> v_order.currency then": " then"},
        PAYMENTS + "test_another_amount_or_currency_changes_nothing_and_is_recorded",
    ),
    Fault(
        "what the buyer cancelled is revived",
        SETTLE_PAYMENTS,
        {" or v_order.cancel_reason = 'payment_cancelled' then": " then"},
        PAYMENTS + "test_the_table[a_cancelled_order--success-cancelled-refund_due-payment_cancelled-0]",
    ),
    Fault(
        "a revived order takes units that are sold",
        SETTLE_PAYMENTS,
        {"if v_order.qty <= v_available[v_p] then": "if true then"},
        KNOWN + "test_success_after_failure_takes_nobodys_unit",
    ),
    Fault(
        "a second payment is no refund",
        SETTLE_PAYMENTS,
        {"if v_order.status = 'paid' or v_order.cancel_reason": "if v_order.cancel_reason"},
        PAYMENTS + "test_the_table[a_paid_order--success-paid-refund_due-None-0]",
    ),
    Fault(
        "a refund is missing from the refunds due",
        LIST_REFUNDS,
        {"d.result in ('refund_due', 'amount_mismatch')": "d.result = 'refund_due'"},
        PAYMENTS + "test_distinct_captured_payments_are_paid_orders_and_refunds_due",
        "tests/operators/test_views.py::test_a_payment_of_a_wrong_amount",
    ),
    Fault(
        "a payment whose order never came is dropped",
        END_WAITS,
        {" and o.status <> 'success'": ""},
        SWEEP + "test_a_captured_payment_whose_order_never_came_becomes_a_refund",
    ),
    Fault(
        "a refund whose order never came waits for the sweep",
        LIST_REFUNDS,
        {"w.wait_ends_at <= v_certain": "false"},
        OPEN + "test_a_refund_that_was_told_stays_due",
    ),
    Fault(
        "a key that is used again leaves its old webhook counted in the inbox",
        APPLY_PAYMENTS,
        {"where v_ended > 0": "where false"},
        EARLY + "test_a_batch_answers_in_array_order_when_it_makes_room_in_the_inbox[False]",
    ),
    Fault(
        "a key is free while an open transaction may apply its webhook",
        APPLY_PAYMENTS,
        {"and not (r.key = any (v_over) and exists (": "and (true or exists ("},
        OPEN + "test_a_key_is_taken_while_its_webhook_may_be_applied",
    ),
    Fault(
        "a key is answered by a webhook that its own call has deleted",
        APPLY_PAYMENTS,
        {"where not t.idempotency_key = any (v_over) or": "where true or"},
        EARLY + "test_a_freed_key_that_meets_a_busy_product_is_to_be_sent_again",
        EARLY + "test_a_freed_key_that_finds_no_room_in_the_inbox_is_told_so",
    ),
    Fault(
        "a payment waits for an order while it holds another",
        APPLY_PAYMENTS,
        {
            "v_wanted := v_wanted || flashsale_data.lock_order_ids(v_over_ids, p_wait => true);":
            "select l.known, l.unknown into v_known, v_unknown from flashsale_data.lock_orders(v_wanted) l;"
            " perform flashsale_data.lock_order_ids(v_over_ids, p_wait => true);"
        },
        OPEN + "test_payments_under_each_others_keys_do_not_deadlock",
    ),
    Fault(
        "a key that is being freed is refused for good",
        APPLY_PAYMENTS,
        {"case when r.key = any (v_busy) then '55P03' else 'SA008' end": "'SA008'"},
        OPEN + "test_a_key_whose_webhook_a_sweep_is_ending_is_waited_for",
    ),
    Fault(
        "settings that were changed since the snapshot are used",
        "sql/internal/reject_unseen.sql",
        {"perform from flashsale_data.settings for share;": ""},
        ISOLATION + "test_settings_that_were_changed_since_are_not_used",
    ),
    Fault(
        "a hold need not be recorded",
        PLACE_HOLDS,
        {
            "r.idempotency_key\n      from placed r\n": "r.idempotency_key\n      from placed r"
            " on conflict do nothing\n"
        },
        OPEN + "test_a_hold_that_is_not_recorded_is_an_error",
    ),
    Fault(
        "a refund is told that an open order may yet take",
        LIST_REFUNDS,
        {"least(v_now, to_timestamp": "coalesce(v_now, to_timestamp"},
        OPEN + "test_a_refund_is_told_only_when_it_is_certain",
    ),
    Fault(
        "an order that may take a webhook does not say so",
        "sql/internal/announce_early_payments.sql",
        {"hashtext('flashsale.early_payments')": "hashtext('flashsale.late_payments')"},
        OPEN + "test_a_refund_is_told_only_when_it_is_certain",
    ),
    Fault(
        "a refund that was told is taken back while its order is created",
        "sql/internal/announce_early_payments.sql",
        {"epoch from clock_timestamp()": "epoch from clock_timestamp() - interval '1 hour'"},
        OPEN + "test_a_refund_that_was_told_stays_due",
    ),
    Fault(
        "an order leaves the webhooks that it passes over",
        SETTLE_STORED,
        {"p.wait_ends_at <= p_now": "false"},
        OPEN + "test_a_refund_that_was_told_stays_due",
    ),
    Fault(
        "an order applies webhooks whose wait is over",
        SETTLE_STORED,
        {"p.wait_ends_at > p_now": "true"},
        OPEN + "test_a_refund_that_was_told_stays_due",
    ),
    Fault(
        "a longer inbox_keep takes up waits that are over",
        "sql/operators/change_settings.sql",
        {"p.wait_ends_at > flashsale": "p.wait_ends_at <> flashsale"},
        OPEN + "test_a_shorter_inbox_keep_holds_for_what_is_stored_and_a_longer_one_for_what_comes",
    ),
    Fault(
        "the inbox limit is read before its lock",
        STORE_PAYMENTS,
        {
            "begin\n": "begin\n  select * into v_settings from flashsale_data.settings;\n",
            "  select * into v_settings from flashsale_data.settings;\n  v_room": "  v_room",
        },
        OPEN + "test_the_inbox_limit_is_read_after_its_lock",
    ),
    Fault(
        "a release is told of a hold that was not released",
        RELEASE_HOLDS,
        {"when f.status = 'active' or": "when"},
        OPEN + "test_a_release_is_told_only_of_a_hold_that_is_released",
    ),
    Fault(
        "a failure changes an order that is overdue",
        SETTLE_PAYMENTS,
        {
            "and not v_overdue then\n      v_result := 'applied';\n      v_order.status := 'cancelled'":
            "then\n      v_result := 'applied';\n      v_order.status := 'cancelled'"
        },
        PAYMENTS + "test_the_table[an_overdue_order--failed-cancelled-no_change-payment_overdue-0]",
    ),
    Fault(
        "a forgotten webhook takes room as long as it is locked",
        STORE_PAYMENTS,
        {"select count(*)::int": "select 0 * count(*)::int"},
        CONCURRENCY + "test_a_forgotten_webhook_takes_no_room_while_its_key_is_used_again",
    ),
    Fault(
        "early webhooks are applied last come first",
        "sql/internal/settle_stored.sql",
        {"order by p.arrival": "order by p.arrival desc"},
        EARLY + "test_stored_webhooks_are_applied_in_order_of_arrival_when_their_order_is_created",
    ),
    Fault(
        "the inbox has no limit",
        STORE_PAYMENTS,
        {
            "i.stored >= s.inbox_limit": "false",
            "v_room := v_settings.inbox_limit - v_room": "v_room := 1000000",
        },
        EARLY + "test_past_the_cap_webhooks_for_unknown_orders_are_refused",
    ),
    Fault(
        "a purge takes payments with it",
        PURGE,
        {"(p.status = 'success' or p.result = 'stored'));": "p.result = 'stored');"},
        "tests/operators/test_purge.py::test_the_shops_books_stay",
    ),
    Fault(
        "a purge takes stored webhooks past the inbox counter",
        PURGE,
        {"(p.status = 'success' or p.result = 'stored'));": "p.status = 'success');"},
        "tests/operators/test_purge.py::test_an_order_with_a_stored_webhook_waits_for_the_sweep",
    ),
    Fault(
        "a purge does not see a payment that came in",
        PURGE,
        {"elsif flashsale_data.keeps_snapshot() then": "elsif false then"},
        "tests/operators/test_purge.py::test_a_purge_is_refused_where_it_cannot_see_a_payment_that_came_in",
    ),
    # The ledger, and what proves it.
    Fault(
        "a hold in the ledger takes nothing",
        PLACE_HOLDS,
        {"r.hold_id, -r.qty": "r.hold_id, 0"},
        EVENTS + "test_an_event_tells_what_happened_to_what",
    ),
    Fault(
        "payments are not in the ledger",
        SETTLE_PAYMENTS,
        {"if cardinality(v_events) > 0 then": "if false then"},
        EVENTS + "test_an_event_tells_what_happened_to_what",
    ),
    Fault(
        "a refund is not in the ledger",
        SETTLE_PAYMENTS,
        {"if v_result in ('refund_due', 'amount_mismatch') then": "if v_result = 'amount_mismatch' then"},
        EVENTS + "test_a_change_appends_exactly_these_events",
    ),
    Fault(
        "readers of the ledger skip a late commit",
        "sql/internal/open_ledger.sql",
        {"hashtext('flashsale.ledger')": "hashtext('another ledger')"},
        EVENTS + "test_a_late_commit_is_not_skipped",
    ),
    Fault(
        "a purge leaves holes in the ledger's sums",
        PURGE,
        {"available_delta = l.available_delta + excluded": "available_delta = excluded"},
        "tests/operators/test_purge.py::test_the_ledger_still_adds_up",
    ),
    Fault(
        "the audit is blind to units held",
        AUDIT,
        {"where u.held <> u.rows_held": "where false"},
        "tests/operators/test_audit.py::test_a_check_fires_alone_when_its_invariant_is_broken",
    ),
    Fault(
        "the audit is blind to money",
        AUDIT,
        {"where sums.captured <> sums.paid + sums.refunds": "where false"},
        "tests/operators/test_audit.py::test_a_check_fires_alone_when_its_invariant_is_broken",
    ),
    # Tables, rights.
    Fault(
        "one hold may have two orders",
        TABLES,
        {"constraint orders_hold_key unique (hold_id),": ""},
        CONSTRAINTS,
    ),
    Fault(
        "two payments may pay one order",
        TABLES,
        {"create unique index payments_one_pays": "create index payments_one_pays"},
        CONSTRAINTS,
    ),
    Fault(
        "the table lets more be sold than there is",
        TABLES,
        {"check (held::bigint + awaiting + paid <= total_stock)": "check (held >= 0)"},
        CONSTRAINTS,
    ),
    Fault(
        "the API may purge",
        PURGE,
        {"to flashsale_ops;": "to flashsale_api;"},
        PRIVILEGES + "test_api_may_call_exactly_the_public_functions",
    ),
    Fault(
        "a table is open to the API",
        TABLES,
        {"reset role;": "grant select on flashsale_data.payments to flashsale_api;\nreset role;"},
        PRIVILEGES + "test_api_may_read_the_refusals_and_no_table",
    ),
    Fault(
        "everybody may audit",
        AUDIT,
        {"to flashsale_ops;": "to public;"},
        "tests/schema/test_conventions.py::test_a_file_makes_one_object_of_its_name_and_says_who_may_use_it[audit]",
    ),
    Fault(
        "everybody may call what is added later",
        "migrations/0001.roles-and-schemas.sql",
        {"alter default privileges for role flashsale_owner revoke execute on functions from public;": ""},
        PRIVILEGES + "test_a_function_added_later_is_not_open_to_public_either",
    ),
    Fault(
        "a search_path is open",
        "sql/public/place_hold.sql",
        {"set search_path = pg_catalog, pg_temp\n": ""},
        PRIVILEGES + "test_every_security_definer_function_pins_its_search_path",
    ),
    Fault(
        "an order is shown to who guesses its number",
        "sql/public/get_orders.sql",
        {" and f.hold_id = r.hold_id": ""},
        "tests/sql/test_reads.py::test_an_order_is_shown_only_to_whoever_knows_its_hold",
    ),
    Fault(
        "hold ids can be guessed",
        "sql/internal/new_hold_id.sql",
        {"9007199254740991": "1048575"},
        HOLDS + "test_hold_ids_are_random_positive_and_below_2_to_the_53",
    ),
    # HTTP.
    Fault(
        "unsigned webhooks are believed",
        SIGNATURES,
        {"if not headers and self.allow_unsigned:": "if not headers:"},
        SIGNED + "test_unsigned_is_believed_only_when_that_is_allowed_and_a_wrong_signature_never",
    ),
    Fault(
        "any signature will do",
        SIGNATURES,
        {"webhook.verify(data, headers, json_parse=False)": ""},
        SIGNED + "test_every_secret_that_is_set_is_valid",
    ),
    Fault(
        "a signature may be spelled in many ways",
        SIGNATURES,
        {" and _is_canonical(headers):": ":"},
        SIGNED + "test_other_spellings_of_the_same_timestamp_and_signature_are_refused",
    ),
    Fault(
        "only the first secret counts",
        SIGNATURES,
        {"continue\n        raise": "break\n        raise"},
        SIGNED + "test_every_secret_that_is_set_is_valid",
    ),
    Fault(
        "a member given twice is taken",
        BODIES,
        {"if len(members) != len(pairs):": "if False:"},
        "tests/api/test_bodies.py::test_what_is_no_strict_json_is_malformed",
    ),
    Fault(
        "a body may be of any size",
        BODIES,
        {"MAX_BYTES = 16 * 1024": "MAX_BYTES = 1 << 30"},
        "tests/api/test_problems.py::test_errors_from_the_application",
    ),
    Fault(
        "a refusal has another status",
        PROBLEMS,
        {'Kind(409, "insufficient_stock"': 'Kind(410, "insufficient_stock"'},
        "tests/api/test_problems.py::test_the_table_of_refusals_is_the_databases",
    ),
    Fault(
        "an unknown outcome is told as a refusal",
        LANES,
        {"return OutcomeUnknown(str(error))": 'return RolledBack(error.sqlstate or "57014", str(error))'},
        "tests/api/test_trouble.py::test_a_connection_that_falls_silent_is_cut_and_replaced",
    ),
    Fault(
        "a write is sent again though it may have been done",
        JOINING,
        {"if not self._reads:": "if False:"},
        JOINER + "test_a_write_whose_outcome_is_unknown_is_never_sent_again",
    ),
    Fault(
        "answers go to whoever stands in their place",
        JOINING,
        {"found[answer[0]] = answer": "found[list(rows).index(answer)] = answer"},
        JOINER + "test_requests_that_come_while_the_lane_is_taken_travel_together_and_each_gets_its_row",
    ),
    Fault(
        "two equal writes count as one",
        JOINING,
        {"if self._reads:\n            arguments =": "if True:\n            arguments ="},
        JOINER + "test_equal_writes_never_share_a_row",
    ),
    Fault(
        "a queue has no end",
        JOINING,
        {"if len(self._waiting) >= self._limits.queue and not first:": "if False:"},
        JOINER + "test_a_full_queue_refuses_at_once",
    ),
    Fault(
        "nobody is ever told that there is no answer",
        JOINING,
        {"if now - asked.arrived >= self._limits.deadline:": "if False:"},
        JOINER + "test_who_waits_too_long_is_refused_and_never_sent",
    ),
]
