-- Appends events to the ledger, in array order. Their event_id and at are ignored: ids
-- are drawn here, after the write has been announced to read_events().
create or replace function flashsale_data.append_events(p_events flashsale_data.events[])
returns void
language plpgsql
as $$
begin
  if cardinality(p_events) > 0 then
    perform flashsale_data.announce_ledger_write();
    insert into flashsale_data.events
      (kind, at, product_id, hold_id, order_id, payment_key, available_delta, data)
    select e.kind, clock_timestamp(), e.product_id, e.hold_id, e.order_id, e.payment_key,
           e.available_delta, e.data
    from unnest(p_events) as e;
  end if;
end
$$;
comment on function flashsale_data.append_events(flashsale_data.events[]) is 'Appends events to the ledger';
