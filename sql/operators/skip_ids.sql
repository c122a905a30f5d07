-- Moves the sequences past ids that a lost commit may have drawn: after a failover to a standby that lacks the
-- last commits, or a restore to an earlier instant. They would be drawn again, and a provider's late webhook for
-- the lost order would pay the order of another buyer; a reader of the ledger would skip new events. Call it
-- before the servers accept requests. Repeated, it skips once more.
--
-- Skips p_count order ids and event ids, of orders those up to p_order_id, too: the newest that the provider
-- knows. Of product ids, which are few, it skips at most 1,000. Hold ids and refund keys are random. Returns
-- where each sequence stands now; that of order ids counts in multiples of the shop's slots.
--
-- Refuses SA009 invalid_request: p_count is 1,000 to 100,000,000, an order id at most 2^52. Refuses SA030
-- not_primary in a logical copy, whose sequences still stand where they began.
create or replace function flashsale.skip_ids(p_count int default 1000000, p_order_id bigint default null)
returns table (sequence_name text, last_id bigint)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_error text := flashsale_data.primary_error();
begin
  -- Readers of the ledger tell announcements of ids from older ones within 2^30 ids (read_events).
  if p_count is null or p_count not between 1000 and 100000000 then
    perform flashsale_data.raise_refusal('SA009', '1,000 to 100,000,000 ids are skipped.');
  elsif p_order_id not between 0 and 4503599627370496 then
    perform flashsale_data.raise_refusal('SA009', 'An order id is at most 2^52.');
  elsif v_error is not null then -- guard: skip-on-primary
    perform flashsale_data.raise_refusal('SA030', v_error);
  end if;
  return query
  select s.name, setval(s.name::regclass, greatest(nextval(s.name::regclass), s.known) + s.skipped) -- guard: ids-skipped
  from (values ('flashsale_data.order_ids', p_order_id / (select sh.slots from flashsale_data.shard sh), p_count), ('flashsale_data.event_ids', null, p_count),
               ('flashsale_data.products_product_id_seq', null, least(p_count, 1000))) as s (name, known, skipped);
end
$$;
comment on function flashsale.skip_ids(int, bigint) is 'Moves the sequences past ids that a lost commit may have drawn';
revoke execute on function flashsale.skip_ids(int, bigint) from public;
grant execute on function flashsale.skip_ids(int, bigint) to flashsale_ops;
