-- depends: 0004.deadlines-on-tenths

set local role flashsale_owner;

-- Webhooks that were refused although their sender is the payment provider: each may stand for captured
-- money. body has the first 256 KiB of what came, body_size its whole length. order_id, idempotency_key
-- and status are what could be read of it.
create table flashsale_data.rejected_webhooks (
  webhook_id      text        not null,
  body            bytea       not null,
  body_size       bigint      not null,
  code            text        not null,
  detail          text        not null,
  idempotency_key text,
  order_id        bigint,
  status          text,
  deliveries      bigint      not null,
  first_seen_at   timestamptz not null,
  last_seen_at    timestamptz not null,
  dismissed_at    timestamptz,
  constraint rejected_webhooks_pkey primary key (webhook_id),
  constraint rejected_webhooks_webhook_id check (length(webhook_id) between 1 and 255),
  constraint rejected_webhooks_body check (octet_length(body) <= 262144 and octet_length(body) <= body_size),
  constraint rejected_webhooks_code check (length(code) between 1 and 100),
  constraint rejected_webhooks_detail check (length(detail) between 1 and 1000),
  constraint rejected_webhooks_deliveries check (deliveries > 0),
  constraint rejected_webhooks_seen check (first_seen_at <= last_seen_at)
);
-- Those that stand: neither understood since nor dismissed. The table is new.
-- squawk-ignore require-lock-timeout, require-statement-timeout
create index rejected_webhooks_standing on flashsale_data.rejected_webhooks (first_seen_at)
  where dismissed_at is null;
comment on column flashsale_data.rejected_webhooks.dismissed_at is
  'When an operator declared it dealt with; null while it stands.';

-- One row. Its lock makes settings.rejected_limit exact, its change raises 40001 in a caller whose snapshot
-- is older, and its counters only grow.
create table flashsale_data.rejection_counter (
  singleton boolean not null default true,
  kept      bigint  not null default 0,
  dropped   bigint  not null default 0,
  constraint rejection_counter_pkey primary key (singleton),
  constraint rejection_counter_one_row check (singleton)
);
comment on column flashsale_data.rejection_counter.kept is 'Webhooks that were ever kept.';
comment on column flashsale_data.rejection_counter.dropped is
  'Deliveries that were not kept because rejected_limit webhooks stood.';
insert into flashsale_data.rejection_counter default values;

-- At most 100,000, and an argument of change_settings(), whose limits are int.
-- squawk-ignore prefer-bigint-over-int
alter table flashsale_data.settings add column rejected_limit int not null default 1000
  constraint settings_rejected_limit check (rejected_limit between 0 and 100000);

reset role;
