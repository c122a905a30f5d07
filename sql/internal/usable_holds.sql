-- For each request of create_orders: its hold, if an order can be expected from it, else
-- null. That is an active, unexpired hold with an unused key, which no earlier such request
-- of the call names. The other states are final, so that requests are refused for them
-- without a lock. What is returned here is judged again once it is locked.
create or replace function flashsale_data.usable_holds(
  p_hold_ids bigint[], p_idempotency_keys text[], p_locked_keys text[], p_now timestamptz)
returns bigint[]
language plpgsql stable
as $$
declare
  v_usable bigint[];
begin
  v_usable := array(
    select case when request.key is null
                  or key_order.order_id is null
                     and request.key in (select unnest(p_locked_keys))
                     and length(request.key) between 1 and 255
                then hold.hold_id end
    from unnest(p_hold_ids, p_idempotency_keys) with ordinality as request (hold_id, key, i)
    -- The expiry is no join condition: a hold is found by its id, not among all that are unexpired.
    left join lateral (
      select case when h.status = 'active' and h.expires_at > p_now then h.hold_id end as hold_id
      from flashsale_data.holds h
      where h.hold_id = request.hold_id) hold on true
    left join flashsale_data.orders key_order on key_order.idempotency_key = request.key
    order by request.i);
  if cardinality(array_remove(v_usable, null)) < 2 then
    return v_usable;
  end if;

  -- Of a key's requests the first one is served, then of a hold's.
  return array(
    select case when u.first and u.i = min(u.i) filter (where u.first) over (partition by u.hold_id)
                then u.hold_id end
    from (
      select r.hold_id, r.i,
             r.key is null
               or r.i = min(r.i) filter (where r.hold_id is not null) over (partition by r.key) as first
      from unnest(v_usable, p_idempotency_keys) with ordinality as r (hold_id, key, i)) u
    order by u.i);
end
$$;
comment on function flashsale_data.usable_holds(bigint[], text[], text[], timestamptz) is
  'For each request, its hold if an order can be expected from it';
