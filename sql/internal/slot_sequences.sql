-- Where the sequences stand whose numbers must not be given out again in a slot that leaves this shard.
create or replace function flashsale_data.slot_sequences()
returns jsonb
language sql volatile
as $$
  select jsonb_object_agg(s.name, coalesce(pg_sequence_last_value(s.name::regclass), 0))
  from (values ('flashsale_data.order_ids'), ('flashsale_data.products_product_id_seq')) as s (name);
$$;
comment on function flashsale_data.slot_sequences() is 'Where the sequences stand whose numbers a slot has used';
