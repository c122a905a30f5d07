-- depends: 0010.test-products

-- Callers wait for the tables until all of it is done, functions included: they must not meet a part.
-- squawk-ignore-file require-lock-timeout, require-statement-timeout, constraint-missing-not-valid
-- squawk-ignore-file ban-drop-constraint, prefer-bigint-over-int, adding-field-with-default

set local role flashsale_owner;

alter table flashsale_data.settings
  add column extension_time interval not null default '1 minute',
  add column max_extensions int not null default 1,
  add constraint settings_extension_time check (extension_time between '100 milliseconds' and '1 day'),
  add constraint settings_max_extensions check (max_extensions between 0 and 1000);

-- The terms of a product: null where it has none. They change under the lock of its stock row, under
-- which holds and orders read them.
alter table flashsale_data.products
  add column starts_at      timestamptz,
  add column ends_at        timestamptz,
  add column paused         boolean not null default false,
  add column max_per_buyer  int,
  add column max_per_hold   int,
  add column limit_group    text collate "C",
  add column hold_time      interval,
  add column payment_window interval,
  add column listed         boolean not null default true,
  add column has_terms      boolean not null default false,
  add constraint products_starts_at check (starts_at between '1970-01-01 00:00+00' and '9999-01-01 00:00+00'),
  add constraint products_ends_at check (ends_at between '1970-01-01 00:00+00' and '9999-01-01 00:00+00'),
  add constraint products_ends_after_start check (starts_at < ends_at),
  add constraint products_max_per_buyer check (max_per_buyer > 0),
  add constraint products_max_per_hold check (max_per_hold > 0),
  add constraint products_limit_group check (length(limit_group) between 1 and 255),
  add constraint products_hold_time check (hold_time between '100 milliseconds' and '1 day'),
  add constraint products_payment_window check (payment_window between '100 milliseconds' and '30 days'),
  add constraint products_has_terms check (has_terms = (
    paused or num_nonnulls(starts_at, ends_at, max_per_buyer, max_per_hold, limit_group) > 0));
comment on column flashsale_data.products.has_terms is
  'Whether a hold of it is judged by more than its stock: the other terms say how.';

-- The hot row says whether the others have to be read before its lock. Seven columns and this one still
-- share a header of the same size.
alter table flashsale_data.stock add column gated boolean not null default false;
comment on column flashsale_data.stock.gated is 'Whether the product has a window or is paused: products says which.';

-- The text comes first: a call that began before this migration and goes on after it runs the functions of
-- the version before, which take the column after the last for the number of a request, and fail at a null.
-- The functions check them: each constraint of these tables costs a call of one hold 1 %.
alter table flashsale_data.holds
  add column buyer text,
  add column extensions int not null default 0;
alter table flashsale_data.orders
  add column buyer text;
alter table flashsale_data.payments
  add column refund_reason text,
  add constraint payments_refund_reason check (
    refund_reason is null or refund_reason in ('limit_reached') and result = 'refund_due');
comment on column flashsale_data.payments.refund_reason is
  'Why a refund is due, where the order does not show it.';

alter table flashsale_data.orders drop constraint orders_cancel_reason;
alter table flashsale_data.orders add constraint orders_cancel_reason check (
  cancel_reason in ('payment_failed', 'payment_cancelled', 'payment_overdue', 'buyer_cancelled')) not valid;
alter table flashsale_data.orders validate constraint orders_cancel_reason;

alter table flashsale_data.events drop constraint events_kind;
alter table flashsale_data.events add constraint events_kind check (kind in (
  'product_created', 'stock_adjusted', 'price_changed', 'terms_changed', 'sale_paused', 'sale_resumed',
  'hold_placed', 'hold_extended', 'hold_released', 'hold_expired',
  'order_created', 'order_paid', 'order_cancelled',
  'payment_stored', 'refund_due', 'amount_mismatch')) not valid;
alter table flashsale_data.events validate constraint events_kind;

-- What counts towards a limit: the units that a buyer has in one hold, or in the order or purchase that it
-- has become, until ends_at. One row a hold of a product with a limit or a limit group, if the hold has a
-- buyer. What has ended counts no more, swept or not. The scope is the product's own or its limit group's.
create table flashsale_data.claims (
  hold_id    bigint      not null,
  scope      text        collate "C" not null,
  buyer      text        collate "C" not null,
  ends_at    timestamptz not null,
  product_id bigint      not null,
  qty        int         not null,
  constraint claims_pkey primary key (hold_id),
  constraint claims_qty check (qty > 0)
);
create index claims_by_buyer on flashsale_data.claims (scope, buyer, ends_at);
comment on column flashsale_data.claims.ends_at is
  'The expiry of the hold, then the deadline of the order, then infinity: it is paid.';

reset role;
