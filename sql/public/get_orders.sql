-- Each order as it stands at this instant. Order ids can be guessed, so the request must name
-- the hold that the order came from, too: otherwise it is refused as if there were no such
-- order. One row a request, in order. Refuses SA007 order_not_found, SA030 not_primary;
-- SA029 wrong_shard for the whole call.
create or replace function flashsale.get_orders(p_request_nos int[], p_order_ids bigint[], p_hold_ids bigint[])
returns table (request_no int, sqlstate text, detail text, order_id bigint, product_id bigint, qty int,
               status text, cancel_reason text, amount numeric, currency text,
               created_at timestamptz, payment_due_at timestamptz)
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
    array_dims(p_order_ids), array_dims(p_hold_ids));
  if pg_is_in_recovery() then -- guard: read-on-primary
    perform flashsale_data.raise_refusal('SA030', flashsale_data.primary_error());
  end if;
  return query
  select r.request_no,
         case when f.order_id is null then flashsale_data.not_found('SA007', r.order_id) end,
         case when f.order_id is null then format('There is no order %s with this hold_id.', r.order_id) end,
         f.order_id, f.product_id, f.qty, f.status, f.cancel_reason, f.amount, f.currency,
         f.created_at, f.payment_due_at
  from unnest(p_request_nos, p_order_ids, p_hold_ids) with ordinality as r (request_no, order_id, hold_id, i)
  left join flashsale_data.orders_at(v_now) f on f.order_id = r.order_id
    and f.hold_id = r.hold_id -- guard: order-capability
  order by r.i;
end
$$;
comment on function flashsale.get_orders(int[], bigint[], bigint[]) is
  'Each order as it stands, for callers that name its hold; one outcome row each';
revoke execute on function flashsale.get_orders(int[], bigint[], bigint[]) from public;
grant execute on function flashsale.get_orders(int[], bigint[], bigint[]) to flashsale_api;
