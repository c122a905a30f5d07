-- Each hold as it stands at this instant, with the order it has become.
-- One row a request, in order. Refuses SA003 hold_not_found, SA009 invalid_request,
-- SA030 not_primary; SA029 wrong_shard for the whole call.
create or replace function flashsale.get_holds(p_request_nos int[], p_hold_ids bigint[])
returns table (request_no int, sqlstate text, detail text, hold_id bigint, product_id bigint, qty int,
               status text, expires_at timestamptz, order_id bigint, order_status text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
-- planner settings: docs/design.md
set plan_cache_mode = force_generic_plan set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_material = off
set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  v_now timestamptz := flashsale_data.read_clock();
begin
  perform flashsale_data.batch_size(cardinality(p_request_nos), array_dims(p_request_nos),
    array_dims(p_hold_ids));
  if pg_is_in_recovery() then -- guard: read-on-primary
    perform flashsale_data.raise_refusal('SA030', flashsale_data.primary_error());
  end if;
  return query
  select r.request_no,
         case when r.hold_id is null then 'SA009' when f.hold_id is null then flashsale_data.not_found('SA003', r.hold_id) end,
         case when r.hold_id is null then 'A hold has an id.'
              when f.hold_id is null then format('There is no hold %s.', r.hold_id) end,
         f.hold_id, f.product_id, f.qty, f.status, f.expires_at, o.order_id, o.status
  from unnest(p_request_nos, p_hold_ids) with ordinality as r (request_no, hold_id, i)
  left join flashsale_data.holds_at(v_now) f on f.hold_id = r.hold_id
  left join flashsale_data.orders_at(v_now) o on o.hold_id = r.hold_id
  order by r.i;
end
$$;
comment on function flashsale.get_holds(int[], bigint[]) is
  'Each hold as it stands, with its order; one outcome row each';
revoke execute on function flashsale.get_holds(int[], bigint[]) from public;
grant execute on function flashsale.get_holds(int[], bigint[]) to flashsale_api;
