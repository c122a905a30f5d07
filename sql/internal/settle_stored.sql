-- Applies the webhooks that came before these orders, in order of arrival, and
-- takes them out of the inbox; false if there were none. Expects the orders' ids
-- to be locked, so that no webhook can be stored for them meanwhile. The inbox
-- row is the last lock of all.
create or replace function flashsale_data.settle_stored(p_order_ids bigint[])
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_stored flashsale_data.payments[];
begin
  -- Locked, so that the sweep does not let them lapse under us. Found by order:
  -- || '' keeps the planner from the index of all that are stored, which is the
  -- smaller one in quiet times, and none in a flood or beside an old snapshot.
  v_stored := array(
    select p from flashsale_data.payments p, flashsale_data.settings c
    where p.order_id = any (p_order_ids) and p.result || '' = 'stored'
      and p.received_at > clock_timestamp() - c.inbox_keep
    order by p.arrival
    for no key update of p);
  if cardinality(v_stored) = 0 then
    return false;
  end if;
  perform flashsale_data.settle_payments(
    array_agg(s.idempotency_key order by s.arrival), array_agg(s.order_id order by s.arrival),
    array_agg(s.status order by s.arrival), array_agg(s.amount order by s.arrival),
    array_agg(s.currency order by s.arrival), array_agg(s.payload order by s.arrival),
    array_agg(s.received_at order by s.arrival))
  from unnest(v_stored) s;
  update flashsale_data.inbox set stored = stored - cardinality(v_stored);
  return true;
end
$$;
comment on function flashsale_data.settle_stored(bigint[]) is 'Applies the webhooks that came before these orders';
