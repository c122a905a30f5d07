-- Sequences that would give out an id again: they stand behind a row, or behind an id that purge()
-- has removed. A copy of the tables (logical replication, a dump of the data alone) leaves its
-- sequences at their start. Where the shop has several slots, the sequence of order ids counts in
-- multiples of their number. p_all: the order of arrival of webhooks, too, which no index has.
create or replace function flashsale_data.sequences_behind(p_all boolean default false)
returns table (sequence_name text, last_id bigint, highest_id bigint)
language plpgsql stable
as $$
declare
  v_slots      int;
  v_order_id   bigint;
  v_event_id   bigint;
  v_product_id bigint;
  v_arrival    bigint;
begin
  -- The rows first, then the sequences: what is drawn in between is ahead.
  v_slots := (select s.slots from flashsale_data.shard s);
  select max(o.order_id) / v_slots into v_order_id from flashsale_data.orders o;
  select max(e.event_id) into v_event_id from flashsale_data.events e;
  select max(p.product_id) into v_product_id from flashsale_data.products p;
  if p_all then
    select max(p.arrival) into v_arrival from flashsale_data.payments p;
  end if;
  -- guard: purged-ids
  select greatest(v_order_id, p.order_id / v_slots), greatest(v_event_id, p.event_id) into v_order_id, v_event_id
  from flashsale_data.purge_state p right join (values (1)) always on true;
  return query
  select s.name, coalesce(pg_sequence_last_value(s.name::regclass), 0), s.used
  from (values ('flashsale_data.order_ids', v_order_id), ('flashsale_data.event_ids', v_event_id),
               ('flashsale_data.products_product_id_seq', v_product_id),
               ('flashsale_data.arrivals', v_arrival)) as s (name, used)
  where coalesce(pg_sequence_last_value(s.name::regclass), 0) < s.used; -- guard: sequence-behind-rows
end
$$;
comment on function flashsale_data.sequences_behind(boolean) is 'Sequences that would give out an id again';
