-- For each request of place_holds: what its idempotency key has done before, in arrays by
-- request. Requests with one key share a key slot, the position of the first of them; it is
-- null without a key. A request whose key is malformed, locked elsewhere (not in p_locked_keys)
-- or has placed another hold, or one of another buyer, has a sqlstate; one whose key has placed its hold has that hold as
-- it stands at p_now, and its order. The others are new.
create or replace function flashsale_data.replayed_holds(
  p_product_ids bigint[], p_qtys int[], p_buyers text[], p_idempotency_keys text[], p_locked_keys text[],
  p_now timestamptz,
  out key_slots int[], out sqlstates text[],
  out holds flashsale_data.holds[], out orders flashsale_data.orders[])
language plpgsql stable
as $$
begin
  select array_agg(r.key_slot), array_agg(r.refusal),
         array_agg(case when r.refusal is null then r.hold end),
         array_agg(case when r.refusal is null then r.existing_order end)
    into key_slots, sqlstates, holds, orders
  from (
    select request.key_slot, hold, existing_order,
           case
             when length(request.key) not between 1 and 255 then 'SA009'
             when not request.key in (select unnest(p_locked_keys)) then '55P03'
             when hold.hold_id is not null
               -- guard: hold-key-reused
               and (hold.product_id, hold.qty, hold.buyer)
                   is distinct from (request.product_id, request.qty, request.buyer)
               then 'SA008' end as refusal
    from (
      select u.*, case when u.key is not null then min(u.i) over (partition by u.key) end::int as key_slot
      from unnest(p_product_ids, p_qtys, p_buyers, p_idempotency_keys) with ordinality
        as u (product_id, qty, buyer, key, i)) request
    left join flashsale_data.holds_at(p_now) hold on hold.idempotency_key = request.key
    left join flashsale_data.orders_at(p_now) existing_order on existing_order.hold_id = hold.hold_id
    order by request.i) r;
end
$$;
comment on function flashsale_data.replayed_holds(bigint[], int[], text[], text[], text[], timestamptz) is
  'For each request, what its idempotency key has done before';
