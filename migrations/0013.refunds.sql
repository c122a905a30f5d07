-- depends: 0011.terms 0012.declined

-- Callers wait for the tables until all of it is done, functions included: they must not meet a part.
-- squawk-ignore-file require-lock-timeout, require-statement-timeout, constraint-missing-not-valid
-- squawk-ignore-file ban-drop-constraint, adding-field-with-default, require-concurrent-index-creation
-- squawk-ignore-file require-concurrent-index-deletion

set local role flashsale_owner;

-- What a captured payment is owed. The text comes first: a call that began before this migration and goes
-- on after it runs the functions of the version before, which take the column after the last for the number
-- of a payment, and fail at a text.
alter table flashsale_data.payments
  add column refund_state text,
  add column refunded numeric not null default 0;
comment on column flashsale_data.payments.refund_reason is 'Why the payment became due for a refund; null: never.';
comment on column flashsale_data.payments.refund_state is
  'due: money is owed back; settled: it was; null: the payment never became due.';
comment on column flashsale_data.payments.refunded is 'The sum of its refunds that are done, chargebacks included.';

alter table flashsale_data.payments drop constraint payments_refund_reason;
update flashsale_data.payments p
set refund_state = 'due',
    refund_reason = case
      when p.refund_reason is not null then p.refund_reason
      when p.result = 'amount_mismatch' then 'amount_mismatch'
      when p.order_status is null then 'order_unknown'
      when p.order_status = 'paid' then 'paid_twice'
      when (select o.cancel_reason from flashsale_data.orders o where o.order_id = p.order_id)
           not in ('payment_failed', 'payment_overdue') then 'order_cancelled'
      else 'sold_out' end
where p.status = 'success' and p.result in ('refund_due', 'amount_mismatch');
alter table flashsale_data.payments
  add constraint payments_refund_reason check (
    refund_reason in ('amount_mismatch', 'order_unknown', 'paid_twice', 'order_cancelled', 'sold_out',
                      'limit_reached')),
  add constraint payments_refund_state check (refund_state in ('due', 'settled')),
  add constraint payments_state_has_a_reason check ((refund_state is null) = (refund_reason is null)),
  add constraint payments_refunded check (refunded >= 0);
drop index flashsale_data.payments_refunds;
create index payments_refunds on flashsale_data.payments (arrival) where refund_state = 'due';

-- Money on its way back: what was asked of the provider, and what the provider has reported by itself.
create table flashsale_data.refunds (
  refund_key    text        collate "C" not null,
  payment_key   text        collate "C" not null,
  amount        numeric     not null,
  currency      text,
  kind          text        not null,
  status        text        not null,
  requested_at  timestamptz,
  lease_ends_at timestamptz,
  recorded_at   timestamptz,
  payload       jsonb       not null default '{}',
  constraint refunds_pkey primary key (refund_key),
  constraint refunds_amount check (amount > 0),
  constraint refunds_kind check (kind in ('refund', 'void', 'chargeback')),
  constraint refunds_status check (status in ('requested', 'done', 'failed')),
  constraint refunds_requested check (status <> 'requested' or lease_ends_at is not null),
  constraint refunds_recorded check ((status = 'requested') = (recorded_at is null))
);
comment on column flashsale_data.refunds.requested_at is 'Null: the provider has reported it by itself.';
comment on column flashsale_data.refunds.lease_ends_at is
  'Until when the request is one worker''s; then begin_refunds() hands it out again.';
create index refunds_by_payment on flashsale_data.refunds (payment_key);
-- One request at a time: a second one could return the same money.
create unique index refunds_one_request on flashsale_data.refunds (payment_key) where status = 'requested';

-- A cancelled sale is a term that cannot be lifted.
alter table flashsale_data.products
  add column cancelled boolean not null default false,
  drop constraint products_has_terms,
  add constraint products_has_terms check (has_terms = (
    paused or cancelled or num_nonnulls(starts_at, ends_at, max_per_buyer, max_per_hold, limit_group) > 0));

alter table flashsale_data.orders drop constraint orders_cancel_reason;
alter table flashsale_data.orders add constraint orders_cancel_reason check (
  cancel_reason in ('payment_failed', 'payment_cancelled', 'payment_overdue', 'buyer_cancelled',
                    'shop_cancelled', 'sale_cancelled')) not valid;
alter table flashsale_data.orders validate constraint orders_cancel_reason;

alter table flashsale_data.events drop constraint events_kind;
alter table flashsale_data.events add constraint events_kind check (kind in (
  'product_created', 'stock_adjusted', 'price_changed', 'terms_changed', 'sale_paused', 'sale_resumed',
  'sale_cancelled', 'hold_placed', 'hold_extended', 'hold_released', 'hold_expired',
  'order_created', 'order_paid', 'order_cancelled', 'payment_stored', 'refund_due', 'amount_mismatch',
  'refund_requested', 'refund_done', 'refund_failed')) not valid;
alter table flashsale_data.events validate constraint events_kind;

reset role;
