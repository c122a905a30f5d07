-- Makes the claims of buyers follow their orders, which are no longer pending: what is paid counts
-- for ever, what is cancelled no more. p_scopes lines up with p_product_ids, the orders' products,
-- which the caller has locked; null where claims are not kept.
create or replace function flashsale_data.settle_claims(
  p_orders flashsale_data.orders[], p_product_ids bigint[], p_scopes text[])
returns void
language plpgsql
as $$
begin
  delete from flashsale_data.claims c
  using unnest(p_orders) as o
  where c.hold_id = o.hold_id and o.status = 'cancelled';

  -- An order that takes its units again has no claim, or one that has ended.
  insert into flashsale_data.claims (hold_id, scope, buyer, ends_at, product_id, qty)
  select o.hold_id, p_scopes[array_position(p_product_ids, o.product_id)], o.buyer, 'infinity', o.product_id, o.qty
  from unnest(p_orders) as o
  where o.status = 'paid' and o.buyer is not null
    and p_scopes[array_position(p_product_ids, o.product_id)] is not null
  on conflict (hold_id) do update set ends_at = excluded.ends_at; -- guard: claim-follows-payment
end
$$;
comment on function flashsale_data.settle_claims(flashsale_data.orders[], bigint[], text[]) is
  'Makes the claims of buyers follow their paid and cancelled orders';
