"""Mutations of the code, one at a time, and the tests that catch each.

A mutation names a guard (tests/support/guards.py) and what stands there instead, so it does not depend on the
text of the code, which can be renamed, moved and rearranged. Landed migrations are never edited: what they
create is mutated by a statement that runs after them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.guards import replaced

_CREATES = r"^create or replace (?:function|procedure|view) {}\b"


@dataclass(frozen=True)
class Mutation:
    """A guard replaced.

    :param description: what the mutated code does wrong
    :param guard: its name
    :param replacements: what stands there instead, for each place of the guard (guards.replaced)
    :param tests: pytest node ids, as narrow as possible; the first that fails has caught the mutation
    """

    description: str
    guard: str
    replacements: Sequence[str]
    tests: Sequence[str]

    def mutated(self, root: Path) -> dict[Path, str]:
        """The files that this mutation changes, by their path from `root`, with their mutated text."""
        return replaced(root, self.guard, self.replacements)


@dataclass(frozen=True)
class StatementMutation:
    """A statement that weakens an object of the database once it has been created.

    :param description: what the mutated schema allows
    :param guard: the object, with its schema
    :param statement: runs at the end of the file of sql/ that creates the object or, if none does, of the
        newest migration
    :param tests: as of a Mutation
    """

    description: str
    guard: str
    statement: str
    tests: Sequence[str]

    def mutated(self, root: Path) -> dict[Path, str]:
        """As of a Mutation."""
        path = self._file(root)
        return {path.relative_to(root): f"{path.read_text()}\n{self.statement};\n"}

    def _file(self, root: Path) -> Path:
        created = re.compile(_CREATES.format(re.escape(self.guard)), re.MULTILINE)
        for path in (root / "sql").rglob("*.sql"):
            if created.search(path.read_text()):
                return path
        migrations = sorted((root / "migrations").glob("*.sql"))
        text = re.sub(r"--.*", "", "".join(path.read_text() for path in migrations))
        word = re.escape(self.guard.rpartition(".")[2])
        assert re.search(rf"\b{word}\b", text), f"nothing creates {self.guard}"
        return migrations[-1]


AUDIT = "tests/operators/test_audit.py::"
BATCHES = "tests/sql/test_batches.py::"
LOCKED = "tests/sql/test_locked_rows.py::"
CONCURRENCY = "tests/sql/test_concurrency.py::"
CONSTRAINTS = "tests/schema/test_constraints.py::test_constraint_refuses_a_superuser"
CONVENTIONS = "tests/schema/test_conventions.py::"
STORED = "tests/sql/test_stored_webhooks.py::"
EVENTS = "tests/operators/test_read_events.py::"
HOLDS = "tests/sql/test_place_hold.py::"
INSTANT = "tests/sql/test_instant_of_lapse.py::"
ISOLATION = "tests/sql/test_isolation_levels.py::"
BATCHING = "tests/api/test_batching.py::"
KNOWN = "tests/sql/test_known_failures.py::"
OPEN = "tests/sql/test_open_transactions.py::"
ORDERS = "tests/sql/test_create_order.py::"
PAYMENTS = "tests/sql/test_apply_payment.py::"
PRIVILEGES = "tests/schema/test_privileges.py::"
PROBLEMS = "tests/api/test_problems.py::"
PURGE = "tests/operators/test_purge.py::"
SIGNED = "tests/api/test_webhook_signatures.py::"
SWEEP = "tests/operators/test_expire_due.py::"

# fmt: off
MUTATIONS: list[Mutation | StatementMutation] = [
    # Stock.
    Mutation("A hold is granted beyond the available stock", "units-left", ["when true then null"],
        [HOLDS + "test_more_than_there_is_is_insufficient_stock"]),
    Mutation("The last unit cannot be held", "units-left",
        ["when p_qtys[v_i] < v_available[v_slot] then null"],
        [HOLDS + "test_the_whole_stock_can_be_held_by_one"]),
    Mutation("A batch grants the same units to each of its requests", "units-left-in-batch", [""],
        [BATCHES + "test_the_last_units_go_to_whoever_came_first"]),
    Mutation("The units of a pending order remain available", "order-takes-units", [""],
        [KNOWN + "test_pending_orders_count_as_taken"]),
    Mutation("A release returns no units", "release-returns-units", ["set"],
        ["tests/sql/test_release_hold.py::test_a_released_hold_gives_its_units_back"]),
    Mutation("The total stock can be cut below the units in use", "stock-in-use",
        ["if v_total::bigint + p_delta < 0 then"],
        ["tests/operators/test_adjust_stock.py::test_units_in_use_cannot_be_removed"]),
    Mutation("A failed payment after a successful one returns the units", "failed-payment-in-time",
        ["when v_payment.status <> 'success' then 'applied'"],
        [KNOWN + "test_failure_after_success_restocks_nothing"]),
    Mutation("A cancelled order returns its units to another product", "product-of-order",
        ["v_product_slot := 1;"], [KNOWN + "test_the_right_product_is_restocked"]),
    # Locks.
    Mutation("The product is not locked", "product-lock", [";"],
        [CONCURRENCY + "test_a_buyer_waits_for_the_buyer_of_the_last_units"]),
    Mutation("A locked product is reported as sold out", "product-lock", ["for no key update skip locked;"],
        [KNOWN + "test_no_unit_stays_unsold_because_its_buyer_met_another"]),
    Mutation("A batch waits for a product while it holds the lock of another", "product-locks-of-batch",
        ["for no key update"], [LOCKED + "test_holds_of_a_locked_product"]),
    Mutation("Holds are not locked", "hold-lock", ["", ";"], [LOCKED + "test_releases_of_a_locked_hold"]),
    Mutation("Orders are not locked", "order-lock", ["", "", ";", "", ""],
        [LOCKED + "test_payments_of_a_locked_order"]),
    Mutation("Idempotency keys are not locked", "key-lock", [""],
        [CONCURRENCY + "test_a_request_waits_for_the_one_that_came_with_its_key_for_another_product"]),
    Mutation("The id of a new order is not locked", "order-id-lock", ["perform 1"],
        [KNOWN + "test_a_stored_webhook_and_its_order_do_not_miss_each_other"]),
    Mutation(
        "An order locks its product before its hold",
        "hold-before-product",
        [
            "perform flashsale_data.lock_stock(array("
            "select h.product_id from flashsale_data.holds h where h.hold_id = any (p_hold_ids)));\n"
            "{line}"
        ],
        [LOCKED + "test_an_order_locks_its_hold_before_its_product"],
    ),
    Mutation("The inbox counter is read without a lock", "inbox-lock", [";"],
        [CONCURRENCY + "test_a_webhook_waits_for_the_one_that_takes_the_last_place_in_the_inbox"]),
    Mutation("The sweep waits for locked holds", "sweep-skips-locked",
        ["for no key update of h", "for update of l) l;"],
        [SWEEP + "test_a_locked_hold_is_skipped_until_the_next_call"]),
    Mutation("Two concurrent sweeps expire the same hold", "sweep-skips-locked", ["", ") l;"],
        [KNOWN + "test_two_sweepers_expire_a_hold_once"]),
    # Time.
    Mutation(
        "The clock is read at the start of the transaction instead of after the lock",
        "clock-after-lock",
        ["v_now := now();"],
        [
            CONCURRENCY
            + "test_the_two_minutes_of_a_hold_begin_when_it_is_placed_not_when_its_buyer_began_to_wait"
        ],
    ),
    Mutation("The expiry of a hold is decided before the lock", "hold-not-expired",
        ["and hold.expires_at > now()"], [KNOWN + "test_expiry_racing_the_order"]),
    Mutation("A hold can be ordered at the instant it expires", "hold-not-expired",
        ["and hold.expires_at >= v_effective_nows[v_slots[hold.i]]"],
        [INSTANT + "test_a_hold_has_lapsed_at_its_instant_for_an_order_that_has_waited"]),
    Mutation("A hold reads as active at the instant it expires", "expired-at-instant",
        ["select h.status = 'active' and h.expires_at < greatest(p_now, s.lapsed_through) as lapsed"],
        [INSTANT + "test_a_hold_has_lapsed_at_its_instant"]),
    Mutation(
        "An order reads as pending at the instant it becomes overdue",
        "overdue-at-instant",
        [
            "select o.status = 'pending_payment'"
            " and o.payment_due_at < greatest(p_now, s.lapsed_through) as overdue"
        ],
        [INSTANT + "test_an_order_is_overdue_at_its_instant"],
    ),
    Mutation("A payment at the instant an order becomes overdue is in time", "order-overdue",
        ["and v_order.payment_due_at < v_effective_nows[v_product_slot];"],
        [INSTANT + "test_a_payment_at_the_instant_is_too_late"]),
    Mutation("Units that have been returned are returned a second time", "lapsed-once",
        ["where (l.product_id, l.lapses_at) >= (s.product_id, s.lapsed_through)"] * 2,
        [INSTANT + "test_what_lapsed_at_the_instant_is_not_given_back_twice"]),
    Mutation("A clock that is set back reopens orders whose units were returned", "clock-set-back",
        ["effective_nows[v_i] := v_now;"], [INSTANT + "test_a_payment_at_the_instant_is_too_late"]),
    Mutation("An overdue order keeps its units", "overdue-units-return", [""],
        [KNOWN + "test_an_abandoned_order_gives_its_stock_back"]),
    Mutation("Units become available at the sweep instead of at their instant", "lapsed-units-available",
        ["and false) due;"], [HOLDS + "test_units_are_back_at_the_very_instant_of_the_lapse"]),
    Mutation("An overdue order is paid as if it were in time", "order-overdue", ["and false;"],
        [PAYMENTS + "test_the_last_unit_revives_an_order_and_one_less_does_not"]),
    Mutation("The sweep expires holds that are not active", "only-active-expire", ["where true"],
        [SWEEP + "test_a_released_hold_is_not_expired_with_those_of_its_instant"]),
    Mutation("The time that decides expiry is newer than the snapshot", "clock-of-snapshot",
        ["select clock_timestamp();"], [OPEN + "test_a_snapshot_is_judged_by_a_time_that_is_not_newer"]),
    Mutation("The stock is read in the snapshot of the statement that calls list_stock()", "stock-at-call",
        ["language plpgsql stable security definer"],
        [OPEN + "test_a_statement_that_runs_for_a_while_reads_states_that_were"]),
    Mutation("A locked product counts towards the limit of the sweep", "locked-not-counted", ["", "exit;"],
        [SWEEP + "test_a_locked_product_does_not_use_up_the_limit"]),
    Mutation("Locked holds count towards the limit of the sweep", "locked-not-counted", ["{line}", "exit;"],
        [SWEEP + "test_locked_holds_do_not_use_up_the_limit"]),
    Mutation(
        "Holds, products and keys newer than the snapshot are reported as not found",
        "unseen-rows",
        ["if true then"],
        [
            ISOLATION + "test_a_hold_placed_since_is_not_unknown",
            ISOLATION + "test_a_product_created_since_is_not_unknown",
        ],
    ),
    Mutation("A product is reported as sold out from an old snapshot", "sold-out-in-snapshot", [""],
        [KNOWN + "test_a_repeatable_read_caller_is_not_told_of_an_old_count"]),
    Mutation("The replay of an order reports its state in an old snapshot", "order-replay-in-snapshot",
        ["if false then"], [ISOLATION + "test_a_replayed_order_is_not_told_in_an_old_state"]),
    Mutation("The replay of a webhook reports its state in an old snapshot", "webhook-replay-in-snapshot",
        ["if false then"], [ISOLATION + "test_a_replayed_webhook_is_not_told_in_an_old_state"]),
    # Idempotency.
    Mutation("A reused key of a hold is not compared with the request", "hold-key-reused", ["and false"],
        [HOLDS + "test_the_same_key_with_another_body_is_refused"]),
    Mutation("A reused key of an order is not compared with the hold", "order-key-reused", [""],
        [ORDERS + "test_the_same_key_with_another_hold_is_refused"]),
    Mutation("A reused key of a webhook is not compared with the request", "payment-key-reused",
        ["else null end as refusal"],
        [PAYMENTS + "test_the_same_key_with_another_body_is_refused_and_has_no_effect"]),
    Mutation("A webhook that is twice in a batch is applied twice", "first-of-key", ["as first"],
        [PAYMENTS + "test_the_same_webhook_five_times_in_one_batch_has_one_effect_and_one_answer"]),
    Mutation("A key that was used since the snapshot counts as unused", "unseen-hold-keys",
        ["select null, null where false"],
        [ISOLATION + "test_a_key_of_a_sold_out_product_that_was_used_since"]),
    Mutation("Of the holds that expire at one instant only the first is counted", "lapses-add-up",
        ["on conflict do nothing"], [INSTANT + "test_all_that_lapses_at_one_instant_is_counted"]),
    Mutation("A stored webhook is never applied", "stored-webhooks-applied", [""],
        [KNOWN + "test_a_stored_webhook_is_not_swallowed_by_its_own_key"]),
    Mutation("An order created from an old snapshot misses a stored webhook", "inbox-in-snapshot", [""],
        [KNOWN + "test_a_repeatable_read_caller_does_not_miss_a_webhook"]),
    Mutation("A webhook applied from an old snapshot misses its order", "unseen-orders", [""],
        [KNOWN + "test_a_repeatable_read_caller_does_not_miss_an_order"]),
    Mutation("A call that could not write all its rows reports success", "unwritten-rows",
        ["return;\n{line}"], [OPEN + "test_a_key_is_taken_while_its_webhook_may_be_applied_control"]),
    # Money.
    Mutation("The amount of an order is the price of one unit", "order-amount",
        ["v_prices[v_slots[hold.i]],"], [ORDERS + "test_an_order_awaits_payment_of_its_amount"]),
    Mutation("A payment of any amount pays an order", "amount-matches", [""],
        [PAYMENTS + "test_another_amount_or_currency_changes_nothing_and_is_recorded"]),
    Mutation("A payment in any currency pays an order", "currency-matches", [""],
        [PAYMENTS + "test_another_amount_or_currency_changes_nothing_and_is_recorded"]),
    Mutation("An order that the buyer cancelled is revived", "cancelled-not-revived", [""],
        [PAYMENTS + "test_the_table[a_cancelled_order--success-cancelled-refund_due-payment_cancelled-0]"]),
    Mutation("A late payment revives an order whose units are sold", "units-left-to-revive",
        ["when true then 'applied'"], [KNOWN + "test_success_after_failure_takes_nobodys_unit"]),
    Mutation("A second payment of a paid order is no refund", "paid-once", [""],
        [PAYMENTS + "test_the_table[a_paid_order--success-paid-refund_due-None-0]"]),
    Mutation(
        "Payments of a wrong amount are missing from the refunds due",
        "refunds-recorded",
        ["where d.status = 'success' and d.result = 'refund_due'"],
        [
            PAYMENTS + "test_distinct_captured_payments_are_paid_orders_and_refunds_due",
            "tests/operators/test_views.py::test_a_payment_of_a_wrong_amount",
        ],
    ),
    Mutation("A captured payment whose order never came is deleted", "captured-kept", [""],
        [SWEEP + "test_a_captured_payment_whose_order_never_came_becomes_a_refund"]),
    Mutation("A refund whose order never came is listed only after a sweep", "refunds-unswept",
        ["where false) p"], [OPEN + "test_a_refund_that_was_told_stays_due"]),
    Mutation("A webhook that its key's reuse has removed stays counted in the inbox", "inbox-counter", [""],
        [STORED + "test_a_batch_answers_in_array_order_when_it_makes_room_in_the_inbox[False]"]),
    Mutation("A key is free while an open transaction may apply its webhook", "key-still-taken",
        ["select array_agg(request.to_apply),"],
        [OPEN + "test_a_key_is_taken_while_its_webhook_may_be_applied"]),
    Mutation(
        "The response for a key comes from the webhook that its own call has deleted",
        "key-deleted-by-call",
        ["else v_recorded[request.i]"],
        [
            STORED + "test_a_freed_key_that_meets_a_locked_product_is_to_be_sent_again",
            STORED + "test_a_freed_key_that_finds_no_room_in_the_inbox_is_told_so",
        ],
    ),
    Mutation("A payment waits for an order while it holds the lock of another", "one-order-at-a-time",
        ["perform flashsale_data.lock_orders(array_remove(v_order_ids, null));\n{line}"],
        [OPEN + "test_payments_under_each_others_keys_do_not_deadlock"]),
    Mutation("A key that a sweep is freeing is refused as reused", "payment-key-locked", [""],
        [OPEN + "test_a_key_whose_webhook_a_sweep_is_ending_is_waited_for"]),
    Mutation("Settings that were changed since the snapshot apply", "unseen-settings", [""],
        [ISOLATION + "test_settings_that_were_changed_since_are_not_used"]),
    Mutation("A hold that cannot be recorded is reported as placed", "hold-recorded",
        ["{line}\non conflict do nothing"], [OPEN + "test_a_hold_that_is_not_recorded_is_an_error"]),
    Mutation("A payment is listed as a refund while an open order may take it", "refund-certain",
        ["else coalesce(v_now, max(v_now)) end"], [OPEN + "test_a_refund_is_told_only_when_it_is_certain"]),
    Mutation("A transaction does not announce the stored webhooks that it may apply",
        "stored-webhooks-announced", ["0, 0);"], [OPEN + "test_a_refund_is_told_only_when_it_is_certain"]),
    Mutation("A listed refund disappears while its order is being created", "stored-webhooks-announced",
        ["hashtext('flashsale.stored_webhooks'), ((v_tenth - 36000) % 2147483648)::int);"],
        [OPEN + "test_a_refund_that_was_told_stays_due"]),
    Mutation("An order leaves webhooks whose wait has ended in the inbox", "wait-ended", ["and false"],
        [OPEN + "test_a_refund_that_was_told_stays_due"]),
    Mutation("An order applies webhooks whose wait has ended", "ended-wait-not-applied", [""],
        [OPEN + "test_a_refund_that_was_told_stays_due"]),
    Mutation("A longer inbox_keep resumes waits that have ended", "wait-only-shortened", [""],
        [OPEN + "test_a_shorter_inbox_keep_holds_for_what_is_stored_and_a_longer_one_for_what_comes"]),
    Mutation("The inbox limit is read before the lock", "inbox-limit-read",
        ["select * into v_settings from flashsale_data.settings;\n{line}", ""],
        [OPEN + "test_the_inbox_limit_is_read_after_its_lock"]),
    Mutation("A release reports success for a hold that was not released", "hold-released", [""],
        [OPEN + "test_a_release_is_told_only_of_a_hold_that_is_released"]),
    Mutation(
        "A failed payment changes an overdue order",
        "failed-payment-in-time",
        [
            "when v_payment.status <> 'success'"
            " then case when v_order.status = 'pending_payment' then 'applied' else 'no_change' end"
        ],
        [PAYMENTS + "test_the_table[an_overdue_order--failed-cancelled-no_change-payment_overdue-0]"],
    ),
    Mutation("A webhook whose wait has ended takes room in the inbox while it is locked",
        "ended-wait-takes-no-room", ["where false);"],
        [CONCURRENCY + "test_an_expired_webhook_takes_no_room_while_its_key_is_used_again"]),
    Mutation("Stored webhooks are applied in reverse order of arrival", "order-of-arrival",
        ["order by p.arrival desc"],
        [STORED + "test_stored_webhooks_are_applied_in_order_of_arrival_when_their_order_is_created"]),
    Mutation("The inbox has no limit", "inbox-limit", ["and false", "v_room := 1000000;"],
        [STORED + "test_past_the_cap_webhooks_for_unknown_orders_are_refused"]),
    Mutation("A purge deletes captured payments", "captured-not-purged", ["false"],
        [PURGE + "test_paid_orders_and_captured_payments_stay"]),
    Mutation("A purge deletes stored webhooks, which stay counted in the inbox", "stored-not-purged", ["));"],
        [PURGE + "test_an_order_with_a_stored_webhook_waits_for_the_sweep"]),
    Mutation("A purge above READ COMMITTED misses a payment newer than its snapshot", "purge-isolation",
        ["elsif false then"], [PURGE + "test_a_purge_from_an_older_snapshot_than_a_payment_is_refused"]),
    # The ledger, and the audit.
    Mutation("A hold takes no units in the ledger", "hold-in-ledger", ["0"],
        [EVENTS + "test_an_event_names_its_product_hold_order_and_payment"]),
    Mutation("Payments are missing from the ledger", "payments-in-ledger", [""],
        [EVENTS + "test_an_event_names_its_product_hold_order_and_payment"]),
    Mutation("Refunds are missing from the ledger", "refund-in-ledger",
        ["elsif v_result = 'amount_mismatch' then"], [EVENTS + "test_a_change_appends_exactly_these_events"]),
    Mutation("Readers of the ledger skip events that commit late", "ledger-announcement", ["0,"],
        [EVENTS + "test_a_late_commit_is_not_skipped"]),
    Mutation("A second purge overwrites the sums that the first carried forward", "ledger-carried",
        ["on conflict (product_id) do update set available_delta = excluded.available_delta"],
        [PURGE + "test_the_ledger_still_adds_up"]),
    Mutation("The audit does not compare the held units", "audit-held", ["from units u where false"],
        [AUDIT + "test_a_check_fires_alone_when_its_invariant_is_broken"]),
    Mutation("The audit does not compare captured payments with paid orders and refunds", "audit-money",
        ["where false"], [AUDIT + "test_a_check_fires_alone_when_its_invariant_is_broken"]),
    # Tables, privileges.
    StatementMutation("A hold can have two orders", "flashsale_data.orders_hold_key",
        "alter table flashsale_data.orders drop constraint orders_hold_key", [CONSTRAINTS]),
    StatementMutation("Two payments can pay one order", "flashsale_data.payments_one_pays",
        "drop index flashsale_data.payments_one_pays", [CONSTRAINTS]),
    StatementMutation("The stock table accepts more units in use than the total stock",
        "flashsale_data.stock_never_oversold",
        "alter table flashsale_data.stock drop constraint stock_never_oversold", [CONSTRAINTS]),
    StatementMutation("The role of the API may purge", "flashsale.purge",
        "grant execute on function flashsale.purge to flashsale_api",
        [PRIVILEGES + "test_api_may_call_exactly_the_public_functions"]),
    StatementMutation("The role of the API may read a table", "flashsale_data.payments",
        "grant select on flashsale_data.payments to flashsale_api",
        [PRIVILEGES + "test_api_may_read_the_refusals_and_no_table"]),
    StatementMutation("The audit is granted to every role", "flashsale.audit",
        "grant execute on function flashsale.audit to public",
        [CONVENTIONS + "test_a_file_creates_one_object_of_its_name_and_grants_it[audit]"]),
    StatementMutation("Every role may execute functions that are added later", "flashsale_owner",
        "alter default privileges for role flashsale_owner grant execute on functions to public",
        [PRIVILEGES + "test_a_new_function_is_not_executable_by_public"]),
    StatementMutation("A security definer function resolves names by its caller's search_path",
        "flashsale.place_hold", "alter function flashsale.place_hold reset search_path",
        [PRIVILEGES + "test_every_security_definer_function_pins_its_search_path"]),
    Mutation("An order is shown to callers who do not know its hold", "order-capability", [""],
        ["tests/sql/test_reads.py::test_an_order_is_shown_only_to_whoever_knows_its_hold"]),
    Mutation("Hold ids can be guessed", "hold-id-entropy", ["select greatest(1, 1048575"],
        [HOLDS + "test_hold_ids_are_random_positive_and_below_2_to_the_53"]),
    # HTTP.
    Mutation("Unsigned webhooks are always accepted", "unsigned-webhooks", ["if not headers:"],
        [SIGNED + "test_unsigned_webhooks_are_accepted_only_when_allowed_and_wrong_signatures_never"]),
    Mutation("A webhook with a wrong signature is accepted", "signature", [""],
        [SIGNED + "test_every_secret_that_is_set_is_valid"]),
    Mutation("Other spellings of a valid signature are accepted", "canonical-signature",
        ["if len(headers) == len(HEADERS):"],
        [SIGNED + "test_other_spellings_of_the_same_timestamp_and_signature_are_refused"]),
    Mutation("Only the first secret is valid", "every-secret", ["break"],
        [SIGNED + "test_every_secret_that_is_set_is_valid"]),
    Mutation("A duplicate member of a JSON object is accepted", "duplicate-members", ["if False:"],
        ["tests/api/test_request_bodies.py::test_data_that_is_not_strict_json_is_malformed"]),
    Mutation("A request body of any size is accepted", "body-limit", ["MAX_BODY_BYTES = 1 << 30"],
        [PROBLEMS + "test_errors_from_the_application"]),
    Mutation("A problem has another HTTP status than its SQLSTATE", "problem-status",
        ['"SA002": ProblemType(410, "insufficient_stock", "", ""),'],
        [PROBLEMS + "test_the_table_of_refusals_equals_the_view"]),
    Mutation("A call whose outcome is unknown is reported as rolled back", "outcome-unknown",
        ['return RolledBack(error.sqlstate or "57014", str(error))'],
        ["tests/api/test_database_failures.py::test_a_connection_without_a_response_is_closed_and_replaced"]),
    Mutation("A write whose outcome is unknown is retried", "write-not-retried", ["if False:"],
        [BATCHING + "test_a_write_whose_outcome_is_unknown_is_never_retried"]),
    Mutation("Rows are assigned to requests by position instead of request_no", "row-of-request",
        ["found[found.index(None)] = returned"],
        [BATCHING + "test_requests_that_arrive_during_a_call_share_the_next_and_each_gets_its_row"]),
    Mutation("Two equal writes in a batch are sent as one", "writes-not-merged", ["if True:"],
        [BATCHING + "test_equal_writes_never_share_a_row"]),
    Mutation("The queue has no limit", "queue-limit", ["if False:"],
        [BATCHING + "test_a_full_queue_rejects_at_once"]),
    Mutation("A request whose call does not return waits without a limit", "response-timeout", ["if False:"],
        [BATCHING + "test_a_request_that_reaches_its_queue_timeout_is_never_sent"]),
]
# fmt: on
