-- depends: 0001.roles-and-schemas

set local role flashsale_owner;

-- One row. Behaviour that every caller shares; flashsale.change_settings() edits it.
create table flashsale_data.settings (
  singleton      boolean  not null default true,
  hold_time      interval not null default '2 minutes',
  payment_window interval not null default '15 minutes',
  inbox_limit    int      not null default 10000,
  inbox_keep     interval not null default '24 hours',
  constraint settings_pkey primary key (singleton),
  constraint settings_one_row check (singleton),
  constraint settings_hold_time check (hold_time between '100 milliseconds' and '1 day'),
  constraint settings_payment_window check (payment_window between '100 milliseconds' and '30 days'),
  constraint settings_inbox_limit check (inbox_limit between 0 and 1000000),
  constraint settings_inbox_keep check (inbox_keep between '1 second' and '30 days')
);
insert into flashsale_data.settings default values;

-- What does not change while a sale runs.
create table flashsale_data.products (
  product_id bigint      generated always as identity,
  name       text        not null,
  price      numeric     not null,
  currency   text        not null,
  created_at timestamptz not null,
  constraint products_pkey primary key (product_id),
  constraint products_name check (length(name) between 1 and 200),
  constraint products_price check (price >= 0 and price < 1000000000000),
  constraint products_currency check (currency ~ '^[A-Z]{3}$')
);

-- What changes with every sale: one row a product, the hot row.
--
-- available = total_stock - held - awaiting - paid, where held and awaiting
-- still count the units whose time ran out after lapsed_through: those are
-- found in lapses.
--
-- A row is found by its highest version, never by product_id alone. Every
-- update raises the version, and so puts the newest row at the end of the
-- index: an old snapshot elsewhere (a backup, a psql left open) keeps dead
-- versions alive, and a look-up by product_id would walk over all of them.
-- The price is that no unique index can say "one row a product"; audit() does.
create table flashsale_data.stock (
  product_id     bigint      not null,
  version        bigint      not null default 1,
  total_stock    int         not null,
  held           int         not null default 0,
  awaiting       int         not null default 0,
  paid           int         not null default 0,
  lapsed_through timestamptz not null default '-infinity',
  constraint stock_version_key unique (product_id, version),
  constraint stock_product_fkey foreign key (product_id) references flashsale_data.products,
  constraint stock_counters_not_negative check (total_stock >= 0 and held >= 0 and awaiting >= 0 and paid >= 0),
  constraint stock_never_oversold check (held::bigint + awaiting + paid <= total_stock)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0);
comment on column flashsale_data.stock.held is 'Units in active holds that lapse after lapsed_through.';
comment on column flashsale_data.stock.awaiting is 'Units in pending orders that are due after lapsed_through.';
comment on column flashsale_data.stock.paid is 'Units in paid orders.';
comment on column flashsale_data.stock.lapsed_through is 'Everything that lapsed up to here has left held and awaiting.';

-- When units come back by themselves: one row for a product and an instant,
-- not one for a hold, so that a million holds lapsing at once are a few rows to
-- whoever needs the units. Instants are whole tenths of a second.
-- Up to stock.lapsed_through a row says what is still to be tidied; it goes
-- when its holds and orders have been marked.
create table flashsale_data.lapses (
  product_id bigint      not null,
  lapses_at  timestamptz not null,
  held       int         not null default 0,
  awaiting   int         not null default 0,
  constraint lapses_pkey primary key (product_id, lapses_at),
  constraint lapses_product_fkey foreign key (product_id) references flashsale_data.products,
  constraint lapses_not_negative check (held >= 0 and awaiting >= 0)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
create index lapses_by_time on flashsale_data.lapses (lapses_at);

-- No index names status: a hold changes state once, and that update then stays
-- on its page (HOT) instead of adding to the random primary key again.
create table flashsale_data.holds (
  hold_id         bigint      not null,
  product_id      bigint      not null,
  qty             int         not null,
  status          text        not null default 'active',
  placed_at       timestamptz not null,
  expires_at      timestamptz not null,
  idempotency_key text,
  constraint holds_pkey primary key (hold_id),
  constraint holds_product_fkey foreign key (product_id) references flashsale_data.products,
  constraint holds_hold_id check (hold_id between 1 and 9007199254740991),
  constraint holds_qty check (qty > 0),
  constraint holds_status check (status in ('active', 'ordered', 'expired', 'released'))
) with (fillfactor = 75);
create unique index holds_idempotency_key on flashsale_data.holds (idempotency_key)
  where idempotency_key is not null;
create index holds_by_expiry on flashsale_data.holds (expires_at, product_id);

create sequence flashsale_data.order_ids;

create table flashsale_data.orders (
  order_id        bigint      not null,
  hold_id         bigint      not null,
  product_id      bigint      not null,
  qty             int         not null,
  amount          numeric     not null,
  currency        text        not null,
  status          text        not null default 'pending_payment',
  cancel_reason   text,
  created_at      timestamptz not null,
  payment_due_at  timestamptz not null,
  idempotency_key text,
  constraint orders_pkey primary key (order_id),
  constraint orders_hold_key unique (hold_id),
  constraint orders_hold_fkey foreign key (hold_id) references flashsale_data.holds,
  constraint orders_product_fkey foreign key (product_id) references flashsale_data.products,
  constraint orders_qty check (qty > 0),
  constraint orders_amount check (amount >= 0),
  constraint orders_status check (status in ('pending_payment', 'paid', 'cancelled')),
  constraint orders_cancel_reason check (
    cancel_reason in ('payment_failed', 'payment_cancelled', 'payment_overdue')),
  constraint orders_reason_if_cancelled check ((status = 'cancelled') = (cancel_reason is not null))
) with (fillfactor = 75);
create unique index orders_idempotency_key on flashsale_data.orders (idempotency_key)
  where idempotency_key is not null;
create index orders_by_due on flashsale_data.orders (payment_due_at, product_id);

-- Every webhook that was taken, once: the key is the provider's word for one event.
-- result 'stored' is the inbox: webhooks whose order is not known (yet).
create sequence flashsale_data.arrivals;

create table flashsale_data.payments (
  idempotency_key text        not null,
  arrival         bigint      not null default nextval('flashsale_data.arrivals'),
  order_id        bigint      not null,
  status          text        not null,
  amount          numeric,
  currency        text,
  payload         jsonb       not null,
  received_at     timestamptz not null,
  result          text        not null,
  order_status    text,
  constraint payments_pkey primary key (idempotency_key),
  constraint payments_status check (status in ('success', 'failed', 'cancelled')),
  constraint payments_result check (
    result in ('stored', 'applied', 'no_change', 'refund_due', 'amount_mismatch')),
  constraint payments_order_status check (order_status in ('pending_payment', 'paid', 'cancelled')),
  constraint payments_stored_has_no_order check (result <> 'stored' or order_status is null)
);
alter sequence flashsale_data.arrivals owned by flashsale_data.payments.arrival;
create index payments_by_order on flashsale_data.payments (order_id, arrival);
create index payments_inbox on flashsale_data.payments (received_at) where result = 'stored';
create index payments_refunds on flashsale_data.payments (arrival)
  where status = 'success' and result in ('refund_due', 'amount_mismatch');
-- At most one payment pays an order: the second is a refund, whatever the code says.
create unique index payments_one_pays on flashsale_data.payments (order_id)
  where status = 'success' and result = 'applied';

-- How many webhooks are in the inbox: its row lock makes the cap exact, and its
-- change tells a REPEATABLE READ caller that the inbox moved under it.
create table flashsale_data.inbox (
  singleton boolean not null default true,
  stored    int     not null default 0,
  constraint inbox_pkey primary key (singleton),
  constraint inbox_one_row check (singleton),
  constraint inbox_stored check (stored >= 0)
) with (fillfactor = 10);
insert into flashsale_data.inbox default values;

-- The ledger: audit trail, stock ledger and outbox in one. Append-only.
create sequence flashsale_data.event_ids;

create table flashsale_data.events (
  event_id        bigint      not null default nextval('flashsale_data.event_ids'),
  kind            text        not null,
  at              timestamptz not null,
  product_id      bigint,
  hold_id         bigint,
  order_id        bigint,
  payment_key     text,
  available_delta int         not null default 0,
  data            jsonb,
  constraint events_pkey primary key (event_id),
  constraint events_kind check (kind in (
    'product_created', 'stock_adjusted',
    'hold_placed', 'hold_released', 'hold_expired',
    'order_created', 'order_paid', 'order_cancelled',
    'payment_stored', 'refund_due', 'amount_mismatch'))
);
alter sequence flashsale_data.event_ids owned by flashsale_data.events.event_id;

-- What purge() removed from the ledger, as a sum, so that the ledger still adds up.
create table flashsale_data.ledger_carried (
  product_id      bigint not null,
  available_delta bigint not null,
  constraint ledger_carried_pkey primary key (product_id),
  constraint ledger_carried_product_fkey foreign key (product_id) references flashsale_data.products
);

-- The newest migration and the digest of sql/ when `flashsale migrate` last ran,
-- and what it scheduled.
create table flashsale_data.schema_state (
  singleton boolean     not null default true,
  version   text        not null,
  digest    text        not null,
  loaded_at timestamptz not null,
  constraint schema_state_pkey primary key (singleton),
  constraint schema_state_one_row check (singleton)
);

create table flashsale_data.scheduler (
  singleton    boolean     not null default true,
  schedule     text,
  scheduled_at timestamptz,
  last_run_at  timestamptz,
  constraint scheduler_pkey primary key (singleton),
  constraint scheduler_one_row check (singleton)
);
insert into flashsale_data.scheduler default values;

reset role;
