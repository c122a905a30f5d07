-- Gives the units of each hold back. Releasing a released hold again does
-- nothing and succeeds. One row a request, in order.
--
-- Locks    holds, then products, to commit.
-- Refuses  SA003 hold_not_found, SA004 hold_expired, SA006 hold_already_used,
--          SA009 invalid_request; 55P03 and 40001 as in place_holds.
create or replace function flashsale.release_holds(p_request_nos int[], p_hold_ids bigint[])
returns table (request_no int, sqlstate text, detail text, hold_id bigint, status text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_material = off
set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  v_open     bigint[];
  v_locked   bigint[];
  v_products bigint[];
  v_places   tid[];
  v_now      timestamptz;
begin
  perform flashsale_data.batch_size(cardinality(p_request_nos), array_dims(p_request_nos),
    array_dims(p_hold_ids));
  perform flashsale_data.reject_unseen(p_hold_ids => p_hold_ids);

  -- Ordered, released, expired and unknown are final: no lock to say so.
  select array_agg(h.hold_id) into v_open
  from flashsale_data.holds h
  where h.hold_id = any (p_hold_ids) and h.status = 'active';

  if v_open is not null then
    v_locked := flashsale_data.lock_holds(v_open);
    -- Read the holds again, now that nobody can move them on.
    select l.products, l.places into v_products, v_places
    from flashsale_data.lock_stock(array(
      select h.product_id from flashsale_data.holds h
      where h.hold_id = any (v_locked) and h.status = 'active')) l;
    v_locked := array(
      select h.hold_id from flashsale_data.holds h
      where h.hold_id = any (v_locked) and (h.status <> 'active' or h.product_id = any (v_products)));

    v_now := clock_timestamp();
    perform flashsale_data.open_ledger();
    with released as (
      update flashsale_data.holds h
      set status = 'released'
      from flashsale_data.holds_at(v_now) f
      where f.hold_id = any (v_locked) and h.hold_id = f.hold_id and f.status = 'active'
      returning h.hold_id, h.product_id, h.qty, h.expires_at
    ), recorded as (
      insert into flashsale_data.events (kind, at, product_id, hold_id, available_delta)
      select 'hold_released', clock_timestamp(), r.product_id, r.hold_id, r.qty
      from released r
    ), lapsing as (
      update flashsale_data.lapses l
      set held = l.held - r.qty
      from (select r.product_id, r.expires_at, sum(r.qty)::int as qty from released r group by 1, 2) r
      where l.product_id = r.product_id and l.lapses_at = r.expires_at
    )
    update flashsale_data.stock s
    set held = s.held - r.qty, -- guard: release-returns-units
        version = s.version + 1
    from (select r.product_id, sum(r.qty)::int as qty from released r group by 1) r
    join unnest(v_products, v_places) as locked (product_id, place) using (product_id)
    where s.ctid = locked.place;
  end if;

  v_now := flashsale_data.read_clock();
  return query
  select r.request_no,
         case when r.hold_id is null then 'SA009'
              when f.hold_id is null then 'SA003'
              when f.status = 'active' -- guard: hold-released
                   or r.hold_id = any (v_open) and not r.hold_id = any (v_locked) then '55P03'
              when f.status = 'expired' then 'SA004'
              when f.status = 'ordered' then 'SA006' end,
         case when r.hold_id is null then 'A release needs a hold.'
              when f.hold_id is null then format('There is no hold %s.', r.hold_id)
              when f.status = 'expired' then format('Hold %s expired at %s.', r.hold_id, f.expires_at)
              when f.status = 'ordered' then format('Hold %s has become order %s.', r.hold_id, o.order_id) end,
         r.hold_id, f.status
  from unnest(p_request_nos, p_hold_ids) with ordinality as r (request_no, hold_id, i)
  left join flashsale_data.holds_at(v_now) f on f.hold_id = r.hold_id
  left join flashsale_data.orders o on o.hold_id = r.hold_id
  order by r.i;
end
$$;
comment on function flashsale.release_holds(int[], bigint[]) is
  'Gives the units of each hold back; one outcome row each';
revoke execute on function flashsale.release_holds(int[], bigint[]) from public;
grant execute on function flashsale.release_holds(int[], bigint[]) to flashsale_api;
