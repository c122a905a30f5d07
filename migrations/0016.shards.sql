-- depends: 0014.failed-sweeps

-- Callers wait for the tables until all of it is done, functions included: they must not meet a part.
-- squawk-ignore-file require-lock-timeout, require-statement-timeout, constraint-missing-not-valid
-- squawk-ignore-file ban-drop-constraint, prefer-bigint-over-int

set local role flashsale_owner;

-- One row: into how many slots the ids of the shop are divided, and which of them this database has. A
-- product, its holds and its orders have ids with one remainder of a division by slots, their slot.
create table flashsale_data.shard (
  singleton boolean not null default true,
  slots     int     not null default 1,
  owned     int[]   not null default '{0}',
  constraint shard_pkey primary key (singleton),
  constraint shard_one_row check (singleton),
  constraint shard_slots check (slots between 1 and 256 and slots & (slots - 1) = 0),
  constraint shard_owned check (
    array_position(owned, null) is null and 0 <= all (owned) and slots > all (owned)),
  constraint shard_of_one_slot check (slots > 1 or owned = '{0}')
);
comment on column flashsale_data.shard.slots is 'A power of two, fixed once a product exists.';
insert into flashsale_data.shard default values;

-- The last move of a slot away from here: the shard that has received its rows takes it over by this move_id.
create table flashsale_data.departed_slots (
  slot           int         not null,
  move_id        uuid        not null,
  transaction_id xid8        not null,
  changed_since  xid8        not null,
  departed_at    timestamptz,
  constraint departed_slots_pkey primary key (slot)
);
comment on column flashsale_data.departed_slots.transaction_id is 'The transaction that has exported its rows.';
comment on column flashsale_data.departed_slots.changed_since is
  'The oldest transaction that was in progress when its rows were first read.';
comment on column flashsale_data.departed_slots.departed_at is 'Null: exported, but not given up.';

-- The rows of a slot on its way to here, part by part: rows has an array of rows of the table as text. They
-- are not compressed: they stay for seconds.
create table flashsale_data.arriving_rows (
  slot       int    not null,
  move_id    uuid   not null,
  table_name text   collate "C" not null,
  part       int    not null,
  rows       text   not null,
  constraint arriving_rows_pkey primary key (slot, table_name, part)
);
alter table flashsale_data.arriving_rows alter column rows set storage external;

-- The ledger of a product that has moved away stays, and adds up to 0.
alter table flashsale_data.ledger_carried drop constraint ledger_carried_product_fkey;

alter table flashsale_data.events drop constraint events_kind;
alter table flashsale_data.events add constraint events_kind check (kind in (
  'product_created', 'stock_adjusted', 'price_changed', 'terms_changed', 'sale_paused', 'sale_resumed',
  'sale_cancelled', 'hold_placed', 'hold_extended', 'hold_released', 'hold_expired',
  'order_created', 'order_paid', 'order_cancelled', 'payment_stored', 'refund_due', 'amount_mismatch',
  'refund_requested', 'refund_done', 'refund_failed', 'product_moved_out', 'product_moved_in')) not valid;
alter table flashsale_data.events validate constraint events_kind;

reset role;
