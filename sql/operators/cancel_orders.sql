-- Cancels orders for the shop (shop_cancelled): pending ones, whose later payment is a refund due,
-- and paid ones, whose payment becomes one. One that was cancelled for payment_failed or
-- payment_overdue can no longer be revived by a late payment. Of an order that is cancelled for
-- another reason nothing changes. Its units are available again; where p_restocks says false they
-- leave the total stock, as for goods that are lost. One row a request, in order.
--
-- Locks    orders, then products, then payments, to commit.
-- Refuses  SA007 order_not_found, SA009 invalid_request; SA029 wrong_shard for the whole call; 55P03 and 40001 as in place_holds.
create or replace function flashsale.cancel_orders(
  p_request_nos int[], p_order_ids bigint[], p_restocks boolean[] default null)
returns table (request_no int, sqlstate text, detail text, order_id bigint, status text, cancel_reason text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_size           int := flashsale_data.batch_size(cardinality(p_request_nos), array_dims(p_request_nos),
                     array_dims(p_order_ids),
                     case when p_restocks is null then array_dims(p_request_nos) else array_dims(p_restocks) end);
  v_restocks       boolean[];
  v_order_ids      bigint[];
  v_restock        boolean[];
  v_orders         flashsale_data.orders[];
  v_products       bigint[];
  v_ctids          tid[];
  v_effective_nows timestamptz[];
  v_now            timestamptz;
begin
  perform flashsale_data.reject_stale_snapshot(p_order_ids => p_order_ids);
  v_restocks := coalesce(p_restocks, array_fill(true, array[v_size]));

  -- 1 Find the orders, lock them, then their products; the clock is read last
  select array_agg(r.order_id order by r.order_id), array_agg(r.restock order by r.order_id)
    into v_order_ids, v_restock
  from (
    select distinct on (request.order_id) request.order_id, coalesce(request.restock, true) as restock
    from unnest(p_order_ids, v_restocks) with ordinality as request (order_id, restock, i)
    join flashsale_data.orders o on o.order_id = request.order_id
    order by request.order_id, request.i) r;
  if v_order_ids is not null then
    v_orders := (flashsale_data.lock_orders(v_order_ids)).orders;
    v_products := array(
      select distinct o.product_id from unnest(v_orders) as o where o.product_id is not null order by 1);
    if cardinality(v_products) > 0 then
      select l.ctids, l.effective_nows into v_ctids, v_effective_nows from flashsale_data.lock_stock(v_products) l;

      -- 2 Cancel those that are locked
      perform flashsale_data.cancel_locked_orders(
        array(select case when (v_orders[i]).order_id is not null then v_order_ids[i] end
              from generate_subscripts(v_order_ids, 1) as i),
        v_restock, 'shop_cancelled', v_products, v_ctids, v_effective_nows);
    end if;
  end if;

  -- 3 One row a request
  v_now := flashsale_data.read_clock();
  return query
  select p_request_nos[request.i], outcome.refusal,
         case outcome.refusal when 'SA007' then format('There is no order %s.', request.order_id)
                              when 'SA009' then 'Cancelling needs an order.' end,
         o.order_id, o.status, o.cancel_reason
  from unnest(p_order_ids) with ordinality as request (order_id, i)
  left join flashsale_data.orders_at(v_now) o on o.order_id = request.order_id
  cross join lateral (
    select case
      when request.order_id is null then 'SA009'
      when o.order_id is null then flashsale_data.not_found('SA007', request.order_id)
      when o.status <> 'cancelled' or o.cancel_reason in ('payment_failed', 'payment_overdue') then '55P03'
      end as refusal
    offset 0) outcome
  order by request.i;
end
$$;
comment on function flashsale.cancel_orders(int[], bigint[], boolean[]) is
  'Cancels orders for the shop; one outcome row each';
revoke execute on function flashsale.cancel_orders(int[], bigint[], boolean[]) from public;
grant execute on function flashsale.cancel_orders(int[], bigint[], boolean[]) to flashsale_ops;
