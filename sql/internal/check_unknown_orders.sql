-- Raises SA029 if the orders of these webhooks, which are about to be stored, are not this shard's to wait for:
-- their slot has moved away, or here with the orders, since the orders were looked up. Expects the inbox row to be
-- locked, which a move of a slot locks, too. With one slot nothing moves.
create or replace function flashsale_data.check_unknown_orders(p_payments flashsale_data.payments[])
returns void
language plpgsql
as $$
declare
  v_order_ids bigint[];
begin
  if (select s.slots from flashsale_data.shard s) = 1 then
    return;
  end if;
  v_order_ids := array(select p.order_id from unnest(p_payments) as p);
  perform flashsale_data.check_owned(v_order_ids); -- guard: stored-where-owned
  if exists (select from flashsale_data.orders o where o.order_id = any (v_order_ids)) then -- guard: stored-before-arrival
    perform flashsale_data.raise_refusal('SA029', 'An order has come with its slot meanwhile.');
  end if;
end
$$;
comment on function flashsale_data.check_unknown_orders(flashsale_data.payments[]) is
  'Raises SA029 if the slot of a webhook about to be stored has moved';
