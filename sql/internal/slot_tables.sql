-- The tables whose rows move with a slot, in the order in which they are loaded, and for each: its key (null: a row
-- whose key is in use at the target is an error); which rows are of slot $1 of $2 slots; whether it is copied while the slot is still sold, so that only what has
-- changed since is left for the moment in which it stands still. Rows of the others may be deleted meanwhile.
-- A payment is of its order's slot, whether or not there is such an order; ledger and settings stay.
create or replace function flashsale_data.slot_tables()
returns table (place int, table_name text, key_columns text[], condition text, is_copied_early boolean)
language sql immutable
as $$
  values
    (1, 'products', array['product_id'], 't.product_id % $2 = $1', true),
    (2, 'holds', array['hold_id'], 't.product_id % $2 = $1', true),
    (3, 'orders', array['order_id'], 't.product_id % $2 = $1', true),
    (4, 'payments', array['idempotency_key'], 't.order_id % $2 = $1', true),
    (5, 'refunds', null,
        't.payment_key in (select p.idempotency_key from flashsale_data.payments p where p.order_id % $2 = $1)', false),
    (6, 'claims', array['hold_id'], 't.product_id % $2 = $1', false),
    (7, 'operations', array['operation', 'idempotency_key'], 't.product_id % $2 = $1', false),
    (8, 'rejected_webhooks', array['webhook_id'], 't.order_id > 0 and t.order_id % $2 = $1', false),
    (9, 'lapses', array['product_id', 'lapses_at'], 't.product_id % $2 = $1', false),
    (10, 'stock', array['product_id', 'version'], 't.product_id % $2 = $1', false);
$$;
comment on function flashsale_data.slot_tables() is 'The tables whose rows move with a slot, and how';
